"""Numbers of a fine-tuning run, apart from the code so that the command line can show them without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posesyn.errors import InputError


@dataclass(frozen=True)
class FineTuningSettings:
    """How an estimator is fine-tuned. The papers give none of these for PoseSyn (reference section 8): our own choice.

    Args:
        steps: Optimiser steps.
        batch_size: Persons per step.
        synthetic_fraction: Exact share of synthetic persons in every batch.
        learning_rate: Of Adam.
        schedule: ``constant``, or ``cosine`` down to 1 %, which ends at steadier weights.
        checkpoint_every: Steps between the checkpoints that a resumed run starts from.
        num_workers: Processes that read images; 0 reads in the main process.
    """

    steps: int = 2000
    batch_size: int = 32
    synthetic_fraction: float = 0.5
    learning_rate: float = 5e-5
    schedule: Literal["constant", "cosine"] = "constant"
    checkpoint_every: int = 100
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or self.checkpoint_every < 1:
            raise InputError("FineTuningSettings needs steps >= 0, batch_size >= 1, checkpoint_every >= 1", got=self)
        if not 0 <= self.synthetic_fraction <= 1:
            raise InputError("FineTuningSettings.synthetic_fraction must be in [0, 1]", got=self.synthetic_fraction)
