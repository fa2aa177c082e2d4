"""The range of every joint as tables, to look up a batch of poses on any device; made by ``JointLimits.table``."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn.synthesis.augmentation.bones import BONES, JOINTS, PARENTS

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
