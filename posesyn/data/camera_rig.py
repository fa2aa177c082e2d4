"""Sampled cameras around recorded or synthesised people: what they see becomes pose pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posesyn.data.pose_pairs import PosePairs
from posesyn.errors import InputError

# Focal length of the Human3.6M cameras in half image widths (poseaug.md section 2).
FOCAL = 2.29
_MIN_DEPTH = 0.2  # metres; nearer joints are out of any picture. Our own choice.


@dataclass(frozen=True)
class CameraRig:
    """Cameras around a person. Each sequence is seen by ``count`` of them, each looking at the person's middle place.

    Attributes:
        heights: Range of heights above the floor, metres.
        distances: Range of horizontal distances, metres.
        count: Cameras per sequence.
        azimuths: Directions in radians, the same for all sequences as in a studio; None draws them.
        aim: Range of heights looked at, metres.
        focal: Range of focal lengths in half image widths.
        aspect: Image height / width.
    """

    heights: tuple[float, float] = (1.4, 1.7)
    distances: tuple[float, float] = (4.0, 6.0)
    count: int = 4
    azimuths: tuple[float, ...] | None = None
    aim: tuple[float, float] = (0.8, 1.0)
    focal: tuple[float, float] = (FOCAL, FOCAL)
    aspect: float = 1.0

    def __post_init__(self) -> None:
        for name in ("heights", "distances", "aim", "focal"):
            low, high = getattr(self, name)
            if not np.isfinite((low, high)).all() or low > high or (name in ("distances", "focal") and low <= 0):
                raise InputError(f"CameraRig.{name} must be a range low <= high", got=(low, high))
        if self.count < 1 or (self.azimuths is not None and not self.azimuths):
            raise InputError("a rig needs at least one camera", where="CameraRig", got=self.count)

    def see(
        self, joints_world: np.ndarray, group: str = "", subject: str = "", seed: int | Sequence[int] = 0
    ) -> PosePairs | None:
        """Pairs of one sequence (T, 16, 3), y up, metres; frames that do not fit the picture are left out.

        Returns None where no frame is left.
        """
        rng = np.random.default_rng(seed)
        parts = []
        for index in range(self.count):
            azimuth = rng.uniform(0, 2 * np.pi) if self.azimuths is None else self.azimuths[index % len(self.azimuths)]
            distance, height, aim, focal = (
                rng.uniform(*bounds) for bounds in (self.distances, self.heights, self.aim, self.focal)
            )
            middle = np.median(joints_world[:, 0], axis=0)
            target = np.array([middle[0], aim, middle[2]])
            eye = np.array([middle[0] + distance * np.sin(azimuth), height, middle[2] + distance * np.cos(azimuth)])
            cam = (joints_world - eye) @ _looking(eye, target).T
            fits = cam[..., 2].min(1) > _MIN_DEPTH
            points = np.where(fits[:, None, None], cam, 1.0)
            flat = focal * points[..., :2] / points[..., 2:]
            fits &= (np.abs(flat[..., 0]) <= 1).all(1) & (np.abs(flat[..., 1]) <= self.aspect).all(1)
            camera = np.array([focal, focal, 0, 0, 0, 0, 0, 0, 0], np.float32)
            if fits.any():
                parts.append((cam[fits], flat[fits], np.tile(camera, (int(fits.sum()), 1))))
        if not parts:
            return None
        joints, flat, cameras = (np.concatenate(arrays) for arrays in zip(*parts))
        return PosePairs(joints, flat, cameras, np.full(len(joints), group), np.full(len(joints), subject))


def _looking(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """World (y up) → camera (y down, z forward)."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    return np.stack((right, np.cross(forward, right), forward))
