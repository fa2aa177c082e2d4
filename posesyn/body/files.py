"""Bodies in files: the arrays of a SMPL-format body, the free one that is shipped, and licensed files.

No file runs code: pickles go through a reader that knows the few types they need."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.storage.files import read_npz
from posesyn.storage.unpickling import PickledObject, restricted_load
from posesyn.types.looks import short_repr

NUM_JOINTS = 24
NUM_BETAS = 10


@dataclass(frozen=True, eq=False)
class BodyArrays:
    """Shapes: v_template (V, 3) metres, T-pose, +y up, facing +z; shapedirs (V, 3, 10); posedirs (V, 3, 207) or None
    for no pose correctives; joint_regressor (24, V), rows sum to 1; weights (V, 24), rows sum to 1; faces (F, 3).

    uv (Vt, 2) in [0, 1] with v upwards and uv_faces (F, 3), or None. part_of_vertex (V,) is an index into
    ``part_names``, or None. vertex_ids names the vertices that become joints 24 to 44 of ``smpl45``; None stands for
    those that smplx knows for the mesh of 6890 vertices.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray | None
    joint_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    part_of_vertex: np.ndarray | None = None
    part_names: tuple[str, ...] = ()
    vertex_ids: Mapping[str, int] | None = None

    __repr__ = short_repr

    def check(self, where: object) -> BodyArrays:
        """Returns itself, or raises FileError naming the first array that cannot belong to a SMPL body."""
        count = len(self.v_template)
        shapes = {
            "v_template": (count, 3),
            "shapedirs": (count, 3, NUM_BETAS),
            "joint_regressor": (NUM_JOINTS, count),
            "weights": (count, NUM_JOINTS),
            "faces": (len(self.faces), 3),
        }
        if self.posedirs is not None:
            shapes["posedirs"] = (count, 3, 9 * (NUM_JOINTS - 1))
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise FileError(f"array '{name}' has the wrong shape", where=where, expected=shape, got=value.shape)
            if not np.isfinite(value).all():
                raise FileError(f"array '{name}' has NaN or infinite values", where=where)
        if count == 0 or len(self.faces) == 0 or self.faces.min() < 0 or self.faces.max() >= count:
            raise FileError("faces name vertices that do not exist", where=where, expected=f"0 to {count - 1}")
        for name, sums in (("joint_regressor", self.joint_regressor.sum(1)), ("weights", self.weights.sum(1))):
            if np.abs(sums - 1).max() > 1e-2:
                got = f"{sums.min():.3f} to {sums.max():.3f}"
                raise FileError(f"rows of '{name}' must sum to 1", where=where, got=got)
        return self


def smpl_parents() -> tuple[int, ...]:
    """Parents of the 24 SMPL joints, -1 for the pelvis."""
    return tuple(int(p) for p in skeletons.get("smpl24").parents or ())


ASSETS = Path(__file__).resolve().parents[1] / "assets"
SIZES = ("full", "small")
FORMAT = "posesyn-body-1"
KEYS = (
    *("v_template", "shapedirs", "weights_joint", "weights_value", "kintree_table", "f", "uv", "uv_faces"),
    *("J_regressor_row", "J_regressor_column", "J_regressor_value"),
    *("vertex_ids", "vertex_names", "part_of_vertex", "part_names"),
)
MAX_BYTES = 64 << 20  # the full body inflates to 5 MB


def read_free_body(path: Path) -> BodyArrays:
    """Reads one of the shipped files.

    Raises:
        FileError: The file is missing, damaged or of another format.
    """
    data = read_npz(path, max_bytes=MAX_BYTES)
    if str(data.get("format")) != FORMAT:
        raise FileError("not a free body of this version", where=path, expected=FORMAT, got=data.get("format"))
    missing = sorted(set(KEYS) - data.keys())
    if missing:
        raise FileError("the body file lacks arrays", where=path, got=f"no {missing}", fix="reinstall posesyn")
    if tuple(int(p) for p in data["kintree_table"][0]) != smpl_parents():
        raise FileError("the kinematic tree is not SMPL's", where=path, got=data["kintree_table"][0].tolist())
    template = data["v_template"].astype(np.float32)
    weights = np.zeros((len(template), NUM_JOINTS), np.float32)
    np.add.at(weights, (np.arange(len(template))[:, None], data["weights_joint"]), data["weights_value"] / 65535)
    regressor = np.zeros((NUM_JOINTS, len(template)), np.float32)
    regressor[data["J_regressor_row"], data["J_regressor_column"]] = data["J_regressor_value"]
    return BodyArrays(
        v_template=template,
        shapedirs=data["shapedirs"].astype(np.float32),
        posedirs=None,
        joint_regressor=regressor,
        weights=weights / weights.sum(1, keepdims=True),
        faces=data["f"].astype(np.int64),
        uv=data["uv"].astype(np.float32) / 65535,
        uv_faces=data["uv_faces"].astype(np.int64),
        part_of_vertex=data["part_of_vertex"].astype(np.int64),
        part_names=tuple(str(name) for name in data["part_names"]),
        vertex_ids={str(k): int(v) for k, v in zip(data["vertex_names"], data["vertex_ids"], strict=True)},
    ).check(path)


ENVIRONMENT = "POSESYN_SMPL"
GENDERS = {"neutral": "neutral", "male": "m", "female": "f"}  # with the short form in names of files
SMPL_VERTICES = 6890
# Our own choice: SMPL with 300 shape components inflates to 250 MB.
MAX_NPZ_BYTES = 1 << 30
# As smplx and the official archives (SMPLify, SMPL 1.0.0 and 1.1.0) name the files.
_STEMS = (
    *("SMPL_{0}", "basicmodel_{1}_lbs_10_207_0_v1.1.0"),
    *("basicModel_{1}_lbs_10_207_0_v1.0.0", "basicmodel_{1}_lbs_10_207_0_v1.0.0"),
)


def find_smpl_file(path: str | Path | None, gender: str) -> Path:
    """The file to read: ``path`` itself, the file of that gender in the folder ``path`` (or in its ``smpl`` or
    ``models`` folder), or the same for the environment variable ``POSESYN_SMPL`` if ``path`` is None.

    Raises:
        InputError: Unknown gender.
        FileError: Nothing there; says where to get SMPL, where to put it, and the free alternative.
    """
    if gender not in GENDERS:
        raise InputError("unknown gender of a SMPL file", expected=", ".join(GENDERS), got=gender)
    names = [stem.format(gender.upper(), GENDERS[gender]) + end for stem in _STEMS for end in (".pkl", ".npz")]
    place = path if path is not None else os.environ.get(ENVIRONMENT)
    if place:
        place = Path(place).expanduser()
        if place.is_file():
            return place
        for folder in (place, place / "smpl", place / "models"):
            for name in names:
                if (folder / name).is_file():
                    return folder / name
    raise FileError(
        f"no SMPL body model ({gender})",
        where=place or f"the environment variable {ENVIRONMENT}, which is not set",
        expected=f"a .pkl or .npz file, or a folder with {names[0]}",
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
        fix, got = "SMPL-H, SMPL-X and MANO files are other models; use a SMPL file", data["v_template"].shape
        raise FileError("not the SMPL mesh", where=path, expected=(SMPL_VERTICES, 3), got=got, fix=fix)
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
    1.0.0) keeps a source ``a``, flat indices ``idxs`` and the shape of the result."""
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
