"""The run around a lifter training: resume, selection on validation data, learning curves, weights."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from posesyn.errors import RunError
from posesyn.estimators.lifters.lifter import Lifter
from posesyn.storage.atomic import write_bytes

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
        if "val/mpjpe" not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics["val/mpjpe"])
        self.curves.append(
            {
                "epoch": trainer.current_epoch,
                **{name: float(number) for name, number in sorted(trainer.callback_metrics.items())},
            }
        )
        if getattr(module, "selectable", True):
            self._offer(value, trainer.current_epoch, module.lifter.state_dict())
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


def fit_module(
    module: pl.LightningModule, lifter: Lifter, out: Path, epochs: int, seed: int, progress: bool = True
) -> Path:
    """Trains until ``epochs``, resuming from ``out/last.ckpt``; writes the best weights and the learning curves.

    Raises:
        RunError: The folder holds a training of another lifter.
    """
    out.mkdir(parents=True, exist_ok=True)
    best = BestEpoch(out / CURVES)
    keeper = ModelCheckpoint(dirpath=out, filename="epoch", save_last=True, save_top_k=0, every_n_epochs=1)
    trainer = pl.Trainer(
        max_epochs=epochs,
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
        state = torch.load(last, map_location="cpu", weights_only=True)
        if not {f"lifter.{key}" for key in lifter.state_dict()} <= state["state_dict"].keys():
            raise RunError("the folder holds a training of another lifter", where=out, fix="choose another folder")
        if module.state_dict().keys() != state["state_dict"].keys():
            raise RunError(
                "the folder holds a training with other settings, or of an earlier version of posesyn",
                where=out,
                fix="choose another folder",
            )
    trainer.fit(module, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    if best.weights is not None:
        lifter.load_state_dict(best.weights)
    lifter.eval()
    path = out / WEIGHTS
    chosen = {"selected_epoch": best.epoch, "validation_mpjpe_mm": best.best} if best.weights is not None else {}
    lifter.save(path, {**chosen, "seed": seed})
    return path


def _write_curves(path: Path, curves: list[dict[str, float]]) -> None:
    import io

    names = sorted({name for row in curves for name in row}, key=lambda name: (name != "epoch", name))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(curves)
    write_bytes(path, text.getvalue().encode())
