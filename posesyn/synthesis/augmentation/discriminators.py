"""Discriminators of PoseAug: part-aware KCS on bone directions in 3D, and a small network on 2D poses.

Structure and key names: jfzhang95/PoseAug ``models_poseaug/PosDiscriminator.py``. A part's KCS matrix is zero outside
its bones, so only the columns of the first layer that meet its bones are multiplied: the same numbers from 16 to 49
products instead of 225.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from posesyn.errors import InputError
from posesyn.synthesis.augmentation.bones import BONES, JOINTS, KCS_PARTS, bone_vectors, check_joints, unit_bones

_KCS, _WIDTH, _LAST = BONES * BONES, 256, 100
PART_NAMES = ("left_arm", "right_arm", "right_leg", "left_leg", "trunk")


def kcs_matrix(unit: Float[Tensor, "B 15 3"], part: int) -> Float[Tensor, "B 15 15"]:
    """Kinematic chain space: Ψ = B Bᵀ with the bones outside the part set to zero."""
    mask = unit.new_zeros(BONES, 1)
    mask[list(KCS_PARTS[part])] = 1
    kept = unit * mask
    return kept @ kept.mT


class _Branch(nn.Module):
    entries: Tensor

    def __init__(self, part: tuple[int, ...]) -> None:
        super().__init__()
        self.kcs_layer_1, self.kcs_layer_2 = nn.Linear(_KCS, _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.kcs_layer_3, self.layer_last = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, _LAST)
        self.layer_pred = nn.Linear(_LAST, 1)
        entries = [row * BONES + column for row in part for column in part]
        self.register_buffer("entries", torch.tensor(entries), persistent=False)

    def forward(self, gram: Tensor) -> Tensor:
        """(B, 225) products of all pairs of unit bones → (B, 1)."""
        first = functional.leaky_relu(
            functional.linear(gram[:, self.entries], self.kcs_layer_1.weight[:, self.entries], self.kcs_layer_1.bias),
            inplace=True,
        )
        x = functional.leaky_relu(self.kcs_layer_2(first), inplace=True)
        x = self.kcs_layer_3(x) + first
        return self.layer_pred(functional.leaky_relu(self.layer_last(x), inplace=True))


class PartDiscriminator(nn.Module):
    """Poses (B, 16, 3), any unit and place → five scores (B, 5): :data:`PART_NAMES`.

    Args:
        spectral: Spectral normalisation of every layer (our own choice against collapse; the official code has none).
            The weights then carry other names.
    """

    def __init__(self, *, spectral: bool = False) -> None:
        super().__init__()
        for index, part in enumerate(KCS_PARTS):
            self.add_module(f"kcs_path_{index + 1}", _Branch(part))
        _initialise(self, spectral)

    def forward(self, pose: Float[Tensor, "B 16 3"]) -> Float[Tensor, "B 5"]:
        check_joints(pose, "PartDiscriminator")
        unit = unit_bones(bone_vectors(pose))
        gram = (unit @ unit.mT).flatten(1)
        return torch.cat([branch(gram) for branch in self.children()], -1)


class ProjectionDiscriminator(nn.Module):
    """Normalised 2D poses (B, 16, 2) → a score (B, 1).

    Args:
        spectral: As in :class:`PartDiscriminator`.
    """

    def __init__(self, *, spectral: bool = False) -> None:
        super().__init__()
        self.pose_layer_1 = nn.Linear(2 * JOINTS, _LAST)
        self.pose_layer_2, self.pose_layer_3 = nn.Linear(_LAST, _LAST), nn.Linear(_LAST, _LAST)
        self.pose_layer_4, self.layer_last = nn.Linear(_LAST, _LAST), nn.Linear(_LAST, _LAST)
        self.layer_pred = nn.Linear(_LAST, 1)
        _initialise(self, spectral)

    def forward(self, keypoints: Float[Tensor, "B 16 2"]) -> Float[Tensor, "B 1"]:
        if tuple(keypoints.shape[1:]) != (JOINTS, 2):
            raise InputError("2D poses must be (B, 16, 2)", where="ProjectionDiscriminator", got=tuple(keypoints.shape))
        relu: Callable[[Tensor], Tensor] = functional.leaky_relu
        first = relu(self.pose_layer_1(keypoints.flatten(1)))
        x = relu(self.pose_layer_2(first))
        x = self.pose_layer_4(relu(self.pose_layer_3(x) + first))
        return self.layer_pred(relu(self.layer_last(x)))


def _initialise(module: nn.Module, spectral: bool) -> None:
    for layer in list(module.modules()):
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if spectral:
                parametrizations.spectral_norm(layer)
