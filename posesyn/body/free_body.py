"""Reads the shipped free body (``posesyn/assets/body_full.npz``, ``body_small.npz``; made by ``tools/bake_body.py``).

The file is a compressed npz without pickled objects. F faces, V vertices, Vt texture points:

===================  ================  ================================================================================
key                  type              meaning
===================  ================  ================================================================================
format               str               ``posesyn-body-1``
v_template           float32 (V, 3)    T-pose, metres, x to the body's left, y up, z forwards
shapedirs            float16 (V,3,10)  displacement per unit of beta; betas are standard normal over adults
weights_joint        uint8 (V, 4)      joints that move the vertex
weights_value        uint16 (V, 4)     their weights, times 65535
J_regressor_row      uint8 (N,)        non-zero entries of the joint regressor: joint
J_regressor_column   uint16 (N,)       ... vertex
J_regressor_value    float32 (N,)      ... value
kintree_table        int8 (2, 24)      parents and joints, as in SMPL files
f                    uint16 (F, 3)     faces, counter-clockwise from outside
uv                   uint16 (Vt, 2)    texture coordinates times 65535, v upwards
uv_faces             uint16 (F, 3)     texture point of each corner
vertex_ids           uint16 (21,)      vertices that serve as joints 24 to 44 of ``smpl45``
vertex_names         str (21,)         their names in smplx
part_of_vertex       uint8 (V,)        index into ``part_names``
part_names           str (P,)          scalp, face, chest, lthigh, ...
===================  ================  ================================================================================

There are no pose correctives: ``posedirs`` is absent and counts as zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posesyn.body.arrays import NUM_JOINTS, BodyArrays, smpl_parents
from posesyn.errors import FileError
from posesyn.storage.arrays import read_npz

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
