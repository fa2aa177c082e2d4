"""Rendered frames of a motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posesyn.errors import InputError
from posesyn.types.looks import short_repr


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """Rendered frames of a motion with exact labels, camera frame.

    Shapes: frames (T, H, W, 3) uint8 RGB; pose_rotvec (T, 24, 3), root in the camera frame; betas (10,);
    transl_cam (T, 3); joints_cam (T, 45, 3); keypoints_px (T, 45, 2); visible (T, 45) bool, inside the image and not
    hidden by the body itself; mask (T, H, W) bool; depth (T, H, W) float16 metres, 0 where there is no body;
    intrinsics (3, 3); keep (T,) bool, frames that survived the filter.

    Example:
        >>> standing = ps.Motion("stand", np.zeros((2, 24, 3)), np.zeros((2, 3)), np.zeros(10), fps=20.0)
        >>> clip = ps.AnimationRenderer(image_size=64).render([standing], progress=False)[0]
        >>> len(clip), clip.frames.shape, clip.keypoints_px.shape
        (2, (2, 64, 64, 3), (2, 45, 2))
    """

    clip_id: str
    frames: np.ndarray
    pose_rotvec: np.ndarray
    betas: np.ndarray
    transl_cam: np.ndarray
    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    visible: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    fps: float
    keep: np.ndarray | None = None
    caption: str = ""
    motion_id: str = ""
    person_id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        frames, height, width = self.frames.shape[:3]
        wanted = {
            "frames": (frames, height, width, 3),
            "pose_rotvec": (frames, 24, 3),
            "betas": (10,),
            "transl_cam": (frames, 3),
            "joints_cam": (frames, 45, 3),
            "keypoints_px": (frames, 45, 2),
            "visible": (frames, 45),
            "mask": (frames, height, width),
            "depth": (frames, height, width),
            "intrinsics": (3, 3),
        }
        if self.keep is None:
            object.__setattr__(self, "keep", np.ones(frames, bool))
        for name, shape in {**wanted, "keep": (frames,)}.items():
            if (got := np.shape(getattr(self, name))) != shape:
                where = f"clip '{self.clip_id}'"
                raise InputError(f"Clip.{name} has the wrong shape", where=where, expected=shape, got=got)

    def __len__(self) -> int:
        return len(self.frames)
