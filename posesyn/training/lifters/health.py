"""Whether a PoseAug training is healthy: signs of collapse, and the last healthy state."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from posesyn.synthesis.augmentation.augmentor import Augmented, Augmentor
from posesyn.synthesis.augmentation.bones import bone_vectors, project_normalised, unit_bones
from posesyn.synthesis.augmentation.joint_range import JointRange
from posesyn.training.lifters.source import PoseAugSource

# All limits are our own choice; healthy runs stay far from them (docs/howto/poseaug.md shows the curves).
MIN_USABLE = 0.05
MIN_VARIETY = 0.4
MIN_VIEWS = 0.05
MAX_TURN = 0.8
_CHECKED = 2048  # poses a health check looks at


@dataclass(frozen=True)
class AugmentorHealth:
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
        still = self.variety < MIN_VARIETY or self.variety_2d < MIN_VARIETY or self.views < MIN_VIEWS
        return not self.finite or still or self.usable < MIN_USABLE or self.turn > MAX_TURN

    def values(self) -> dict[str, float]:
        """For the log."""
        values = {name: value for name, value in asdict(self).items() if name != "finite"}
        return {**values, "collapsed": float(self.collapsed)}


def health_of(augmentor: Augmentor, source: PoseAugSource) -> AugmentorHealth:
    """Measures an augmentor by itself, without :class:`JointRange`, on up to 2 x ``_CHECKED`` poses of the data."""
    rows = torch.arange(0, len(source), max(1, len(source) // _CHECKED), device=source.poses.device)
    was_training = augmentor.training
    with torch.no_grad():
        pose, flat, camera = source(rows)
        made = augmentor.eval()(pose, within_range=False)
        made_flat = project_normalised(made.pose_rt, camera)
    augmentor.train(was_training)
    return measure_fakes(pose, flat, made, made_flat, source.usable(made.pose_rt, made_flat), augmentor.joint_range)


def measure_fakes(
    source: Tensor, source_2d: Tensor, made: Augmented, made_2d: Tensor, usable: Tensor,
    joint_range: JointRange | None = None,
) -> AugmentorHealth:  # fmt: skip
    """Measures a batch of B augmented poses: what was augmented ((B, 16, 3) and (B, 16, 2)), what became of it, and
    which of the fakes are usable, (B,) bool."""
    finite = bool(torch.isfinite(made.pose_rt).all() and torch.isfinite(made.pose_ba).all())
    kept = made_2d[usable] if int(usable.sum()) > 1 else made_2d
    return AugmentorHealth(
        finite,
        float(usable.float().mean()),
        _spread_ratio(_bone_directions(made.pose_ba), _bone_directions(source)),
        _spread_ratio(_unit_size(kept), _unit_size(source_2d)),
        float(made.angle_change.mean()),
        math.nan if made.rotation_share is None else float(made.rotation_share.std(0).min()),
        math.nan if joint_range is None else 1 - float(joint_range(made.pose_ba).float().mean()),
    )


def _bone_directions(pose: Tensor) -> Tensor:
    return unit_bones(bone_vectors(pose)).flatten(1)


def _unit_size(keypoints: Tensor) -> Tensor:
    centred = keypoints - keypoints[:, :1]
    size = centred.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-6)
    return (centred / size).flatten(1)


def _spread_ratio(made: Tensor, source: Tensor) -> float:
    return float(made.std(0).square().sum().sqrt() / source.std(0).square().sum().sqrt().clamp_min(1e-6))


class CollapseGuard:
    """Remembers networks and optimisers while they are healthy and puts them back after a collapse."""

    def __init__(self) -> None:
        self.healthy: dict[str, Any] | None = None  # what was remembered last
        self.rescues = 0  # how often it was put back

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
