"""Whether a PoseAug training is healthy: signs of collapse, the last healthy state, parts that a step leaves alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from posesyn.synthesis.augmentation.augmentor import Augmented
from posesyn.synthesis.augmentation.bones import bone_vectors, unit_bones
from posesyn.synthesis.augmentation.joint_range import JointRange


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """No gradients of these weights; gradients pass through to the input."""
    trained = [weight for network in networks for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def statistics_held(network: nn.Module) -> Iterator[None]:
    """Batches are normalised by themselves and leave the running statistics alone."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, usual):
            norm.momentum = momentum


# All limits are our own choice; healthy runs stay far from them (docs/howto/poseaug.md shows the curves).
MIN_USABLE = 0.05
MIN_VARIETY = 0.4
MIN_VIEWS = 0.05
MAX_TURN = 0.8
NEAREST = 0.2  # metres; the pinhole has no meaning behind the camera and amplifies without limit just before it


@dataclass(frozen=True)
class Health:
    """Measures of one augmented batch.

    Attributes:
        finite: No NaN or infinite coordinate.
        usable: Share of fakes in front of the camera and inside the picture.
        variety: Spread of the bone directions over the fakes, as a share of their spread over the data.
        variety_2d: The same for root-relative 2D poses of usable size.
        turn: Mean of 1 - cosine between old and new bones.
        views: Smallest standard deviation, over the fakes, of the three numbers of their rotation (as shares of their
            limits); NaN without rotations.
        beyond: Share of poses with new bone angles that are beyond human range, before these are kept back; NaN if no
            limits are known. Recorded poses at the edge of the range count too.
    """

    finite: bool
    usable: float
    variety: float
    variety_2d: float
    turn: float
    views: float = math.nan
    beyond: float = math.nan

    @property
    def collapsed(self) -> bool:
        """The criterion: values that are not finite, hardly a fake inside the picture, fakes that vary less than
        ``MIN_VARIETY`` of the data in 3D or 2D, bones turned by ``MAX_TURN`` (78 degrees) and more on average, or all
        fakes seen from one side (``views`` below ``MIN_VIEWS``)."""
        return (
            not self.finite
            or self.usable < MIN_USABLE
            or self.variety < MIN_VARIETY
            or self.variety_2d < MIN_VARIETY
            or self.turn > MAX_TURN
            or self.views < MIN_VIEWS
        )

    def values(self) -> dict[str, float]:
        """For the log."""
        return {
            "usable": self.usable,
            "variety": self.variety,
            "variety_2d": self.variety_2d,
            "turn": self.turn,
            "views": self.views,
            "beyond": self.beyond,
            "collapsed": float(self.collapsed),
        }


def measure(
    source: Tensor,
    source_2d: Tensor,
    made: Augmented,
    made_2d: Tensor,
    usable: Tensor,
    joint_range: JointRange | None = None,
) -> Health:
    """Measures a batch of B augmented poses.

    Args:
        source, source_2d: (B, 16, 3) and (B, 16, 2) that were augmented.
        made, made_2d: What became of them.
        usable: (B,) bool.
        joint_range: Human range.
    """
    finite = bool(torch.isfinite(made.pose_rt).all() and torch.isfinite(made.pose_ba).all())
    kept = made_2d[usable] if int(usable.sum()) > 1 else made_2d
    return Health(
        finite,
        float(usable.float().mean()),
        _ratio(_directions(made.pose_ba), _directions(source)),
        _ratio(_shape(kept), _shape(source_2d)),
        float(made.angle_change.mean()),
        math.nan if made.rotation_share is None else float(made.rotation_share.std(0).min()),
        math.nan if joint_range is None else 1 - float(joint_range(made.pose_ba).float().mean()),
    )


def in_picture(pose: Tensor, keypoints: Tensor, aspect: float, lower_bound: bool = True) -> Tensor:
    """(B,) bool: which fakes a lifter may learn from.

    Args:
        pose: (B, 16, 3) camera frame.
        keypoints: (B, 16, 2) normalised.
        aspect: Height / width of the picture.
        lower_bound: False is the rule of the official code, which drops coordinates above 1 and looks at nothing else.
    """
    if not lower_bound:
        return (keypoints <= 1).all(-1).all(-1)
    bounds = keypoints.new_tensor([1.0, aspect])
    return ((keypoints.abs() <= bounds).all(-1) & (pose[..., 2] > NEAREST)).all(-1)


def _directions(pose: Tensor) -> Tensor:
    return unit_bones(bone_vectors(pose)).flatten(1)


def _shape(keypoints: Tensor) -> Tensor:
    centred = keypoints - keypoints[:, :1]
    size = centred.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-6)
    return (centred / size).flatten(1)


def _ratio(made: Tensor, source: Tensor) -> float:
    return float(made.std(0).square().sum().sqrt() / source.std(0).square().sum().sqrt().clamp_min(1e-6))


class PoseAugGuard:
    """Remembers networks and optimisers while they are healthy and puts them back after a collapse.

    Attributes:
        healthy: What was remembered last.
        rescues: How often it was put back.
    """

    def __init__(self) -> None:
        self.healthy: dict[str, Any] | None = None
        self.rescues = 0

    def remember(self, networks: dict[str, nn.Module], optimizers: list[Any]) -> None:
        """Keeps a copy."""
        states = {name: network.state_dict() for name, network in networks.items()}
        saved = [optimizer.state_dict() for optimizer in optimizers]
        self.healthy = copy.deepcopy({"networks": states, "optimizers": saved})

    def rescue(self, networks: dict[str, nn.Module], optimizers: list[Any]) -> None:
        """Puts the copy back; something must have been remembered."""
        self.rescues += 1
        state = copy.deepcopy(self.healthy)
        for name, weights in state["networks"].items():
            networks[name].load_state_dict(weights)
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"healthy": self.healthy, "rescues": self.rescues}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.healthy, self.rescues = state["healthy"], state["rescues"]
