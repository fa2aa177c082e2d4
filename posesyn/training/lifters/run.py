"""Runs of lifter trainings, alone and with PoseAug: a folder, selection on validation data, weights and curves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import InputError
from posesyn.estimators.lifters.lifter import Lifter
from posesyn.settings.lifters import LifterSettings, PoseAugSettings
from posesyn.settings.training import TrainerSettings
from posesyn.storage.checkpoints import fingerprint
from posesyn.training.lifters.lifter import LifterModule
from posesyn.training.lifters.poseaug import PoseAugModule
from posesyn.training.runs import Kept, Offers, lowest, run_training

WEIGHTS, AUGMENTOR = "lifter.safetensors", "augmentor.safetensors"


def train_lifter(
    lifter: Lifter,
    pairs: PosePairs,
    out: str | os.PathLike[str],
    settings: LifterSettings | None = None,
    validation: PosePairs | None = None,
    seed: int = 0,
    progress: bool = True,
    *,
    trainer: TrainerSettings | None = None,
    logger: Any = False,
    callbacks: Any = (),
) -> Path:
    """Trains a lifter, keeps the epoch that is best on validation data, and writes ``lifter.safetensors``.

    A run that was interrupted goes on from its last epoch (``last.ckpt``). The published schedule of the rate does not
    depend on the number of epochs, so that a training may be made longer; everything else must be as it was.

    Args:
        lifter: The network, changed in place.
        pairs: Training data; without ``validation`` a fifth of its subjects is held out, the same for every seed.
        out: Folder.
        settings: As published by default.
        validation: Never test data.
        seed: Decides the order.
        progress: Show a progress bar.
        trainer, logger, callbacks: See :func:`posesyn.training.runs.run_training`.

    Returns:
        Path of the weights.

    Raises:
        RunError: The folder holds another training.
    """
    if validation is None:
        pairs, validation = pairs.split_by_subject()
    torch.manual_seed(seed)
    module = LifterModule(lifter, pairs, validation, settings, seed)
    chosen = asdict(module.settings)
    if module.settings.schedule == "step":
        del chosen["epochs"]  # the rate does not depend on it: a training may be made longer
    options = {"trainer": trainer, "logger": logger, "callbacks": callbacks, "progress": progress}
    return _run(module, pairs, out, chosen, lowest("val/mpjpe", lifter), options)


def train_poseaug(
    lifter: Lifter,
    pairs: PosePairs,
    out: str | os.PathLike[str],
    settings: PoseAugSettings | None = None,
    validation: PosePairs | None = None,
    seed: int = 0,
    progress: bool = True,
    *,
    trainer: TrainerSettings | None = None,
    logger: Any = False,
    callbacks: Any = (),
) -> Path:
    """Trains a lifter with PoseAug; writes ``lifter.safetensors``, ``augmentor.safetensors`` and ``curves.csv``.

    A run that was interrupted goes on from its last epoch (``last.ckpt``) with the numbers it would have had.

    Args:
        lifter: The network, changed in place; best one trained alone before (:func:`~posesyn.training.train_lifter`).
        pairs: Training data with cameras, divided as in :func:`~posesyn.training.train_lifter`; except with
            ``recipe="official"``, which keeps the last epoch if there is no ``validation``.
        settings: As published, with the fixes told in :class:`PoseAugSettings`.
        validation: What the best epoch is chosen on. The official code takes test data here.
        out, seed, progress, trainer, logger, callbacks: As for :func:`~posesyn.training.train_lifter`.

    Returns:
        Path of the lifter's weights.

    Raises:
        InputError: Pairs without cameras, or no epoch after the warm-up. RunError: The folder holds another training.
    """
    settings = settings or PoseAugSettings()
    if settings.epochs <= settings.warmup:
        what, wanted = "no epoch would train the lifter: the warm-up trains the augmentor only", settings.warmup
        raise InputError(what, where="train_poseaug", expected=f"more than {wanted} epochs", got=settings.epochs,
                         fix="more epochs, or warmup=0")  # fmt: skip
    if validation is None and not settings.official:
        pairs, validation = pairs.split_by_subject()
    torch.manual_seed(seed)
    module = PoseAugModule(lifter, pairs, validation, settings, seed)
    options = {"trainer": trainer, "logger": logger, "callbacks": callbacks, "progress": progress}
    path = _run(module, pairs, out, asdict(settings), module.offers, options)
    network = module.augmentor if settings.official else module.average
    network.save(path.parent / AUGMENTOR, {"seed": seed, "recipe": settings.recipe, "rescues": module.guard.rescues})
    return path


def _run(
    module: LifterModule | PoseAugModule, pairs: PosePairs, out: str | os.PathLike[str], chosen: Mapping[str, Any],
    offers: Offers, options: Mapping[str, Any],
) -> Path:  # fmt: skip
    lifter, held = module.lifter, module.validation
    config = {
        "kind": type(module).__name__,
        "settings": chosen,
        "seed": module.seed,
        "lifter": {"name": lifter.name, **lifter.options(), "weights": fingerprint(lifter)},
        "pairs": pairs.fingerprint(),
        "validation": None if held is None else held.fingerprint(),
    }

    def save(path: Path, kept: Kept | None) -> None:
        found = {} if kept is None else {"selected_epoch": kept.epoch, "validation_mpjpe_mm": kept.value}
        lifter.save(path, {**found, "seed": module.seed})

    return run_training(
        module, lifter, out, config, weights=WEIGHTS, save=save, epochs=module.settings.epochs, offers=offers,
        name=lifter.name, **options,
    )  # fmt: skip
