"""What BlazePose is fine-tuned with: its published training is not public, these losses are our own choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from posesyn import skeletons
from posesyn.data.batches import SKELETON as COMMON
from posesyn.estimators.losses import masked_mean, require

SKELETON = "blazepose33"
_KEYS = ("keypoints_norm", "visible", "has_labels", "joints")
_JOINTS = skeletons.get(SKELETON)
_HIPS = [_JOINTS.index("left_hip"), _JOINTS.index("right_hip")]
# Joints of the network that the common labels have, some by a stand-in a few centimetres away (hips, hands, toes).
KNOWN = torch.from_numpy(skeletons.mapping(COMMON, SKELETON) >= 0)
# Where they stand among the common labels.
ROWS = torch.from_numpy(skeletons.mapping(COMMON, SKELETON))[KNOWN]
# Cells; the published maps are as wide around joints that they find (LSPET train; measured here).
SPREAD = 2.0
_BONES = np.array([bone for bone in _JOINTS.bones if bool(KNOWN[list(bone)].all())])


@dataclass(frozen=True)
class BlazePoseWeights:
    """Weights of the terms of :func:`blazepose_losses`: about equal at the start of a fine-tuning. Our own choice.

    ``detector``: of both terms of :func:`~posesyn.estimators.blazepose.detection_losses.detection_losses`.

    ``synthetic_2d``: whether the picture's terms count rendered persons. By default they do not: joints of bodies lie
    elsewhere than annotators put them, hips by 5 cm, and all of them are labelled, so that they outweigh photographs.
    A batch without photographs counts them anyway.
    """

    world: float = 1.0
    local: float = 1.0
    keypoints_2d: float = 1.0
    heat: float = 0.05
    region: float = 0.5
    projected_2d: float = 0.0
    detector: float = 1.0
    synthetic_2d: bool = False


def blazepose_losses(
    prediction: Mapping[str, Tensor], batch: Mapping[str, Any], weights: BlazePoseWeights | None = None
) -> dict[str, Tensor]:
    """Weighted absolute errors; their sum is minimised. Terms of weight 0 are left out.

    * ``world``: joints in metres, centred at the midpoint of the hips; persons with 3D labels.
    * ``local``: each joint as seen from its neighbour in the skeleton (bone vectors), so that an error at the hip does
      not count again at the foot; persons with 3D labels.
    * ``keypoints_2d``: the regressed points, in [-1, 1] crop coordinates; visible joints of every photographed person.
    * ``heat``: cross-entropy between the heat maps and a Gaussian of :data:`SPREAD` cells at the true point, less the
      Gaussian's own entropy, over its volume; the same joints. A loss on the points that are read off
      the maps would lower their peaks instead, until nothing is read off any more: measured, 59 of 100 landmarks before
      and 6 after 100 steps.
    * ``region``: the two points that place the second look's region. Without it they drift away while the rest learns.
    * ``projected_2d``: the joints in metres, seen in parallel and scaled and moved to where they fit the 2D truth best,
      against that truth; the same joints. It teaches space with truth in the picture.

    Joints that the common skeleton of the batches lacks (mouth, corners of the eyes, little fingers, thumbs) have no
    truth and do not count.

    Args:
        prediction: ``world`` (B, 33, 3), ``keypoints_norm`` (B, 33, 2), ``heat`` (B, 33, 64, 64) before the
            sigmoid, ``region_norm`` (B, 2, 2).
        batch: See :mod:`posesyn.data.batches`.
        weights: Default: :class:`BlazePoseWeights`.

    Raises:
        InputError: A key is missing from the batch.
    """
    weights = weights or BlazePoseWeights()
    require(batch, _KEYS)
    truth, _ = skeletons.convert(batch["joints"], COMMON, SKELETON)
    points, seen = skeletons.convert(batch["keypoints_norm"], COMMON, SKELETON, batch["visible"])
    if not weights.synthetic_2d and "is_synthetic" in batch:
        rendered = batch["is_synthetic"]
        seen = seen & ~(rendered & ~rendered.all())[:, None]
    known = KNOWN.to(truth.device)
    labelled = batch["has_labels"][:, None] & known
    bones = torch.from_numpy(_BONES).to(truth.device)
    terms = {
        "world": masked_mean((_centred(prediction["world"]) - _centred(truth)).abs(), labelled),
        "local": masked_mean(
            (_vectors(prediction["world"], bones) - _vectors(truth, bones)).abs(), batch["has_labels"]
        ),
        "keypoints_2d": masked_mean((prediction["keypoints_norm"] - points).abs(), seen),
        "heat": _heat_error(prediction["heat"][seen], points[seen]),
    }
    if "region_known" in batch:
        apart = (prediction["region_norm"] - batch["region_norm"]).abs()
        terms["region"] = masked_mean(apart, batch["region_known"])
    if weights.projected_2d:
        terms["projected_2d"] = masked_mean((_projected(prediction["world"], points, seen) - points).abs(), seen)
    factors: dict[str, float] = {name: getattr(weights, name) for name in terms}
    return {name: value * factors[name] for name, value in terms.items() if factors[name]}


def _heat_error(heat: Float[Tensor, "N 64 64"], points: Float[Tensor, "N 2"]) -> Tensor:
    size = heat.shape[-1]
    # The refinement reads cell c as crop pixel 4 c, the crop's corner at 0.
    places = (points.detach() + 1) * (size / 2)
    cells = torch.arange(size, device=heat.device)
    x, y = (torch.exp(-((cells - places[:, axis, None]) ** 2) / (2 * SPREAD**2)) for axis in (0, 1))
    target = y[:, :, None] * x[:, None, :]
    error = functional.binary_cross_entropy_with_logits(heat, target, reduction="sum")
    entropy = functional.binary_cross_entropy(target, target, reduction="sum")
    return (error - entropy) / (2 * math.pi * SPREAD**2 * max(len(heat), 1))


def _projected(joints: Float[Tensor, "B 33 3"], points: Tensor, seen: Tensor) -> Float[Tensor, "B 33 2"]:
    """Parallel projection with the scale and the place that fit the seen points best (least squares)."""
    shares = seen[..., None].to(joints) / seen.sum(1).clamp_min(1)[:, None, None]
    flat = joints[..., :2]
    middle, target = (flat * shares).sum(1, keepdim=True), (points * shares).sum(1, keepdim=True)
    spread = ((flat - middle).square() * shares).sum((1, 2)).clamp_min(1e-4)
    scale = (((flat - middle) * (points - target)) * shares).sum((1, 2)) / spread
    return (flat - middle) * scale.clamp_min(0)[:, None, None] + target


def _centred(joints: Float[Tensor, "B 33 3"]) -> Float[Tensor, "B 33 3"]:
    return joints - joints[:, _HIPS].mean(1, keepdim=True)


def _vectors(joints: Float[Tensor, "B 33 3"], bones: Tensor) -> Float[Tensor, "B N 3"]:
    return joints[:, bones[:, 1]] - joints[:, bones[:, 0]]
