"""Losses of SMPL networks, and how they were published to be trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from posesyn.errors import InputError

# 'smpl45' without its ten finger tips: nothing in a SMPL body bends them, and ten of 45 joints would outweigh others.
# Our own choice; SPIN's 24 joints have no fingers either.
SCORED_JOINTS = 35
_HIPS = (1, 2)


@dataclass(frozen=True)
class LossWeights:
    """Weights of SPIN (nkolot/SPIN, utils/train_options.py); every term is multiplied by ``total`` as there.

    ``keypoints_local`` and ``orientation`` are ours and off. ``places`` and ``heat`` belong to networks with a
    ``JointNeck`` only. The weights of these four are our own choice.
    """

    keypoints_2d: float = 5.0
    keypoints_3d: float = 5.0
    keypoints_local: float = 0.0
    pose: float = 1.0
    orientation: float = 0.0
    betas: float = 0.001
    scale: float = 1.0
    places: float = 1.0
    heat: float = 0.1
    total: float = 60.0


def require(batch: Mapping[str, Any], needed: tuple[str, ...]) -> None:
    """Raises InputError naming the keys that a batch lacks."""
    if missing := [name for name in needed if name not in batch]:
        what, fix = "a training batch lacks what the losses need", "make batches with posesyn.data.batches.collate"
        raise InputError(what, expected=list(needed), got=f"no {', '.join(missing)}", fix=fix)


def masked_mean(values: Float[Tensor, "B ..."], mask: Bool[Tensor, "B ..."]) -> Tensor:
    """Mean over the elements where ``mask`` (broadcast from the left) holds; zero, with zero gradient, if none does."""
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)).expand_as(values)
    return torch.where(mask, values, torch.zeros_like(values)).sum() / mask.sum().clamp_min(1)


def smpl_losses(
    prediction: Mapping[str, Tensor], batch: Mapping[str, Tensor], weights: LossWeights | None = None
) -> dict[str, Tensor]:
    """Weighted losses of a SMPL regressor; their sum is minimised. Terms of weight 0 are left out.

    * ``keypoints_2d``: squared error in [-1, 1] crop coordinates, visible joints of every person. As in SPIN the mean
      runs over all joints, so that a person with few annotated joints counts less.
    * ``keypoints_3d``: squared error in metres, centred at the midpoint of the hips; persons with labels.
    * ``keypoints_local``: the same in the frame of the own pelvis, so that the direction a person faces does not
      count. Where that is in doubt, ``keypoints_3d`` pulls the limbs in, toward the mean of all directions.
    * ``pose``: squared error of rotation matrices; ``orientation``: that of the root alone; ``betas``: squared error;
      persons with labels.
    * ``places``: only if predicted. Absolute error of the joints' places in the crop: x and y in [-1, 1] coordinates,
      of all joints of persons with labels and of visible joints of others; depth in metres, persons with labels.
    * ``heat``: only if predicted. Cross entropy between the heat maps and the same places, each shared among the four
      nearest cells; joints outside the crop do not count. Without it the maps stay wide and learn slowly.
    * ``scale``: exp(-10 s)², keeps the scale of the camera positive; every person. See :func:`scale_penalty`.

    Args:
        prediction: ``pose_rotmat`` (B, 24, 3, 3), ``betas`` (B, 10), ``cam`` (B, 3), ``joints`` (B, 45, 3) metres,
            ``keypoints_norm`` (B, 45, 2); optionally ``places`` (B, 35, 3) and ``heat`` (B, 35, h, w).
        batch: See :mod:`posesyn.data.batches`.
        weights: Default: SPIN's.

    Raises:
        InputError: A key is missing from the batch.
    """
    weights = weights or LossWeights()
    require(batch, ("keypoints_norm", "visible", "has_labels", "joints", "joints_norm", "pose_rotmat", "betas"))
    joints = slice(0, SCORED_JOINTS)
    labelled = batch["has_labels"]
    seen = batch["visible"][:, joints, None].to(prediction["joints"])
    offsets = prediction["keypoints_norm"][:, joints] - batch["keypoints_norm"][:, joints]
    centred = [x[:, joints] - x[:, _HIPS].mean(1, keepdim=True) for x in (prediction["joints"], batch["joints"])]
    local = [(x["joints"][:, joints] - x["joints"][:, :1]) @ x["pose_rotmat"][:, 0] for x in (prediction, batch)]
    terms = {
        "keypoints_2d": (seen * offsets.square()).mean(),
        "keypoints_3d": masked_mean((centred[0] - centred[1]).square(), labelled),
        "keypoints_local": masked_mean((local[0] - local[1]).square(), labelled),
        "pose": masked_mean((prediction["pose_rotmat"] - batch["pose_rotmat"]).square(), labelled),
        "orientation": masked_mean((prediction["pose_rotmat"][:, 0] - batch["pose_rotmat"][:, 0]).square(), labelled),
        "betas": masked_mean((prediction["betas"] - batch["betas"]).square(), labelled),
        "scale": scale_penalty(prediction["cam"][:, 0]).mean(),
    }
    if "places" in prediction:
        truth = torch.where(labelled[:, None, None], batch["joints_norm"], batch["keypoints_norm"])[:, joints]
        known = labelled[:, None] | batch["visible"][:, joints]
        error = (prediction["places"] - torch.cat((truth, batch["joints"][:, joints, 2:]), dim=-1)).abs()
        terms["places"] = masked_mean(error[..., :2], known) + masked_mean(error[..., 2], labelled)
        inside = known & (truth.abs() < 1).all(-1)
        terms["heat"] = masked_mean(heat_entropy(prediction["heat"], truth), inside)
    factors = {name: getattr(weights, name) * weights.total for name in terms}
    return {name: value * factors[name] for name, value in terms.items() if factors[name]}


def scale_penalty(scale: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """SPIN's exp(-10 s)² for s >= 0; below, its parabola at 0, which still pulls upward but stays finite.

    SPIN's own term is infinite in float32 from s = -4.5 on, and one such person destroys every weight. The bound is our
    own choice.
    """
    return torch.where(scale >= 0, torch.exp(-20 * scale.clamp_min(-1)), 1 - 20 * scale + 200 * scale.square())


def heat_entropy(heat: Float[Tensor, "B J h w"], places: Float[Tensor, "B J 2"]) -> Float[Tensor, "B J"]:
    """Cross entropy of softmax(heat) and the bilinear weights of ``places`` (borders of the map at ±1).

    The mean of cell centres under these weights is the place itself, so that the expectation learns to be exact. Places
    in the outer half of a border cell are moved to its centre.
    """
    height, width = heat.shape[-2:]
    logs = heat.flatten(2).log_softmax(-1)
    size = torch.tensor([width, height], device=heat.device)
    cells = ((places + 1) / 2 * size - 0.5).clamp_min(0).minimum(size - 1.0)
    low = cells.floor().minimum(size - 2.0)
    share = cells - low
    total = torch.zeros_like(logs[..., 0])
    for right in (0, 1):
        for down in (0, 1):
            weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if down else 1 - share[..., 1])
            index = (low[..., 1] + down) * width + low[..., 0] + right
            total = total - weight * logs.gather(-1, index.long()[..., None])[..., 0]
    return total


@dataclass(frozen=True)
class TrainingRecipe:
    """One published training.

    Attributes:
        optimizer: ``adam`` or ``adamw``.
        learning_rate: At the start.
        batch_size: Persons per step, over all GPUs.
        epochs: Length; None where the source counts ``steps``.
        steps: Length in optimiser steps; None where the source counts ``epochs``.
        milestones: Epochs after which the rate is multiplied by ``decay``.
        weight_decay: Of the optimiser.
    """

    optimizer: Literal["adam", "adamw"]
    learning_rate: float
    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    weight_decay: float = 0.0

    def build(self, groups: Sequence[dict[str, Any]], learning_rate: float | None = None) -> dict[str, Any]:
        """Optimiser of these parameter groups and schedule, as a Lightning module's ``configure_optimizers`` returns
        them.

        ``learning_rate`` takes the place of the published one; the decay stays.
        """
        rate = self.learning_rate if learning_rate is None else learning_rate
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer]
        optimizer = kind(list(groups), rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.milestones), self.decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


# nkolot/SPIN, utils/train_options.py.
HMR_RECIPE = TrainingRecipe("adam", 5e-5, batch_size=64, epochs=50)
# shubham-goel/4D-Humans: batch 48 on each of 8 GPUs.
HMR2_RECIPE = TrainingRecipe("adamw", 1e-5, batch_size=384, steps=1_000_000, weight_decay=1e-4)
# hongsukchoi/3DCrowdNet_RELEASE: 64 on each of 4 GPUs. Its ``lr_backbone`` never acts, so there is one rate.
CROWDNET_RECIPES = {
    "3dpw_crowd": TrainingRecipe("adam", 1e-4, batch_size=256, epochs=7, milestones=(4, 6)),
    "3dpw": TrainingRecipe("adam", 1e-3, batch_size=256, epochs=11, milestones=(10,)),
}
# Jeff-sjtu/HybrIK: BATCH_SIZE 32, WORLD_SIZE 8.
HYBRIK_RECIPE = TrainingRecipe("adam", 1e-3, batch_size=256, epochs=200, milestones=(90, 120))


def trainable(named: Iterable[tuple[str, nn.Parameter]], prefixes: Sequence[str]) -> list[dict[str, Any]]:
    """Parameter groups of ``module.named_parameters()``, one for each prefix of names (``("backbone.",)``) and a last
    one for the rest; frozen parameters and empty groups are left out. Raises InputError where there is nothing to
    train."""
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in (*prefixes, "")}
    for name, parameter in named:
        if parameter.requires_grad:
            groups[next(prefix for prefix in groups if name.startswith(prefix))].append(parameter)
    found = [{"params": values, "name": prefix.rstrip(".") or "head"} for prefix, values in groups.items() if values]
    if not found:
        raise InputError("the network has no trainable parameters", where="recipes.trainable")
    return found
