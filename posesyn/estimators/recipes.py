"""How the networks were published to be trained: optimiser, rate and its decay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from posesyn.errors import InputError


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
        """Optimiser and schedule as a Lightning module's ``configure_optimizers`` returns them.

        Args:
            groups: Parameter groups.
            learning_rate: In place of the published one; the decay stays.
        """
        rate = self.learning_rate if learning_rate is None else learning_rate
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer]
        optimizer = kind(list(groups), rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.milestones), self.decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


# estimators.md section 3.
HMR_RECIPE = TrainingRecipe("adam", 5e-5, batch_size=64, epochs=50)
# Section 4: batch 48 on each of 8 GPUs.
HMR2_RECIPE = TrainingRecipe("adamw", 1e-5, batch_size=384, steps=1_000_000, weight_decay=1e-4)
# Section 2.5: batch 64 on each of 4 GPUs. The sources' ``lr_backbone`` never acts, so there is one rate.
CROWDNET_RECIPES = {
    "3dpw_crowd": TrainingRecipe("adam", 1e-4, batch_size=256, epochs=7, milestones=(4, 6)),
    "3dpw": TrainingRecipe("adam", 1e-3, batch_size=256, epochs=11, milestones=(10,)),
}
# Section 5: BATCH_SIZE 32, WORLD_SIZE 8.
HYBRIK_RECIPE = TrainingRecipe("adam", 1e-3, batch_size=256, epochs=200, milestones=(90, 120))


def trainable(named: Iterable[tuple[str, nn.Parameter]], prefixes: Sequence[str]) -> list[dict[str, Any]]:
    """Parameter groups, one for each prefix of names and a last one for the rest; empty groups are left out.

    Args:
        named: ``module.named_parameters()``; frozen parameters are left out.
        prefixes: ``("backbone.",)``.

    Raises:
        InputError: Nothing to train.
    """
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in (*prefixes, "")}
    for name, parameter in named:
        if parameter.requires_grad:
            groups[next(prefix for prefix in groups if name.startswith(prefix))].append(parameter)
    found = [{"params": values, "name": prefix.rstrip(".") or "head"} for prefix, values in groups.items() if values]
    if not found:
        raise InputError("the network has no trainable parameters", where="recipes.trainable")
    return found
