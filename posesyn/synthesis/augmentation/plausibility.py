"""Whether poses stay within human range: limits of every joint are read off mocap, poses beyond them counted.

Two measures for each bone that follows another one: the angle between the two (a hinge's range), and the place of its
direction in the parent's frame (a cone that need not be round). Both are estimated from recorded poses, so no anatomy
is written down here. Thresholds, bins and frames are our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posesyn.errors import InputError
from posesyn.synthesis.augmentation.bones import BONES, JOINTS, PARENTS

# Bone → the bone it hangs on (bones are numbered by their child joint less one); trunk bones hang on the pelvis' frame.
_PARENT_BONE = tuple(PARENTS[bone + 1] - 1 for bone in range(BONES))
NAMES = (
    *("right hip", "right thigh", "right shin", "left hip", "left thigh", "left shin", "spine", "thorax", "head"),
    *("left shoulder", "left upper arm", "left forearm", "right shoulder", "right upper arm", "right forearm"),
)
# Which frame a bone's direction is seen in: the pelvis (hips and spine) for legs and spine, the chest (shoulders and
# thorax) for head and arms.
_LEGS_AND_SPINE = (1, 2, 4, 5, 6, 7)
_MEASURED = (1, 2, 4, 5, 7, 8, 10, 11, 13, 14)  # bones whose parent bone or frame can move against them
_QUANTILE = 0.001
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
        if len(joints) < 100:
            raise InputError("limits need at least 100 poses", where="JointLimits.of", got=len(joints))
        bent, seen = _measures(joints)
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
        bent, seen = _measures(joints)
        found = np.zeros(bent.shape, bool)
        for bone in _MEASURED:
            low, high = self.angles[bone]
            far = _distance(seen[:, bone], self.directions[bone]) > self.reach[bone]
            found[:, bone] = (bent[:, bone] < low) | (bent[:, bone] > high) | far
        return found


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
    beyond = limits.beyond(joints)[:, _MEASURED]
    shares = {NAMES[bone]: float(share) for bone, share in zip(_MEASURED, beyond.mean(0))}
    return Plausibility(shares, float(beyond.any(1).mean()), float(beyond.mean()))


def _measures(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles (N, 15) to the parent bone and directions (N, 15, 3) in the frame of pelvis or chest, or of the limb."""
    joints = np.asarray(joints, np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (JOINTS, 3) or not np.isfinite(joints).all():
        raise InputError("poses must be finite (N, 16, 3)", where="plausibility", got=joints.shape)
    unit = _unit(joints[:, 1:] - joints[:, [PARENTS[child] for child in range(1, JOINTS)]])
    pelvis = _frame(joints[:, 4] - joints[:, 1], joints[:, 7] - joints[:, 0])
    chest = _frame(joints[:, 10] - joints[:, 13], joints[:, 8] - joints[:, 7])
    bent, seen = np.zeros(unit.shape[:2]), np.zeros(unit.shape)
    for bone in range(BONES):
        frame = pelvis if bone in _LEGS_AND_SPINE else chest
        parent = _PARENT_BONE[bone]
        if bone in (2, 5, 11, 14):  # shins and forearms: seen from the thigh or upper arm
            frame = _frame(frame[:, 0], unit[:, parent])
        seen[:, bone] = np.einsum("nij,nj->ni", frame, unit[:, bone])
        if parent >= 0:
            bent[:, bone] = np.arccos(np.clip((unit[:, bone] * unit[:, parent]).sum(-1), -1, 1))
    return bent, seen


def _frame(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rows: ``across`` made perpendicular to ``along``, ``along``, and what is perpendicular to both."""
    along = _unit(along)
    across = _unit(across - (across * along).sum(-1, keepdims=True) * along)
    return np.stack((across, along, np.cross(across, along)), 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _distance(directions: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) radians to the third nearest known direction, so that one glitch of the capture opens no range."""
    from scipy.spatial import cKDTree

    chord = cKDTree(known).query(directions, k=_NEIGHBOURS)[0][:, -1]
    return 2 * np.arcsin(np.clip(chord / 2, 0, 1))
