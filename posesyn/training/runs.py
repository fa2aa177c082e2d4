"""One resumable Lightning run: a folder, what it holds, and how it ends."""

from __future__ import annotations

import copy
import csv
import io
import logging
import pickle
import signal
import threading
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import RunError
from posesyn.storage.checkpoints import fingerprint
from posesyn.storage.files import write_bytes
from posesyn.storage.ledger import RunLedger

if TYPE_CHECKING:
    from posesyn.training.lifters.lifter import LifterModule
    from posesyn.training.lifters.poseaug import PoseAugModule


def fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule | None = None,
    checkpoint: Path | None = None,
) -> None:
    """``Trainer.fit`` that lets Ctrl-C through: Lightning ends the process instead and ignores further signals.

    Args:
        trainer, module: As in ``Trainer.fit``.
        data: None where the module has its own data loaders.
        checkpoint: To go on from; no code of the file runs.

    Raises:
        KeyboardInterrupt: The training was interrupted.
    """
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


_LOGGERS = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero")


def quiet_lightning() -> None:
    """Turns Lightning's own messages off in this process; progress bars stay."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "Found .* module.* in eval mode",
        "You have overridden `transfer_batch_to_device`",
        "The number of training batches",
        "The .*dataloader.* does not have many workers",
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")


def is_quiet() -> bool:
    """Whether :func:`quiet_lightning` holds here; processes that are started from this one do not inherit it."""
    return all(logging.getLogger(name).level >= logging.WARNING for name in _LOGGERS)


WEIGHTS, CURVES = "lifter.safetensors", "curves.csv"
_LAST = "last"


class BestEpoch(Callback):
    """Keeps the lifter's weights of the epoch with the lowest ``val/mpjpe``, and the value of every epoch.

    Args:
        curves_path: CSV file written after every epoch, so that a running training can be watched.
    """

    def __init__(self, curves_path: Path) -> None:
        self.best, self.epoch, self.weights = float("inf"), -1, None
        self.curves_path = curves_path
        self.curves: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Not at the end of the validation: the epoch's means of the training are made after it.
        metrics = {name: float(number) for name, number in sorted(trainer.callback_metrics.items())}
        self.curves.append({"epoch": trainer.current_epoch, **metrics})
        if "val/mpjpe" in metrics and getattr(module, "selectable", True):
            self._offer(metrics["val/mpjpe"], trainer.current_epoch, module.lifter.state_dict())
            # The official PoseAug scores in the middle of an epoch too.
            if (candidate := getattr(module, "candidate", None)) is not None:
                self._offer(candidate[0], trainer.current_epoch, candidate[1])
        _write_curves(self.curves_path, self.curves)

    def _offer(self, value: float, epoch: int, weights: dict) -> None:
        if value < self.best:
            self.best, self.epoch, self.weights = value, epoch, copy.deepcopy(weights)

    def state_dict(self) -> dict:
        return {"best": self.best, "epoch": self.epoch, "weights": self.weights, "curves": self.curves}

    def load_state_dict(self, state: dict) -> None:
        self.best, self.epoch = state["best"], state["epoch"]
        self.weights, self.curves = state["weights"], state["curves"]


def fit_module(module: LifterModule | PoseAugModule, pairs: PosePairs, out: Path, progress: bool = True) -> Path:
    """Trains a module on ``pairs``, resuming from ``out/last.ckpt``; writes the best weights and the learning curves.

    A lifter whose training is interrupted gets back the weights it came with, so that the same call goes on.

    Raises:
        RunError: The folder holds a training of another lifter, of other weights, data or settings, another process
            works in it, or its checkpoint is damaged. KeyboardInterrupt: The training was interrupted.
    """
    lifter, held = module.lifter, module.validation
    chosen = asdict(module.settings)
    if chosen.get("schedule") == "step":
        del chosen["epochs"]  # the rate does not depend on it: a training may be made longer
    config = {
        "kind": type(module).__name__,
        "settings": chosen,
        "seed": module.seed,
        "lifter": {"name": lifter.name, **lifter.options(), "weights": fingerprint(lifter)},
        "pairs": pairs.fingerprint(),
        "validation": None if held is None else held.fingerprint(),
    }
    start = copy.deepcopy(lifter.state_dict())
    with RunLedger(out, config):
        best = BestEpoch(out / CURVES)
        try:
            _fit(module, out, best, progress)
        except BaseException:
            lifter.load_state_dict(start)
            raise
        if best.weights is not None:
            lifter.load_state_dict(best.weights)
        lifter.eval()
        path = out / WEIGHTS
        found = {"selected_epoch": best.epoch, "validation_mpjpe_mm": best.best} if best.weights is not None else {}
        lifter.save(path, {**found, "seed": module.seed})
    return path


def _fit(module: LifterModule | PoseAugModule, out: Path, best: BestEpoch, progress: bool) -> None:
    # Without a monitored value this is the newest epoch; ``save_last`` alone writes at the end of the training only.
    # Without the counter a folder that was moved does not get last-v1.ckpt beside the file that is read.
    keeper = ModelCheckpoint(
        dirpath=out, filename=_LAST, save_top_k=1, every_n_epochs=1, save_on_train_epoch_end=True,
        enable_version_counter=False,
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=module.settings.epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[best, keeper],
    )
    last = out / f"{_LAST}.ckpt"
    if last.is_file():
        _check(module, last)
    fit(trainer, module, checkpoint=last if last.is_file() else None)


def _check(module: pl.LightningModule, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise RunError(
            "the checkpoint to go on from cannot be read",
            where=path,
            got=error,
            fix="delete it to train from the start, or choose another folder",
        ) from error
    if module.state_dict().keys() != state.keys():
        raise RunError("the folder holds a training of an earlier version of posesyn", where=path.parent,
                       fix="choose another folder")  # fmt: skip


def _write_curves(path: Path, curves: list[dict[str, float]]) -> None:
    names = sorted({name for row in curves for name in row}, key=lambda name: (name != "epoch", name))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(curves)
    write_bytes(path, text.getvalue().encode())
