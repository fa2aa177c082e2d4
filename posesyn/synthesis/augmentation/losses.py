"""What PoseAug's augmentor learns from: discriminators (part-aware KCS on bone directions in 3D, a small network on 2D
poses), and losses as its code has them (``function_poseaug/model_gan_train.py``), not as the paper prints them.

Structure and key names of the networks: jfzhang95/PoseAug ``models_poseaug/PosDiscriminator.py``. A part's KCS matrix
is zero outside its bones, so only the columns of the first layer that meet its bones are multiplied: the same numbers
from 16 to 49 products instead of 225.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from posesyn.errors import InputError
from posesyn.synthesis.augmentation.bones import BONES, JOINTS, KCS_PARTS, bone_vectors, check_joints, unit_bones

_KCS, _WIDTH, _LAST = BONES * BONES, 256, 100
PART_NAMES = ("left_arm", "right_arm", "right_leg", "left_leg", "trunk")


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
        """(B, 225) products of all pairs of unit bones (kinematic chain space, Ψ = B Bᵀ) → (B, 1)."""
        layer = self.kcs_layer_1
        first = functional.linear(gram[:, self.entries], layer.weight[:, self.entries], layer.bias)
        first = functional.leaky_relu(first, inplace=True)
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
    """Normalised 2D poses (B, 16, 2) → a score (B, 1); ``spectral`` as in :class:`PartDiscriminator`."""

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


# Typical errors grow towards the ends of the limbs; the weights balance them (joint order of poseaug16).
JOINT_WEIGHTS = (1, 5, 2, 1, 5, 2, 1, 1, 1, 1, 5, 2, 1, 5, 2, 1)
# Hips and shoulders; knees, elbows and head; ankles and wrists. Root, spine and thorax take no part.
JOINT_GROUPS = ((1, 4, 10, 13), (2, 5, 9, 11, 14), (3, 6, 12, 15))
ANGLE_MIDDLE, ANGLE_SLACK = 0.205, 0.165
LENGTH_SLACK = 0.1
# Of the share that a rotation's number takes of its limit; uniform shares have 0.58. Our own choice.
SPREAD = 0.5
# Below this error (1 µm) the ratio of two errors says nothing.
_SMALLEST_ERROR = 1e-6


@dataclass(frozen=True)
class FeedbackWeights:
    """How much harder than the original the augmented pose should be for the lifter.

    The wanted ratio of errors after BA rises from ``angle_start`` to ``angle_end`` over the training; ratios within
    ``angle_slack`` of it cost nothing. The same for the result of RT, whose middle stays.
    """

    angle: float = 0.1
    angle_start: float = 3.0
    angle_end: float = 5.0
    angle_slack: float = 2.0
    transform: float = 0.01
    transform_middle: float = 17.0
    transform_slack: float = 15.0

    def angle_middle(self, epoch: int, epochs: int) -> float:
        """The wanted ratio at an epoch; the first is 1."""
        return self.angle_start + (self.angle_end - self.angle_start) * epoch / epochs


def range_loss(value: Tensor, middle: float, slack: float) -> Tensor:
    """Mean over all elements of the squared distance to ``middle`` where it is larger than ``slack``, else zero."""
    square = (value - middle).square()
    return torch.where(square > slack * slack, square, torch.zeros_like(square)).mean()


def change_loss(angle_change: Float[Tensor, "B 15"], length_ratios: Float[Tensor, "B 9"]) -> tuple[Tensor, Tensor]:
    """Costs of a mean bone turn outside 0.04-0.37 (1 - cosine) and of length ratios beyond ±10 %."""
    turned = range_loss(angle_change.mean(1), ANGLE_MIDDLE, ANGLE_SLACK)
    return turned, range_loss(length_ratios, 0.0, LENGTH_SLACK)


def spread_loss(rotation_share: Float[Tensor, "B 3"]) -> Tensor:
    """Cost of rotations that are all alike: squared shortfall of each number's standard deviation over the batch.

    Without it the feedback drives all poses to the one view that is hardest. Our own; not in the official code.
    """
    return functional.relu(SPREAD - rotation_share.std(0)).square().mean()


def generator_adversarial(real: Tensor | None, fake: Tensor) -> Tensor:
    """½ [MSE(D(real), 0) + MSE(D(fake), 1)]; without ``real``, whose term has no gradient, just the second half."""
    loss = functional.mse_loss(fake, torch.ones_like(fake))
    if real is not None:
        loss = loss + functional.mse_loss(real, torch.zeros_like(real))
    return loss / 2


def discriminator_adversarial(real: Tensor, fake: Tensor) -> Tensor:
    """½ [MSE(D(real), 1) + MSE(D(fake), 0)]."""
    return (functional.mse_loss(real, torch.ones_like(real)) + functional.mse_loss(fake, torch.zeros_like(fake))) / 2


def group_matrix(like: Tensor) -> Float[Tensor, "16 3"]:
    """Weights and group means as one matrix."""
    matrix = like.new_zeros(JOINTS, len(JOINT_GROUPS))
    for column, group in enumerate(JOINT_GROUPS):
        for joint in group:
            matrix[joint, column] = JOINT_WEIGHTS[joint] / len(group)
    return matrix


def group_errors(
    predicted: Float[Tensor, "B 16 3"], pose: Float[Tensor, "B 16 3"], groups: Float[Tensor, "16 3"] | None = None
) -> Float[Tensor, "B 3"]:
    """Weighted mean error per joint group of a lifter's output against the root-relative pose, metres."""
    difference = predicted - (pose - pose[:, :1])
    distance = difference.square().sum(-1).clamp_min(_SMALLEST_ERROR**2).sqrt()
    return distance @ (group_matrix(pose) if groups is None else groups)


def feedback_loss(
    original: Float[Tensor, "B 3"],
    after_angles: Float[Tensor, "B 3"],
    after_transform: Float[Tensor, "B 3"],
    weights: FeedbackWeights,
    epoch: int,
    epochs: int,
) -> tuple[Tensor, Tensor]:
    """Range terms of the ratios of :func:`group_errors` after BA and after RT, before their factors.

    ``epoch`` of ``epochs`` says where the wanted ratio is read off; the first is 1.
    """
    return (
        range_loss(after_angles / original, weights.angle_middle(epoch, epochs), weights.angle_slack),
        range_loss(after_transform / original, weights.transform_middle, weights.transform_slack),
    )
