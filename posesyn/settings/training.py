"""How estimators are fine-tuned, and how they are scored."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from posesyn.errors import InputError
from posesyn.settings.base import FREE, check_choices, check_least
from posesyn.types.looks import short_repr


@dataclass(frozen=True)
class TrainerSettings:
    """Where and how precisely a training computes; passed through to ``pytorch_lightning.Trainer``.

    Args:
        accelerator: ``auto`` (an accelerator if there is one), ``cpu``, ``gpu``, ``cuda``, ``mps`` ...
        devices: How many, or which: ``2``, ``[1]``, ``auto``. Fine-tuning divides every batch among them; the other
            trainings are small, each device of theirs does the whole work.
        strategy: How several devices work together: ``auto``, ``ddp`` ...
        precision: ``32-true``, ``16-mixed``, ``bf16-mixed`` ...; it changes results, so a resumed training must have
            the same.
    """

    accelerator: str = field(default="auto", metadata=FREE)
    devices: int | str | list[int] = field(default=1, metadata=FREE)
    strategy: str = field(default="auto", metadata=FREE)
    precision: str = "32-true"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.devices in (0, []):
            raise InputError("a training needs at least one device", where="TrainerSettings", got=self.devices)

    @classmethod
    def on(cls, device: str = "auto", **changes: Any) -> TrainerSettings:
        """One device by the name that torch and ``--device`` have for it: ``auto``, ``cpu``, ``mps``, ``cuda:1``.

        >>> TrainerSettings.on("cuda:1").arguments()["devices"]
        [1]
        """
        kind, _, number = str(device).partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (number and not number.isdigit()):
            raise InputError("unknown device", expected="auto, cpu, cuda, cuda:N or mps", got=device)
        # One CPU is a number of processes to Lightning, not a name.
        return cls(accelerator=kind, devices=[int(number)] if number and kind != "cpu" else 1, **changes)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``pytorch_lightning.Trainer``."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class FineTuningSettings:
    """How an estimator is fine-tuned. PoseSyn (arXiv 2503.13025) states none of these: our own choice.

    Args:
        steps: Optimiser steps.
        batch_size: Persons per step.
        synthetic_fraction: Exact share of synthetic persons in every batch.
        learning_rate: Of Adam; None takes the estimator's own ``learning_rate``, else SPIN's 5e-5.
        schedule: ``constant``, or ``cosine`` down to 1 %, which ends at steadier weights.
        warmup_steps: Linear rise of the rate at the start.
        weight_decay: Of Adam.
        max_grad_norm: Gradients are clipped to this norm; None leaves them.
        trunk_rate: Factor on the rate of the estimator's trunk (``heavy_parts``).
        trunk_after: Steps for which the trunk stays as it is.
        ema_decay: Decay of a running average of the weights, which becomes the result; 0 for none.
        retain: Share of the real persons without 3D labels for whom the start may teach its own prediction, each
            where it is right in 2D (:class:`~posesyn.training.estimators.retention.Teacher`); 0 for none.
        retain_reach: Mean 2D error, as a fraction of the crop, at which it is trusted in 37 of 100 cases.
        end_share: Share of the trained weights in the result, the rest is the start (WiSE-FT).
        checkpoint_every: Steps between the checkpoints that a resumed run starts from.
        num_workers: Processes that read images; 0 reads in the main process.
    """

    steps: int = 2000
    batch_size: int = 32
    synthetic_fraction: float = 0.5
    learning_rate: float | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    trunk_rate: float = 1.0
    trunk_after: int = 0
    ema_decay: float = 0.0
    retain: float = 0.0
    retain_reach: float = 0.05
    end_share: float = 1.0
    checkpoint_every: int = 100
    num_workers: int = field(default=0, metadata=FREE)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, steps=0, batch_size=1, checkpoint_every=1, num_workers=0, warmup_steps=0, weight_decay=0)
        check_least(self, max_grad_norm=0, trunk_rate=0, trunk_after=0, retain_reach=1e-6)
        for name in ("ema_decay", "retain", "end_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"FineTuningSettings.{name} must be in [0, 1]", got=getattr(self, name))
        if self.ema_decay == 1:
            raise InputError("an average that never moves is the start", where="FineTuningSettings.ema_decay", got=1)
        if not 0 <= self.synthetic_fraction <= 1:
            raise InputError("FineTuningSettings.synthetic_fraction must be in [0, 1]", got=self.synthetic_fraction)


@dataclass(frozen=True)
class EvaluationSettings:
    """How an estimator is scored.

    Args:
        protocol: A name of ``posesyn.evaluation.PROTOCOLS`` (``smpl24``, ``3dpw-spin14``, ``3dhp-official17``,
            ``lspet-pckh``, ``poseaug16`` for lifters ...).
        regressor: ``J_regressor_h36m*.npy`` or ``J_regressor_extra.npy``, for protocols on meshes.
        bodies: Folder of the licensed SMPL files, for protocols whose truth is a mesh.
        batch_size: Persons per forward pass.
        resamples: Draws of the bootstrap over sequences; our own choice.
        level: Share of the draws inside the intervals.
        seed: Decides the draws.
    """

    protocol: str = "smpl24"
    regressor: Path | None = None
    bodies: Path | None = None
    batch_size: int = 64
    resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_least(self, batch_size=1, resamples=1)
        if not 0 < self.level < 1:
            raise InputError("level must lie in (0, 1)", where="EvaluationSettings", got=self.level)
        if self.regressor is not None and self.bodies is None:
            raise InputError(
                "a joint regressor needs the SMPL body it was made for", fix="give bodies too (--evaluation.bodies)"
            )
