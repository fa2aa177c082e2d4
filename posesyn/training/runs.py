"""One resumable Lightning run for every training: estimators, lifters, PoseAug and the motion prior.

The folder of a training holds ``config.json`` and ``ledger.sqlite`` (what it was started with), ``last.ckpt`` (where it
goes on), ``curves.csv`` (its numbers, written as it goes) and, once it has ended, the weights.
"""

from __future__ import annotations

import copy
import csv
import io
import logging
import os
import pickle
import signal
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.callbacks import ProgressBar as LightningBar
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from posesyn.errors import DivergenceError, InputError, RunError
from posesyn.progress import ProgressBar
from posesyn.settings.base import identity
from posesyn.settings.training import TrainerSettings
from posesyn.storage.files import PARTIAL_SUFFIX, write_bytes
from posesyn.storage.ledger import RunLedger

LAST, CURVES = "last.ckpt", "curves.csv"
# Rows of curves.csv at most, in trainings that count steps; our own choice.
_ROWS = 1000
# The metrics at a moment → what could be kept then: (value, weights) pairs.
Offers = Callable[[Mapping[str, float]], Iterable[tuple[float, Mapping[str, Tensor]]]]


@dataclass(frozen=True)
class Kept:
    """The moment whose weights were kept: the monitored value (lowest of all), epoch (from 0) and optimiser steps."""

    value: float
    epoch: int
    step: int


def lowest(monitor: str, network: nn.Module) -> Offers:
    """Keeps the weights of ``network`` from the validation with the lowest ``monitor``, a name that is logged."""

    def offers(metrics: Mapping[str, float]) -> Iterable[tuple[float, Mapping[str, Tensor]]]:
        return [(metrics[monitor], network.state_dict())] if monitor in metrics else []

    return offers


def run_training(
    module: pl.LightningModule,
    network: nn.Module,
    out: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    weights: str,
    save: Callable[[Path, Kept | None], None],
    load: Callable[[Path], None] | None = None,
    data: pl.LightningDataModule | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    every: int | None = None,
    offers: Offers | None = None,
    trainer: TrainerSettings | None = None,
    logger: Any = False,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    name: str = "training",
    row: int = 0,
    **options: Any,
) -> Path:
    """Trains ``network`` inside ``module``, goes on where an interrupted run stopped, and writes its weights.

    A resumed training ends with the numbers of one that was never interrupted. Where it is interrupted or fails,
    ``network`` gets back the weights it came with, so that the same call goes on.

    Args:
        module: What Lightning trains; it must draw from (seed, step) or (seed, epoch) only, so that it can be resumed.
        network: The part of it that is the result.
        out: Folder; made if absent.
        config: All that decides the result, with a ``kind`` and the fingerprint of the starting weights; another call
            in the same folder must bring the same. ``trainer`` is added to it where it changes results.
        weights: Name of the file with the weights.
        save: Writes it; the second argument is what was kept, None where the last state is.
        load: Reads it back into ``network``. Given: a finished training is not entered again. Not given: the module is
            trained on if ``epochs`` has grown.
        data: None where the module has data loaders of its own.
        epochs, steps: How long, one of the two.
        every: Steps between two checkpoints, for trainings that count steps. With ``offers`` there is a validation
            before each. Trainings that count epochs write one after every epoch.
        offers: What could be kept after a validation, e.g. :func:`lowest`; the last state if None.
        trainer: Devices, strategy and precision.
        logger: As in ``pytorch_lightning.Trainer``; ``curves.csv`` is written in any case.
        callbacks: Further ones. A progress bar of Lightning among them takes the place of ours.
        progress: Show a bar, or lines where there is no terminal.
        name: Shown beside it.
        row: Line of the bar, for several trainings at once.
        **options: Further arguments of ``pytorch_lightning.Trainer``, e.g. ``gradient_clip_val``.

    Returns:
        Path of the weights.

    Raises:
        RunError: The folder holds another training, another process works in it, or its checkpoint is damaged.
        DivergenceError: The module says that its loss is not finite; the last good weights are saved beside the curves.
        KeyboardInterrupt: The training was interrupted.
    """
    if (epochs is None) == (steps is None):
        raise InputError("a training lasts for a number of epochs or of steps", where="run_training",
                         expected="one of the two", got={"epochs": epochs, "steps": steps})  # fmt: skip
    out, chosen = Path(out), trainer or TrainerSettings()
    path = out / weights
    numeric = identity(chosen)
    ledger = {**config, **({"trainer": numeric} if numeric else {})}
    # The first of several processes has the folder; the others only train.
    folder: AbstractContextManager[Any] = RunLedger(out, ledger) if rank_zero_only.rank == 0 else nullcontext()
    with folder, quiet_lightning():
        if load is not None and path.exists():
            load(path)
            return path
        start = copy.deepcopy(network.state_dict())
        keeper = _Keeper(out, every, steps, offers)
        own_bar = any(isinstance(callback, LightningBar) for callback in callbacks)
        bars = [_Bar(name, row)] if progress and not own_bar else []
        if epochs is None and offers is not None:
            options = {"val_check_interval": keeper.every, "check_val_every_n_epoch": None, **options}
        lightning = pl.Trainer(
            **chosen.arguments(), max_epochs=-1 if epochs is None else epochs, max_steps=-1 if steps is None else steps,
            callbacks=[*callbacks, *bars, keeper], enable_progress_bar=own_bar, enable_model_summary=False,
            logger=logger, log_every_n_steps=10, num_sanity_val_steps=0, use_distributed_sampler=False, **options,
        )  # fmt: skip
        last = out / LAST
        try:
            if last.is_file():
                _check(module, last)
            _fit(lightning, module, data, last if last.is_file() else None)
        except DivergenceError as error:
            good = out / f"last_good_{weights}"
            save(good, None)  # the step that would have spoilt them has not been made
            network.load_state_dict(start)
            fix = f"{error.fix}; the weights before this step are in {good}"
            raise DivergenceError(error.what, where=error.where, got=error.got, fix=fix) from error
        except BaseException:
            network.load_state_dict(start)
            raise
        if offers is not None and keeper.kept is None and last.is_file():  # it lived in a process of Lightning's
            keeper.load_state_dict(torch.load(last, "cpu", weights_only=True)["callbacks"][keeper.state_key])
        if keeper.weights is not None:
            network.load_state_dict(keeper.weights)
        network.eval()
        if lightning.is_global_zero:
            save(path, keeper.kept)
    return path


def _fit(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule | None, checkpoint: Path | None
) -> None:
    """``Trainer.fit`` that lets Ctrl-C through: Lightning ends the process instead and ignores further signals."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
    if trainer.interrupted:
        raise KeyboardInterrupt


def _check(module: pl.LightningModule, path: Path) -> None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        names, callbacks = content["state_dict"].keys(), content["callbacks"].keys()
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        fix = "delete it to train from the start, or choose another folder"
        raise RunError("the checkpoint to go on from cannot be read", where=path, got=error, fix=fix) from error
    if module.state_dict().keys() != names or _Keeper.state_key not in callbacks:
        raise RunError("the folder holds a training of an earlier version of posesyn", where=path.parent,
                       fix="choose another folder")  # fmt: skip


class _Keeper(Checkpoint):
    """Keeps what a run needs: a row of numbers, the best weights so far and the checkpoint to go on from, every so many
    steps or (None) after every epoch.

    Lightning calls it after all other callbacks, when an epoch's or a validation's means are known.
    """

    state_key = "posesyn.training"

    def __init__(self, out: Path, every: int | None, steps: int | None, offers: Offers | None) -> None:
        self.out, self.offers = out, offers
        self.every = None if steps is None else max(1, min(every or steps, steps))
        self.row_every = None if steps is None else max(10, steps // _ROWS)
        self.kept: Kept | None = None
        self.weights: Mapping[str, Tensor] | None = None
        self.curves: list[dict[str, float]] = []
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.every is None or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if trainer.global_step % self.row_every == 0:
            self._row(trainer, "step", trainer.global_step, "train/")
        if self.offers is None and trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Not at the end of the batch before it: a resumed run would leave this validation out.
        if self.every is not None and self.offers is not None:
            metrics = self._row(trainer, "step", trainer.global_step, "")
            self._offer(trainer, metrics)
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Not at the end of the validation: the epoch's means of the training are made after it.
        if self.every is None:
            metrics = self._row(trainer, "epoch", trainer.current_epoch, "")
            self._offer(trainer, metrics)
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._write_curves(trainer)

    def _row(self, trainer: pl.Trainer, unit: str, number: int, prefix: str) -> dict[str, float]:
        """Notes the metrics whose names start so; a second row of one moment completes the first."""
        found = sorted(trainer.callback_metrics.items())
        metrics = {name: float(value) for name, value in found if name.startswith(prefix)}
        if self.curves and self.curves[-1][unit] == number:
            self.curves[-1].update(metrics)
        else:
            self.curves.append({unit: number, **metrics})
        return metrics

    def _offer(self, trainer: pl.Trainer, metrics: Mapping[str, float]) -> None:
        for value, weights in self.offers(metrics) if self.offers is not None else ():
            if self.kept is None or value < self.kept.value:
                self.kept = Kept(value, trainer.current_epoch, trainer.global_step)
                self.weights = copy.deepcopy(weights)

    def _save(self, trainer: pl.Trainer) -> None:
        self._write_curves(trainer)
        partial = self.out / f".{LAST}{PARTIAL_SUFFIX}"
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.out / LAST)

    def _write_curves(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero or not self.curves:
            return
        first = ("epoch", "step")
        names = sorted({name for row in self.curves for name in row}, key=lambda name: (name not in first, name))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(self.curves)
        write_bytes(self.out / CURVES, text.getvalue().encode())

    def state_dict(self) -> dict[str, Any]:
        kept = None if self.kept is None else (self.kept.value, self.kept.epoch, self.kept.step)
        return {"kept": kept, "weights": self.weights, "curves": self.curves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = None if state["kept"] is None else Kept(*state["kept"])
        self.weights, self.curves = state["weights"], state["curves"]


class _Bar(Callback):
    """One bar over the whole training, whichever way it is counted."""

    def __init__(self, name: str, row: int) -> None:
        self.name, self.row = name, row
        self.bar: ProgressBar | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        per_epoch = trainer.num_training_batches
        total, done = trainer.max_steps, trainer.global_step
        if total < 0:
            total = per_epoch * trainer.max_epochs if per_epoch != float("inf") else None
            done = trainer.current_epoch * per_epoch if total is not None else 0
        self.bar = ProgressBar(total, self.name, "step", initial=done, shown=trainer.is_global_zero, row=self.row)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # Reading the numbers waits for the device: not at every step.
        read = self.bar.done % 20 == 0
        text = (
            "  ".join(f"{name} {value:.4g}" for name, value in trainer.progress_bar_metrics.items()) if read else None
        )
        self.bar.update(text=text)

    def on_train_end(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()


_LOGGERS = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero")
_KNOWN = (
    "Found .* module.* in eval mode",
    "You have overridden `transfer_batch_to_device`",
    "The number of training batches",
    "The .*dataloader.* does not have many workers",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "Total length of `list` across ranks is zero",
    "Your `IterableDataset` has `__len__` defined",
    "You're resuming from a checkpoint that ended before the epoch ended",  # our data modules know where they were
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Turns the messages of Lightning itself off; progress bars stay."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _KNOWN:
            warnings.filterwarnings("ignore", message=f".*{message}")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
