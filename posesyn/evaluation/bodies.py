"""Licensed bodies applied to the fits of a data set, and joint regressors applied to meshes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from posesyn import skeletons
from posesyn.body import load_body
from posesyn.errors import FileError, InputError
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.types import BodyFit, BodyLabels, Person


class FittedBodies:
    """The neutral, male and female SMPL body, loaded when first needed.

    Args:
        folder: Folder of the SMPL files (see :func:`posesyn.body.load_body`); None takes ``POSESYN_SMPL``. ``"anny"``
            takes the free body for every gender, which suits only fits made with it.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = "smpl" if folder is None else str(folder)
        self._bodies: dict[str, torch.nn.Module] = {}

    def body(self, gender: str) -> torch.nn.Module:
        """The body of a gender."""
        key = "neutral" if self.folder == "anny" else gender
        if key not in self._bodies:
            self._bodies[key] = load_body(self.folder, gender=key)
        return self._bodies[key]

    def pose(self, fits: Sequence[BodyFit]) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (B, V, 3) and the 45 joints (B, 45, 3) in the camera, float32 metres.

        Raises:
            InputError: A SMPL-X fit, or no fits.
        """
        if not len(fits):
            raise InputError("there are no fits to pose", where="FittedBodies.pose")
        if any(fit.model != "smpl" for fit in fits):
            fix = "use files with SMPL labels"
            raise InputError("only SMPL fits can be posed", where="FittedBodies.pose", got="smplx", fix=fix)
        vertices, joints = {}, {}
        for gender in sorted({fit.gender for fit in fits}):
            rows = [row for row, fit in enumerate(fits) if fit.gender == gender]
            some = [fits[row] for row in rows]
            arrays = (
                [fit.pose_rotvec for fit in some],
                [_ten(fit.betas) for fit in some],
                [fit.transl for fit in some],
            )
            pose, betas, transl = (torch.from_numpy(np.stack(values)) for values in arrays)
            with torch.inference_mode():
                output = self.body(gender)(rotvec_to_matrix(pose), betas, transl)
            for place, row in enumerate(rows):
                vertices[row] = fits[row].to_camera(output.vertices[place].numpy())
                joints[row] = fits[row].to_camera(output.joints[place].numpy())
        order = range(len(fits))
        return tuple(np.stack([part[row] for row in order]).astype(np.float32) for part in (vertices, joints))

    def neutral(
        self, pose_rotmat: np.ndarray, betas: np.ndarray, transl: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and the 45 joints of the neutral body for predictions (B, 24, 3, 3), (B, 10), (B, 3)."""
        arrays = [torch.from_numpy(np.asarray(value, np.float32)) for value in (pose_rotmat, betas)]
        moved = None if transl is None else torch.from_numpy(np.asarray(transl, np.float32))
        with torch.inference_mode():
            output = self.body("neutral")(*arrays, moved)
        return output.vertices.numpy(), output.joints.numpy()

    def labels(self, person: Person) -> BodyLabels:
        """The person's fit as labels to train on: SMPL parameters in the camera's frame and the 45 joints.

        Raises:
            InputError: The person has no SMPL fit, no camera, or a fit without a known translation.
        """
        fit, matrix = person.fit, person.intrinsics
        if fit is None or matrix is None or not fit.transl_known:
            raise InputError(
                "labels need a fit with translation and a camera",
                where=f"person '{person.person_id}'",
                fix="use 3DPW or EMDB, or files with trans_cam and cam_int",
            )
        _, joints = self.pose([fit])
        rotation = fit.world_to_cam[:3, :3]
        pose = rotvec_to_matrix(torch.from_numpy(fit.pose_rotvec)).numpy().copy()
        pose[0] = rotation @ pose[0]
        pelvis = self.body(fit.gender).rest_joints(torch.from_numpy(_ten(fit.betas))[None])[0, 0].numpy()
        # The root turns about the pelvis, which is not at the body's origin.
        transl = fit.to_camera(pelvis + fit.transl) - pelvis
        pose, transl, matrix = (np.asarray(value, np.float32) for value in (pose, transl, matrix))
        return BodyLabels(pose, _ten(fit.betas), transl, joints[0], matrix)


@dataclass(frozen=True, eq=False)
class JointRegressor:
    """A (J, V) matrix that turns a mesh into joints.

    Attributes:
        matrix: (J, V) float64.
        skeleton: ``h36m17`` or ``h36m17_reg`` for 17 rows, decided by geometry; ``smpl54`` for the 9 extra rows, which
            are appended to the body's 45 joints.
        source: The file, for the result.
    """

    matrix: np.ndarray
    skeleton: str
    source: str

    def __call__(self, vertices: np.ndarray, joints45: np.ndarray | None = None) -> np.ndarray:
        """(B, V, 3) → (B, J, 3), with the 9 extra joints after ``joints45`` (B, 45, 3)."""
        if vertices.shape[-2] != self.matrix.shape[1]:
            raise InputError(
                "the regressor belongs to another mesh",
                where=self.source,
                expected=f"{self.matrix.shape[1]} vertices",
                got=vertices.shape[-2],
                fix="evaluate with the body the estimator predicts",
            )
        made = np.einsum("jv,bvc->bjc", self.matrix, np.asarray(vertices, np.float64))
        if self.skeleton != "smpl54":
            return made
        if joints45 is None or joints45.shape[-2] != 45:
            raise InputError("the extra regressor needs the body's 45 joints beside the mesh", where=self.source)
        return np.concatenate((joints45, made), axis=-2)


def load_regressor(path: str | os.PathLike[str], template: np.ndarray) -> JointRegressor:
    """Reads ``J_regressor_h36m*.npy`` (17 rows) or ``J_regressor_extra.npy`` (9 rows).

    Which of the two Human3.6M orders a file has is seen from the hips on the template, not from its name
    (nkolot/SPIN's J_regressor_h36m.npy lists the left leg first, J_regressor_h36m_correct.npy the right one).

    Args:
        path: The file.
        template: (V, 3) SMPL's mean shape in the T-pose, facing +z.

    Raises:
        FileError: Missing or damaged.
        InputError: Another number of rows or vertices, or hips that are not on two sides.
    """
    path = Path(path)
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileError("a joint regressor is missing or damaged", where=path, got=error) from error
    if matrix.ndim != 2 or len(matrix) not in (17, 9) or not np.isfinite(matrix).all():
        expected = "(17, V) for Human3.6M or (9, V) for the extra joints"
        raise InputError("a joint regressor has the wrong shape", where=path, expected=expected, got=matrix.shape)
    if matrix.shape[1] != len(template):
        expected, got = f"{len(template)} vertices", matrix.shape[1]
        raise InputError("a joint regressor belongs to another mesh", where=path, expected=expected, got=got)
    skeleton = "smpl54" if len(matrix) == 9 else skeletons.detect_h36m_order(matrix @ template)
    return JointRegressor(matrix.astype(np.float64), skeleton, str(path))


def _ten(betas: np.ndarray) -> np.ndarray:
    """(10,) of however many a data set states: SMPL's own ten, the rest is for other models."""
    made = np.zeros(10, np.float32)
    made[: min(10, len(betas))] = betas[:10]
    return made
