"""What BlazePose's person detector is fine-tuned with; its published training is not public, this is our own choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from posesyn.estimators.blazepose.detector import SIZE
from posesyn.estimators.losses import masked_mean

# Anchors per person that are to find them: as many as overlap on a face that the published detector finds.
_POSITIVE = 8
# Errors are fractions of the circle's radius, means over its two points. At the first a detection should be half sure,
# e^-1 (the limit of use is 0.5); from the second on it is a false one.
_REACH, _FALSE = 0.45, 0.6
# How much an error weighs against the logarithm of the probability where those anchors are picked.
_PLACE = 2.0
# Power of the distance to the wanted probability (quality focal loss: Li et al., NeurIPS 2020).
_FOCUS = 2.0
# The hips may lie outside the person's box by this share of it.
_MARGIN = 0.1


def detection_losses(
    scores: Float[Tensor, "B A"], boxes: Float[Tensor, "B A 6 2"], batch: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Losses on the two points that place the first look, and on how sure the detector is of them.

    Of the anchors that put the hips into the person's box, the :data:`_POSITIVE` that are surest and nearest are pulled
    to the true points; their probability is to be ``exp(-(error / reach)²)``: sure where the region is right, not sure
    where it is not, so that the box is looked at in its place. Further anchors in the box are wrong (probability 0)
    where they point elsewhere, and are left alone where they point right. Outside the box somebody else may stand:
    anchors that are sure of it are left alone, the others are kept from becoming so. Without the wrong ones every
    anchor becomes sure, and the detector finds persons everywhere (measured here).

    Args:
        scores, boxes: As :class:`~posesyn.estimators.blazepose.detector.DetectorNetwork` gives them.
        batch: ``surroundings_region`` and ``surroundings_box`` (B, 2, 2), ``region_known`` (B,).

    Returns:
        ``detector_points``: mean absolute error of the points, in radii; ``detector_scores``: quality focal loss, per
        person and positive anchor. Persons whose region is not known do not count.
    """
    region, box = ((batch[f"surroundings_{name}"] + 1) * (SIZE / 2) for name in ("region", "box"))
    known = batch["region_known"]
    radius = (region[:, 1] - region[:, 0]).norm(dim=-1).clamp_min(1)[:, None]
    apart = boxes[:, :, 2:4] - region[:, None]
    with torch.no_grad():
        hips, margin = boxes[:, :, 2], _MARGIN * (box[:, 1] - box[:, 0])
        inside = ((hips > (box[:, 0] - margin)[:, None]) & (hips < (box[:, 1] + margin)[:, None])).all(-1)
        error = apart.norm(dim=-1).mean(-1) / radius
        cost = functional.logsigmoid(scores) - _PLACE * error.clamp_max(2)
        best = torch.where(inside, cost, torch.full_like(cost, -torch.inf)).topk(_POSITIVE, dim=1).indices
        right = torch.zeros_like(inside).scatter(1, best, True) & inside
        wanted = torch.where(right, torch.exp(-((error / _REACH) ** 2)), torch.zeros_like(error))
        chance = scores.sigmoid()
        counted = right | torch.where(inside, error > _FALSE, chance < 0.5)
        weight = (wanted - chance).abs() ** _FOCUS * counted
    surprise = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    per_person = (surprise * weight).sum(1) / _POSITIVE
    return {
        "detector_points": masked_mean(apart.abs().sum(-1).mean(-1) / radius, right & known[:, None]),
        "detector_scores": masked_mean(per_person, known),
    }
