"""One run of PoseAug: resume, selection on validation data, learning curves, weights of lifter and augmentor."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import InputError
from posesyn.estimators.lifters.lifter import Lifter
from posesyn.settings.lifters import PoseAugSettings
from posesyn.training.lifters.poseaug import PoseAugModule
from posesyn.training.runs import fit_module

AUGMENTOR = "augmentor.safetensors"


def train_poseaug(
    lifter: Lifter,
    pairs: PosePairs,
    out: str | os.PathLike[str],
    settings: PoseAugSettings | None = None,
    validation: PosePairs | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Trains a lifter with PoseAug; writes ``lifter.safetensors``, ``augmentor.safetensors`` and ``curves.csv``.

    A run that was interrupted goes on from its last epoch (``last.ckpt``) with the numbers it would have had.

    Args:
        lifter: The network, changed in place; best one trained alone before (:func:`~posesyn.training.train_lifter`).
        pairs: Training data with cameras. Without ``validation`` a fifth of its subjects is held out, the same for
            every seed and as in :func:`~posesyn.training.train_lifter`; except with ``recipe="official"``, which then
            keeps the last epoch.
        out: Folder.
        settings: As published, with the fixes told in :class:`PoseAugSettings`.
        validation: What the best epoch is chosen on. The official code takes test data here.
        seed: Decides orders and noise.
        progress: Show a progress bar.

    Returns:
        Path of the lifter's weights.

    Raises:
        InputError: Pairs without cameras, or no epoch after the warm-up. RunError: The folder holds another training.
    """
    settings = settings or PoseAugSettings()
    if settings.epochs <= settings.warmup:
        raise InputError(
            "no epoch would train the lifter: the warm-up trains the augmentor only",
            where="train_poseaug", expected=f"more than {settings.warmup} epochs", got=settings.epochs,
            fix="more epochs, or warmup=0",
        )  # fmt: skip
    if validation is None and not settings.official:
        pairs, validation = pairs.split_by_subject()
    torch.manual_seed(seed)
    module = PoseAugModule(lifter, pairs, validation, settings, seed)
    path = fit_module(module, pairs, Path(out), progress)
    network = module.augmentor if settings.official else module.average
    network.save(path.parent / AUGMENTOR, {"seed": seed, "recipe": settings.recipe, "rescues": module.guard.rescues})
    return path
