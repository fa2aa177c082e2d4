"""What estimators say about persons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.types.looks import short_repr


@dataclass(frozen=True, eq=False, repr=False)
class PoseBatch:
    """What an estimator says about B persons. Only the first four fields are needed from a foreign estimator.

    Attributes:
        person_ids: B names, in the order of the persons passed to ``predict``.
        skeleton: Joint order of ``joints_cam`` and ``keypoints_px``.
        joints_cam: (B, J, 3) float32 metres, camera frame of the full image (root-relative is enough for extraction).
        keypoints_px: (B, J, 2) float32, the projection of ``joints_cam`` into the full image.
        pose_rotmat: (B, 24, 3, 3) local SMPL rotations, root in the camera frame, or None.
        betas: (B, 10) or None.
        transl_cam: (B, 3) SMPL translation in the full-image camera, or None.
        intrinsics: (B, 3, 3) of the full image, or None.
        vertices_cam: (B, V, 3) or None.
        scores: (B, J) float32, 0 to 1: how sure it is that each of ``keypoints_px`` is seen there; None where it does
            not say.

    Example:
        >>> batch = PoseBatch(("a", "b"), "coco17", np.zeros((2, 17, 3)), np.zeros((2, 17, 2)))
        >>> len(batch), batch[1].person_ids
        (2, ('b',))
    """

    person_ids: tuple[str, ...]
    skeleton: str
    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    pose_rotmat: np.ndarray | None = None
    betas: np.ndarray | None = None
    transl_cam: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    vertices_cam: np.ndarray | None = None
    scores: np.ndarray | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        batch, joints = len(self.person_ids), len(skeletons.get(self.skeleton).joints)
        shapes = {
            "joints_cam": (batch, joints, 3),
            "keypoints_px": (batch, joints, 2),
            "pose_rotmat": (batch, 24, 3, 3),
            "betas": (batch, 10),
            "transl_cam": (batch, 3),
            "intrinsics": (batch, 3, 3),
            "scores": (batch, joints),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name not in ("joints_cam", "keypoints_px"):
                continue
            if np.shape(value) != shape:
                raise InputError(
                    f"PoseBatch.{name} has the wrong shape",
                    where=f"an estimator's output, skeleton '{self.skeleton}'",
                    expected=shape,
                    got=np.shape(value),
                )

    def __len__(self) -> int:
        return len(self.person_ids)

    def __getitem__(self, index: int | slice) -> PoseBatch:
        """One person (or several) as a PoseBatch that keeps the batch axis."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        arrays: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else value[rows]
            for name in (
                "joints_cam",
                "keypoints_px",
                "pose_rotmat",
                "betas",
                "transl_cam",
                "intrinsics",
                "vertices_cam",
                "scores",
            )
        }
        return PoseBatch(self.person_ids[rows], self.skeleton, **arrays)
