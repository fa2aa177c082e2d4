"""Licensed SMPL files: ``.pkl`` as published (through a restricted unpickler, chumpy is not needed) and ``.npz``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from posesyn.body.arrays import NUM_BETAS, BodyArrays, smpl_parents
from posesyn.errors import FileError, InputError
from posesyn.storage.arrays import read_npz
from posesyn.storage.unpickling import PickledObject, restricted_load

ENVIRONMENT = "POSESYN_SMPL"
GENDERS = ("neutral", "male", "female")
SMPL_VERTICES = 6890
# Our own choice: SMPL with 300 shape components inflates to 250 MB.
MAX_NPZ_BYTES = 1 << 30
# As smplx and the official archives (SMPLify, SMPL 1.0.0 and 1.1.0) name the files.
_NAMES = {
    gender: tuple(
        f"{stem}{suffix}"
        for stem in (
            f"SMPL_{gender.upper()}",
            f"basicmodel_{gender[0] if gender != 'neutral' else gender}_lbs_10_207_0_v1.1.0",
            f"basicModel_{gender[0] if gender != 'neutral' else gender}_lbs_10_207_0_v1.0.0",
            f"basicmodel_{gender[0] if gender != 'neutral' else gender}_lbs_10_207_0_v1.0.0",
        )
        for suffix in (".pkl", ".npz")
    )
    for gender in GENDERS
}


def find_smpl_file(path: str | Path | None, gender: str) -> Path:
    """The file to read: ``path`` itself, the file of that gender in the folder ``path`` (or in its ``smpl`` or
    ``models`` folder), or the same for the environment variable ``POSESYN_SMPL`` if ``path`` is None.

    Raises:
        InputError: Unknown gender.
        FileError: Nothing there; says where to get SMPL, where to put it, and the free alternative.
    """
    if gender not in GENDERS:
        raise InputError("unknown gender of a SMPL file", expected=", ".join(GENDERS), got=gender)
    place = path if path is not None else os.environ.get(ENVIRONMENT)
    if place:
        place = Path(place).expanduser()
        if place.is_file():
            return place
        for folder in (place, place / "smpl", place / "models"):
            for name in _NAMES[gender]:
                if (folder / name).is_file():
                    return folder / name
    raise FileError(
        f"no SMPL body model ({gender})",
        where=place or f"the environment variable {ENVIRONMENT}, which is not set",
        expected=f"a .pkl or .npz file, or a folder with {_NAMES[gender][0]}",
        fix=(
            "register at https://smpl.is.tue.mpg.de, download 'SMPL for Python', unpack it anywhere, and pass the "
            f"folder to load_body(...) or set {ENVIRONMENT} to it; or use the free body, which needs neither: "
            'load_body("anny")'
        ),
    )


def read_smpl_file(path: Path) -> BodyArrays:
    """Reads a SMPL body of 6890 vertices; shape components beyond the tenth are dropped.

    Raises:
        UnsafeFileError: The file asks to run code or inflates too far. Nothing was run.
        FileError: Missing, damaged, or not a SMPL model.
    """
    if path.suffix == ".npz":
        raw: Any = read_npz(path, max_bytes=MAX_NPZ_BYTES)
    elif path.suffix == ".pkl":
        raw = restricted_load(path, allow=("chumpy.*",))
    else:
        raise FileError("not a SMPL file", where=path, expected=".pkl or .npz", got=path.suffix or "no suffix")
    if not isinstance(raw, Mapping):
        raise FileError("not a SMPL file", where=path, expected="a dictionary", got=type(raw).__name__)
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f", "kintree_table")
    missing = [name for name in names if name not in raw]
    if missing:
        raise FileError("the SMPL file lacks arrays", where=path, expected=", ".join(names), got=f"no {missing}")
    data = {name: _dense(raw[name], name, path) for name in names}
    if data["v_template"].shape != (SMPL_VERTICES, 3):
        raise FileError(
            "not the SMPL mesh", where=path, expected=(SMPL_VERTICES, 3), got=data["v_template"].shape,
            fix="SMPL-H, SMPL-X and MANO files are other models; use a SMPL file",
        )  # fmt: skip
    tree = data["kintree_table"].astype(np.int64)
    # Pickles hold the root's parent as the unsigned -1.
    if tree.ndim != 2 or tuple(int(p) for p in tree[0, 1:]) != smpl_parents()[1:]:
        raise FileError("the kinematic tree is not SMPL's", where=path, got=tree[:1].tolist())
    return BodyArrays(
        v_template=data["v_template"].astype(np.float32),
        shapedirs=data["shapedirs"][..., :NUM_BETAS].astype(np.float32),
        posedirs=data["posedirs"].astype(np.float32),
        joint_regressor=data["J_regressor"].astype(np.float32),
        weights=data["weights"].astype(np.float32),
        faces=data["f"].astype(np.int64),
    ).check(path)


def _dense(value: Any, name: str, path: Path) -> np.ndarray:
    if sparse.issparse(value):
        value = value.toarray()
    array = _chumpy_value(value, name, path) if isinstance(value, PickledObject) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise FileError(f"array '{name}' does not hold numbers", where=path, got=array.dtype)
    return array


def _chumpy_value(value: Any, name: str, path: Path) -> np.ndarray:
    """The array of a chumpy object, from its state: ``Ch`` keeps it in ``x``; ``Select`` (the shape components of SMPL
    1.0.0) keeps a source ``a``, flat indices ``idxs`` and the shape of the result.
    """
    if not isinstance(value, PickledObject):
        return np.asarray(value)
    state = value.state if isinstance(value.state, Mapping) else {}
    if "x" in state:
        return _chumpy_value(state["x"], name, path)
    if value.class_name.endswith(".Select") and {"a", "idxs"} <= state.keys():
        source, index = _chumpy_value(state["a"], name, path).ravel(), np.asarray(state["idxs"])
        shape = state.get("preferred_shape") or index.shape
        if index.dtype.kind in "iu" and index.size == np.prod(shape) and 0 <= index.min() <= index.max() < source.size:
            return source[index.ravel()].reshape(tuple(int(n) for n in shape))
    raise FileError(
        f"cannot take array '{name}' from a chumpy object",
        where=path,
        expected="chumpy.ch.Ch or chumpy.reordering.Select",
        got=value.class_name,
        fix="convert the file to .npz with plain arrays",
    )
