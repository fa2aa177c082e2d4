"""Whether poses stay within human range: limits of every joint are read off mocap, poses beyond them counted.

Two measures for each bone that follows another one: the angle between the two (a hinge's range), and the place of its
direction in the parent's frame (a cone that need not be round). Both are estimated from recorded poses, so no anatomy
is written down here. Thresholds, bins and frames are our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from posesyn.errors import InputError
from posesyn.synthesis.augmentation.bones import BONES, JOINTS
from posesyn.synthesis.augmentation.joint_range import (
    HALF_CELL,
    MEASURED,
    ROUNDING,
    JointRange,
    grid,
    joint_measures,
)

NAMES = (
    *("right hip", "right thigh", "right shin", "left hip", "left thigh", "left shin", "spine", "thorax", "head"),
    *("left shoulder", "left upper arm", "left forearm", "right shoulder", "right upper arm", "right forearm"),
)
_QUANTILE = 0.001
FEWEST = 100  # poses that limits are read off
_DIRECTIONS = 4000
_NEIGHBOURS = 3


@dataclass(frozen=True)
class JointLimits:
    """The range of every joint in a set of poses.

    Attributes:
        angles: (15, 2) radians, smallest and largest angle between a bone and the one it hangs on.
        directions: 15 arrays (K, 3) of unit bones in the parent's frame that occur.
        reach: (15,) radians: how far a direction of the same people lies from these at most.
    """

    angles: np.ndarray
    directions: tuple[np.ndarray, ...]
    reach: np.ndarray

    @classmethod
    def of(cls, joints: np.ndarray, seed: int = 0) -> JointLimits:
        """Limits of recorded poses: of each measure all but the outermost 0.1 % on either side.

        Args:
            joints: (N, 16, 3) ``poseaug16``, camera or world frame.
            seed: Draws the directions that are kept; the reach is measured on the others.

        Raises:
            InputError: Fewer than 100 poses, or other joints.
        """
        if len(joints) < FEWEST:
            raise InputError(f"limits need at least {FEWEST} poses", where="JointLimits.of", got=len(joints))
        bent, seen = _measured(joints)
        angles = np.stack([np.quantile(bent, share, axis=0) for share in (_QUANTILE, 1 - _QUANTILE)], -1)
        order = np.random.default_rng(seed).permutation(len(joints))
        kept, others = np.array_split(order, 2)
        kept = kept[:_DIRECTIONS]
        directions = tuple(seen[kept, bone] for bone in range(BONES))
        far = np.stack([_distance(seen[others, bone], directions[bone]) for bone in range(BONES)], -1)
        return cls(angles, directions, np.quantile(far, 1 - 2 * _QUANTILE, axis=0))

    def beyond(self, joints: np.ndarray) -> np.ndarray:
        """(N, 15) bool: bones that are bent or point where those of the recorded poses do not. Hips, shoulders and the
        spine's first bone define the frames and are never beyond.

        Args:
            joints: (N, 16, 3).

        Raises:
            InputError: Other joints, or not finite.
        """
        bent, seen = _measured(joints)
        found = np.zeros(bent.shape, bool)
        for bone in MEASURED:
            low, high = self.angles[bone]
            far = _distance(seen[:, bone], self.directions[bone]) > self.reach[bone]
            found[:, bone] = (bent[:, bone] < low) | (bent[:, bone] > high) | far
        return found

    def table(self) -> JointRange:
        """The same limits on a grid of directions, for the inner loop of a training; wider by half a cell, so that no
        direction within the limits is lost to the grid."""
        cells = grid()
        reachable = np.zeros((BONES, len(cells)), bool)
        for bone in MEASURED:
            reachable[bone] = _distance(cells, self.directions[bone]) <= self.reach[bone] + HALF_CELL
        angles = self.angles + np.array([-ROUNDING, ROUNDING])
        return JointRange(torch.from_numpy(angles).float(), torch.from_numpy(reachable))


@dataclass(frozen=True)
class Plausibility:
    """How often poses are beyond the limits.

    Attributes:
        shares: Bone → share of poses in which it is beyond.
        poses: Share of poses with any bone beyond.
        joints: Share of all measured bones beyond.
    """

    shares: dict[str, float]
    poses: float
    joints: float


def plausibility(joints: np.ndarray, limits: JointLimits) -> Plausibility:
    """Measures poses (N, 16, 3) against limits; see :class:`JointLimits` for what is raised."""
    beyond = limits.beyond(joints)[:, MEASURED]
    shares = {NAMES[bone]: float(share) for bone, share in zip(MEASURED, beyond.mean(0))}
    return Plausibility(shares, float(beyond.any(1).mean()), float(beyond.mean()))


def _measured(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    joints = np.ascontiguousarray(joints, np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (JOINTS, 3) or not np.isfinite(joints).all():
        raise InputError("poses must be finite (N, 16, 3)", where="plausibility", got=joints.shape)
    bent, seen = joint_measures(torch.from_numpy(joints))
    return bent.numpy(), seen.numpy()


def _distance(directions: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) radians to the third nearest known direction, so that one glitch of the capture opens no range."""
    from scipy.spatial import cKDTree

    chord = cKDTree(known).query(directions, k=_NEIGHBOURS)[0][:, -1]
    return 2 * np.arcsin(np.clip(chord / 2, 0, 1))
