"""The arrays a SMPL-format body consists of, whichever file they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from posesyn import skeletons
from posesyn.errors import FileError

NUM_JOINTS = 24
NUM_BETAS = 10


@dataclass(frozen=True)
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
                raise FileError(
                    f"rows of '{name}' must sum to 1", where=where, got=f"{sums.min():.3f} to {sums.max():.3f}"
                )
        return self


def smpl_parents() -> tuple[int, ...]:
    """Parents of the 24 SMPL joints, -1 for the pelvis."""
    return tuple(int(p) for p in skeletons.get("smpl24").parents)
