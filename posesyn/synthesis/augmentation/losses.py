"""Losses of PoseAug as its code has them (``function_poseaug/model_gan_train.py``), not as the paper prints them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from posesyn.synthesis.augmentation.bones import JOINTS

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
    """Range terms of the error ratios after BA and after RT, before their factors.

    Args:
        original, after_angles, after_transform: From :func:`group_errors`.
        weights: Ranges.
        epoch, epochs: Where in the training the wanted ratio is read off; the first epoch is 1.
    """
    return (
        range_loss(after_angles / original, weights.angle_middle(epoch, epochs), weights.angle_slack),
        range_loss(after_transform / original, weights.transform_middle, weights.transform_slack),
    )
