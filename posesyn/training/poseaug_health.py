"""Whether an augmentor is still of use: the measures by which a collapse is recognised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posesyn.synthesis.augmentation.augmentor import Augmented
from posesyn.synthesis.augmentation.bones import bone_vectors, unit_bones
from posesyn.synthesis.augmentation.joint_range import JointRange

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
