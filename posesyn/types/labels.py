"""3D truth of one person: the exact labels of rendered data, and what data sets of photographs state.

Data sets with photographs rarely have joints and parameters of a body both, and none has SMPL joints in posesyn's
order; nothing is filled in here. Rendered persons carry :class:`BodyLabels` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.types.looks import short_repr

Gender = Literal["neutral", "male", "female"]
GENDERS: dict[str, Gender] = {
    **dict.fromkeys(("m", "male", "Male", "M"), "male"),
    **dict.fromkeys(("f", "female", "Female", "F"), "female"),
    **dict.fromkeys(("n", "neutral", "Neutral", "N", ""), "neutral"),
}


@dataclass(frozen=True, eq=False, repr=False)
class BodyLabels:
    """Exact 3D truth of one person in one image, camera frame.

    Shapes: pose_rotmat (24, 3, 3) local rotations, root first and expressed in the camera frame; betas (10,);
    transl_cam (3,) metres, the SMPL translation (added after posing; the pelvis is not at the origin of an SMPL body);
    joints_cam (45, 3) metres in the order ``smpl45``; intrinsics (3, 3) of the full image.
    """

    pose_rotmat: np.ndarray
    betas: np.ndarray
    transl_cam: np.ndarray
    joints_cam: np.ndarray
    intrinsics: np.ndarray

    __repr__ = short_repr


@dataclass(frozen=True, eq=False, repr=False)
class JointTruth:
    """3D joints of one person, camera frame (x right, y down, z forward).

    Attributes:
        joints_cam: (J, 3) float32 metres.
        valid: (J,) bool, joints that the data set states.
        skeleton: Joint order.
        intrinsics: (3, 3) of the full image, or None where the data set gives none.
        absolute: False where the positions are relative to the person's root.
    """

    joints_cam: np.ndarray
    valid: np.ndarray
    skeleton: str
    intrinsics: np.ndarray | None = None
    absolute: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        joints = len(skeletons.get(self.skeleton))
        points, valid = np.asarray(self.joints_cam, np.float32), np.asarray(self.valid, bool)
        if points.shape != (joints, 3) or valid.shape != (joints,):
            raise InputError(
                f"JointTruth needs (J, 3) points and (J,) flags of skeleton '{self.skeleton}' (J={joints})",
                got=f"{points.shape} and {valid.shape}",
            )
        if not np.isfinite(points[valid]).all():
            raise InputError("JointTruth has NaN or infinite values at valid joints", where=f"'{self.skeleton}'")
        object.__setattr__(self, "joints_cam", np.where(valid[:, None], points, 0).astype(np.float32))
        object.__setattr__(self, "valid", valid)


@dataclass(frozen=True, eq=False, repr=False)
class BodyFit:
    """Body-model parameters of one person in the data set's own frame.

    The posed body, with ``transl`` added, is moved into the camera by ``world_to_cam``. The parameters stay as the file
    has them, because rotating the root about the pelvis needs the rest pelvis of a licensed body.

    Attributes:
        pose_rotvec: (24, 3) for ``smpl``, (55, 3) for ``smplx`` (root first).
        betas: (B,) shape; how many depends on the data set.
        transl: (3,) metres.
        gender: Which of the three bodies.
        model: ``smpl`` or ``smplx``.
        world_to_cam: (4, 4), the identity where the parameters are in the camera frame already.
        transl_known: False where the data set states no translation, and ``transl`` is zero in its place.
    """

    pose_rotvec: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    gender: Gender = "neutral"
    model: Literal["smpl", "smplx"] = "smpl"
    world_to_cam: np.ndarray | None = None
    transl_known: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        joints = {"smpl": 24, "smplx": 55}.get(self.model)
        if joints is None or self.gender not in ("neutral", "male", "female"):
            raise InputError("unknown body", expected="smpl or smplx; neutral, male or female", got=self.model)
        extrinsics = np.eye(4) if self.world_to_cam is None else np.asarray(self.world_to_cam, np.float64)
        shapes = {
            "pose_rotvec": (np.shape(self.pose_rotvec), (joints, 3)),
            "transl": (np.shape(self.transl), (3,)),
            "world_to_cam": (extrinsics.shape, (4, 4)),
        }
        for name, (got, wanted) in shapes.items():
            if got != wanted:
                raise InputError(f"BodyFit.{name} has the wrong shape", expected=wanted, got=got)
        for name in ("pose_rotvec", "betas", "transl"):
            value = np.asarray(getattr(self, name), np.float32)
            if not np.isfinite(value).all():
                raise InputError(f"BodyFit.{name} has NaN or infinite values")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "world_to_cam", extrinsics)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the posed body → camera frame."""
        world_to_cam = np.asarray(self.world_to_cam)
        moved: np.ndarray = np.asarray(points) @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]
        return moved


def gender_of(value: object, where: object) -> Gender:
    """A data set's word for the gender of a body.

    Raises:
        InputError: Another word.
    """
    word = value.decode() if isinstance(value, bytes) else str(value)
    if word not in GENDERS:
        raise InputError("unknown gender", where=where, expected="m, f, neutral, male or female", got=repr(word))
    return GENDERS[word]
