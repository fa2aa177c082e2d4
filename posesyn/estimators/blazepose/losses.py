"""What BlazePose is fine-tuned with: its published training is not public, these losses are our own choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
_BONES = np.array([bone for bone in _JOINTS.bones if bool(KNOWN[list(bone)].all())])


@dataclass(frozen=True)
class BlazePoseWeights:
    """Weights of the terms of :func:`blazepose_losses`: about equal at the start of a fine-tuning. Our own choice."""

    world: float = 1.0
    local: float = 1.0
    keypoints_2d: float = 1.0
    refined_2d: float = 0.5


def blazepose_losses(
    prediction: Mapping[str, Tensor], batch: Mapping[str, Any], weights: BlazePoseWeights | None = None
) -> dict[str, Tensor]:
    """Weighted absolute errors; their sum is minimised. Terms of weight 0 are left out.

    * ``world``: joints in metres, centred at the midpoint of the hips; persons with 3D labels.
    * ``local``: each joint as seen from its neighbour in the skeleton (bone vectors), so that an error at the hip does
      not count again at the foot; persons with 3D labels.
    * ``keypoints_2d``: the regressed points, in [-1, 1] crop coordinates; visible joints of every person.
    * ``refined_2d``: the same of the points read off the heat maps, which keeps the two in step.

    Joints that the common skeleton of the batches lacks (mouth, corners of the eyes, little fingers, thumbs) have no
    truth and do not count.

    Args:
        prediction: ``world`` (B, 33, 3), ``keypoints_norm`` and ``refined_norm`` (B, 33, 2).
        batch: See :mod:`posesyn.data.batches`.
        weights: Default: :class:`BlazePoseWeights`.

    Raises:
        InputError: A key is missing from the batch.
    """
    weights = weights or BlazePoseWeights()
    require(batch, _KEYS)
    truth, _ = skeletons.convert(batch["joints"], COMMON, SKELETON)
    points, seen = skeletons.convert(batch["keypoints_norm"], COMMON, SKELETON, batch["visible"])
    known = KNOWN.to(truth.device)
    labelled = batch["has_labels"][:, None] & known
    bones = torch.from_numpy(_BONES).to(truth.device)
    terms = {
        "world": masked_mean((_centred(prediction["world"]) - _centred(truth)).abs(), labelled),
        "local": masked_mean(
            (_vectors(prediction["world"], bones) - _vectors(truth, bones)).abs(), batch["has_labels"]
        ),
        "keypoints_2d": masked_mean((prediction["keypoints_norm"] - points).abs(), seen),
        "refined_2d": masked_mean((prediction["refined_norm"] - points).abs(), seen),
    }
    factors = {name: getattr(weights, name) for name in terms}
    return {name: value * factors[name] for name, value in terms.items() if factors[name]}


def _centred(joints: Float[Tensor, "B 33 3"]) -> Float[Tensor, "B 33 3"]:
    return joints - joints[:, _HIPS].mean(1, keepdim=True)


def _vectors(joints: Float[Tensor, "B 33 3"], bones: Tensor) -> Float[Tensor, "B N 3"]:
    return joints[:, bones[:, 1]] - joints[:, bones[:, 0]]
