"""Whether poses stay within human range: limits of every joint are read off mocap, poses beyond them counted.

Two measures for each bone that follows another one: the angle between the two (a hinge's range), and the place of its
direction in the parent's frame (a cone that need not be round). Both are estimated from recorded poses, so no anatomy
is written down here. Thresholds, bins and frames are our own choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.synthesis.augmentation.bones import BONES, JOINTS, PARENTS
from posesyn.types.looks import short_repr

# Bone → the bone it hangs on (bones are numbered by their child joint less one); trunk bones hang on the pelvis' frame.
_PARENT_BONE = tuple(PARENTS[bone + 1] - 1 for bone in range(BONES))
# Which frame a bone's direction is seen in: the pelvis (hips and spine) for legs and spine, the chest (shoulders and
# thorax) for head and arms.
_LEGS_AND_SPINE = (1, 2, 4, 5, 6, 7)
_HINGED = (2, 5, 11, 14)  # shins and forearms: seen from the thigh or upper arm
MEASURED = (1, 2, 4, 5, 7, 8, 10, 11, 13, 14)  # bones whose parent bone or frame can move against them
_ROWS, _COLUMNS = 60, 120  # three degrees; our own choice
HALF_CELL = 0.5 * math.hypot(math.pi / _ROWS, 2 * math.pi / _COLUMNS)  # radians from its middle to its corner at most
ROUNDING = 1e-3  # radians; float32's arccos of a limb that is straight


class JointRange(nn.Module):
    """Which poses stay within the range of every joint.

    Args:
        angles: (15, 2) radians, smallest and largest angle between a bone and the one it hangs on.
        reachable: (15, 7200) bool: the directions of :func:`grid` that occur.
    """

    angles: Tensor
    reachable: Tensor

    def __init__(self, angles: Float[Tensor, "15 2"] | None = None, reachable: Tensor | None = None) -> None:
        super().__init__()
        anything = torch.tensor([-math.inf, math.inf]).expand(BONES, 2).clone()
        everywhere = torch.ones(BONES, _ROWS * _COLUMNS, dtype=torch.bool)
        self.register_buffer("angles", anything if angles is None else angles)
        self.register_buffer("reachable", everywhere if reachable is None else reachable)

    @torch.no_grad()
    def forward(self, joints: Float[Tensor, "B 16 3"]) -> Bool[Tensor, " B"]:
        """Whether no joint of a pose is beyond its range."""
        bent, seen = joint_measures(joints)
        bent, seen = bent[:, MEASURED], seen[:, MEASURED]
        low, high = self.angles[MEASURED, :].unbind(-1)
        bones = torch.tensor(MEASURED, device=joints.device)
        within = (bent >= low) & (bent <= high) & self.reachable[bones, _cell(seen)]
        return within.all(1)


def grid() -> np.ndarray:
    """(7200, 3) unit directions in the middle of the cells."""
    rows, columns = np.meshgrid(np.arange(_ROWS), np.arange(_COLUMNS), indexing="ij")
    polar, turn = (rows.ravel() + 0.5) * math.pi / _ROWS, (columns.ravel() + 0.5) * 2 * math.pi / _COLUMNS - math.pi
    return np.stack((np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)), -1)


def _cell(directions: Tensor) -> Tensor:
    """Number of the cell of unit directions (..., 3)."""
    x, y, z = directions.unbind(-1)
    row = (torch.arccos(z.clamp(-1, 1)) * (_ROWS / math.pi)).long().clamp_(0, _ROWS - 1)
    column = ((torch.atan2(y, x) + math.pi) * (_COLUMNS / (2 * math.pi))).long().clamp_(0, _COLUMNS - 1)
    return row * _COLUMNS + column


def joint_measures(joints: Float[Tensor, "N 16 3"]) -> tuple[Float[Tensor, "N 15"], Float[Tensor, "N 15 3"]]:
    """Angles to the parent bone, and directions in the frame of pelvis or chest, or of the limb."""
    unit = _unit(joints[:, 1:] - joints[:, [PARENTS[child] for child in range(1, JOINTS)]])
    pelvis = _frame(joints[:, 4] - joints[:, 1], joints[:, 7] - joints[:, 0])
    chest = _frame(joints[:, 10] - joints[:, 13], joints[:, 8] - joints[:, 7])
    bent, seen = [], []
    for bone in range(BONES):
        frame = pelvis if bone in _LEGS_AND_SPINE else chest
        parent = _PARENT_BONE[bone]
        if bone in _HINGED:
            frame = _frame(frame[:, 0], unit[:, parent])
        seen.append((frame * unit[:, bone, None]).sum(-1))
        cosine = (unit[:, bone] * unit[:, parent]).sum(-1).clamp(-1, 1)
        bent.append(torch.arccos(cosine) if parent >= 0 else torch.zeros_like(cosine))
    return torch.stack(bent, 1), torch.stack(seen, 1)


def _frame(across: Tensor, along: Tensor) -> Tensor:
    """(N, 3, 3) rows: ``across`` made perpendicular to ``along``, ``along``, and what is perpendicular to both."""
    along = _unit(along)
    across = _unit(across - (across * along).sum(-1, keepdim=True) * along)
    return torch.stack((across, along, torch.linalg.cross(across, along)), 1)


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1, eps=1e-9)


NAMES = (
    *("right hip", "right thigh", "right shin", "left hip", "left thigh", "left shin", "spine", "thorax", "head"),
    *("left shoulder", "left upper arm", "left forearm", "right shoulder", "right upper arm", "right forearm"),
)
_QUANTILE = 0.001
FEWEST = 100  # poses that limits are read off
_DIRECTIONS = 4000
_NEIGHBOURS = 3


@dataclass(frozen=True, eq=False)
class JointLimits:
    """The range of every joint in a set of poses."""

    angles: np.ndarray  #: (15, 2) radians, smallest and largest angle between a bone and the one it hangs on
    directions: tuple[np.ndarray, ...]  #: 15 arrays (K, 3) of unit bones in the parent's frame that occur
    reach: np.ndarray  #: (15,) radians: how far a direction of the same people lies from these at most

    __repr__ = short_repr

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
        directions = tuple(seen[kept[:_DIRECTIONS], bone] for bone in range(BONES))
        far = np.stack([_distance(seen[others, bone], directions[bone]) for bone in range(BONES)], -1)
        return cls(angles, directions, np.quantile(far, 1 - 2 * _QUANTILE, axis=0))

    def beyond(self, joints: np.ndarray) -> np.ndarray:
        """(N, 15) bool: bones of (N, 16, 3) that are bent or point where those of the recorded poses do not. Hips,
        shoulders and the spine's first bone define the frames and are never beyond.

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
    """How often poses are beyond the limits."""

    shares: dict[str, float]  #: bone → share of poses in which it is beyond
    poses: float  #: share of poses with any bone beyond
    joints: float  #: share of all measured bones beyond


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
