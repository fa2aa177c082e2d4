"""What a data set knows of a person in 3D, exactly as it states it: joints, or parameters of a body model.

Data sets with photographs rarely have both, and none has SMPL joints in posesyn's order; nothing is filled in here.
Rendered persons carry :class:`posesyn.types.BodyLabels` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError

Gender = Literal["neutral", "male", "female"]
GENDERS: dict[str, Gender] = {
    **dict.fromkeys(("m", "male", "Male", "M"), "male"),
    **dict.fromkeys(("f", "female", "Female", "F"), "female"),
    **dict.fromkeys(("n", "neutral", "Neutral", "N", ""), "neutral"),
}


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
    """

    pose_rotvec: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    gender: Gender = "neutral"
    model: Literal["smpl", "smplx"] = "smpl"
    world_to_cam: np.ndarray | None = None

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
        for field, (got, wanted) in shapes.items():
            if got != wanted:
                raise InputError(f"BodyFit.{field} has the wrong shape", expected=wanted, got=got)
        for field in ("pose_rotvec", "betas", "transl"):
            value = np.asarray(getattr(self, field), np.float32)
            if not np.isfinite(value).all():
                raise InputError(f"BodyFit.{field} has NaN or infinite values")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "world_to_cam", extrinsics)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the posed body → camera frame."""
        return np.asarray(points) @ self.world_to_cam[:3, :3].T + self.world_to_cam[:3, 3]


def joint_truth(person: Any) -> JointTruth | None:
    """3D joints of a :class:`posesyn.types.Person`: those of the data set, or of a rendered person's exact labels; None
    without any."""
    if person.joints is not None or person.labels is None:
        return person.joints
    labels = person.labels
    return JointTruth(labels.joints_cam, np.ones(len(labels.joints_cam), bool), "smpl45", labels.intrinsics)


def gender_of(value: object, where: object) -> Gender:
    """A data set's word for the gender of a body.

    Raises:
        InputError: Another word.
    """
    word = value.decode() if isinstance(value, bytes) else str(value)
    if word not in GENDERS:
        raise InputError("unknown gender", where=where, expected="m, f, neutral, male or female", got=repr(word))
    return GENDERS[word]
