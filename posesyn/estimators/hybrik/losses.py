"""HybrIK's training losses (its ``hybrik/models/criterion.py``), masked per person: 2D-only and 3D data mix freely."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from posesyn import skeletons
from posesyn.estimators.losses import masked_mean, require

# Focal length of a 256-pixel crop in pixels, and metres that the depth axis spans.
FOCAL, CROP, DEPTH_SPAN = 1000.0, 256.0, 2.2
_AMPLITUDE = 1 / math.sqrt(2 * math.pi)
_ROWS = torch.from_numpy(skeletons.mapping("smpl45", "hybrik29", approximate=False))
_NEEDED = ("keypoints_px", "visible", "has_labels", "pose_rotmat", "betas", "transl_cam", "intrinsics")


@dataclass(frozen=True)
class HybrikLossWeights:
    """Weights of Jeff-sjtu/HybrIK; ``joints_3d`` is 0 or 1 there, by configuration."""

    betas: float = 1.0
    pose: float = 0.01
    twist: float = 1.0
    uvd: float = 1.0
    joints_3d: float = 0.0
    camera: float = 1.0


def hybrik_losses(
    prediction: Mapping[str, Tensor], batch: Mapping[str, Tensor], labels29: Float[Tensor, "B 29 3"],
    twist: Float[Tensor, "B 23 2"], weights: HybrikLossWeights, uvd_loss: Literal["laplace", "l1"] = "laplace",
) -> dict[str, Tensor]:  # fmt: skip
    """Weighted losses; their sum is minimised.

    * ``uvd``: of all joints of persons with labels, x and y of visible joints of others. ``laplace``: likelihood with
      the predicted uncertainty; ``l1``: absolute error in cells of the 64-cell volume.
    * ``betas``, ``pose`` (rotation matrices), ``twist``: squared errors; persons with labels.
    * ``joints_3d``: absolute error of the 24 SMPL joints from the pelvis, metres; persons with labels.
    * ``camera``: squared error of scale and translation; persons with labels. Their targets are read off the label: the
      depth at which the network's focal length shows the person as large as the crop does, and the pelvis there.

    Args:
        prediction: ``uvd`` (B, 29, 3), ``sigma`` (B, 29, 1), ``phi`` (B, 23, 2), ``betas``, ``cam`` (B, 3),
            ``pose_rotmat`` (B, 24, 3, 3), ``skeleton_no_box`` (B, 29, 3).
        batch: See :mod:`posesyn.data.batches`.
        labels29: ``hybrik29`` of the labelled body in the camera of the crop, metres; meaningless without labels.
        twist: Of the labelled pose.
        weights: See there.
        uvd_loss: See above.

    Raises:
        InputError: A key is missing from the batch.
    """
    require(batch, _NEEDED)
    labelled = batch["has_labels"]
    target, known = uvd_targets(batch, labels29)
    difference = (prediction["uvd"] - target).abs()
    if uvd_loss == "laplace":
        sigma = prediction["sigma"]
        uvd = torch.log(sigma / _AMPLITUDE) + difference / (math.sqrt(2) * sigma + 1e-5)
    else:
        uvd = 64 * difference
    relative = labels29 - labels29[:, :1]
    camera = camera_targets(batch, labels29)
    terms = {
        "uvd": masked_mean(uvd, known),
        "betas": masked_mean((prediction["betas"] - batch["betas"]).square(), labelled),
        "pose": masked_mean((prediction["pose_rotmat"] - batch["pose_rotmat"]).square(), labelled),
        "twist": masked_mean((prediction["phi"] - twist).square(), labelled),
        "joints_3d": masked_mean((prediction["skeleton_no_box"] - relative)[:, :24].abs(), labelled),
        "camera": masked_mean((prediction["cam"][:, 0] - camera[:, 0]).square(), labelled)
        + masked_mean((prediction["cam"][:, 1:] - camera[:, 1:]).square(), labelled),
    }
    return {name: value * getattr(weights, name) for name, value in terms.items()}


def uvd_targets(
    batch: Mapping[str, Tensor], labels29: Float[Tensor, "B 29 3"]
) -> tuple[Float[Tensor, "B 29 3"], Tensor]:
    """Crop fractions and depths from the pelvis, and (B, 29, 3) which of them are known."""
    rows = _ROWS.to(labels29.device)
    points = labels29 @ batch["intrinsics"].transpose(-1, -2)
    projected = points[..., :2] / points[..., 2:].clamp_min(1e-4)
    labelled = batch["has_labels"][:, None, None]
    pixels = torch.where(labelled, projected, batch["keypoints_px"][:, rows.clamp_min(0)])
    depth = (labels29[..., 2:] - labels29[:, :1, 2:]) / DEPTH_SPAN
    seen = (batch["visible"][:, rows.clamp_min(0)] & (rows >= 0))[..., None]
    known = torch.cat(((labelled | seen).expand(-1, -1, 2), labelled.expand(-1, len(rows), 1)), dim=-1)
    target = torch.cat((pixels / CROP - 0.5, torch.where(labelled, depth, 0)), dim=-1)
    # Outside the volume there is nothing to point at.
    return target, known & (target.abs() <= 0.5).all(-1, keepdim=True) & target.isfinite()


def camera_targets(batch: Mapping[str, Tensor], labels29: Float[Tensor, "B 29 3"]) -> Float[Tensor, "B 3"]:
    """(scale, tx, ty) that put the pelvis of the label where the crop shows it, with the network's focal length."""
    pelvis = labels29[:, 0]
    camera = batch["intrinsics"]
    depth = (pelvis[:, 2] * FOCAL / camera[:, 0, 0].abs().clamp_min(1e-6)).clamp_min(1e-2)
    pixel = (camera @ pelvis[..., None])[:, :2, 0] / pelvis[:, 2:].clamp_min(1e-4)
    shift = (pixel / CROP - 0.5) * (CROP / FOCAL) * depth[:, None]
    return torch.cat(((FOCAL / (CROP * depth))[:, None], shift), dim=1)
