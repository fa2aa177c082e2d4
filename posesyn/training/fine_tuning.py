"""One resumable fine-tuning run: real and synthetic persons in, weights out."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger

from posesyn.errors import InputError
from posesyn.protocols import TrainableEstimator
from posesyn.storage.checkpoints import fingerprint, load_into, load_weights, save_weights
from posesyn.storage.ledger import RunLedger
from posesyn.training.interruptible import fit
from posesyn.training.lightning_output import is_quiet, quiet_lightning
from posesyn.training.mixed_data import MixedPoseDataModule
from posesyn.training.pose_estimator import PoseEstimatorModule
from posesyn.training.settings import FineTuningSettings
from posesyn.types import Person

WEIGHTS = "estimator.safetensors"


def fine_tune(
    estimator: TrainableEstimator,
    real: Sequence[Person] | Sequence[Sequence[Person]],
    synthetic: Sequence[Person] | None,
    out: str | Path,
    settings: FineTuningSettings | None = None,
    *,
    seed: int = 0,
    name: str = "fine-tuning",
    progress: bool = True,
    bar_row: int = 0,
) -> Path:
    """Trains ``estimator`` in place and saves its weights; a killed run continues from its last checkpoint.

    Args:
        estimator: A ``torch.nn.Module`` that is a TrainableEstimator.
        real: One real data set or several.
        synthetic: Rendered persons, or None for training on real data only.
        out: Folder for the weights, checkpoints and ``metrics.csv``.
        seed: Decides the order of the data and its augmentation.
        name: Shown beside the progress bar.
        bar_row: Line of the progress bar, for several trainings at once.

    Returns:
        The file with the weights. If it is there already it is loaded and nothing is trained.

    Raises:
        RunError: ``out`` holds a training with other settings, data sizes or starting weights.
        InputError: The estimator is no torch module, or the data do not fit the settings.
    """
    settings = settings or FineTuningSettings()
    if not isinstance(estimator, torch.nn.Module):
        raise InputError(
            "fine_tune saves and restores weights, so it needs a torch module",
            where=f"estimator '{estimator.spec.name}'",
            got=type(estimator).__name__,
            fix="derive it from torch.nn.Module, or train it with PoseEstimatorModule and a Trainer of your own",
        )
    out = Path(out)
    weights = out / WEIGHTS
    config = {
        "kind": "fine-tuning",
        "settings": asdict(settings),
        "seed": seed,
        "estimator": estimator.spec.name,
        "weights": fingerprint(estimator),
        "real": _size(real),
        "synthetic": None if synthetic is None else _size(synthetic),
    }
    # The ledger refuses a folder that holds a training with other settings.
    with RunLedger(out, config):
        if weights.exists():
            load_into(estimator, load_weights(weights), where=weights)
        else:
            bar = _NamedProgressBar(name, bar_row) if progress else None
            _train(estimator, real, synthetic, out, settings, seed, bar)
            save_weights(weights, estimator.state_dict(), {"estimator": estimator.spec.name, "steps": settings.steps})
    return weights


def train_side_by_side(jobs: Sequence[Mapping[str, Any]], processes: int) -> list[Path]:
    """:func:`fine_tune` of several jobs at once, each in a process of its own; returns the files with the weights.

    Args:
        jobs: Keyword arguments of :func:`fine_tune`. They are sent to the processes, so they must pickle.
        processes: Jobs at the same time; torch's threads are divided among them.
    """
    threads = max(1, torch.get_num_threads() // processes)
    others = set(multiprocessing.active_children())
    # A forked process would hang in the thread pools that torch has already started here.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            running = [pool.submit(_train_job, dict(job), threads, row, is_quiet()) for row, job in enumerate(jobs)]
            return [job.result() for job in running]
        except BaseException:
            # The pool would wait for them to the end; their checkpoints are on disk.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise


def _train_job(job: dict[str, Any], threads: int, row: int, quiet: bool) -> Path:
    torch.set_num_threads(threads)
    if quiet:
        quiet_lightning()
    return fine_tune(**job, bar_row=row)


def _size(data: Sequence) -> int:
    return sum(len(part) for part in data) if len(data) and not isinstance(data[0], Person) else len(data)


def _train(
    estimator: TrainableEstimator,
    real: Sequence[Person] | Sequence[Sequence[Person]],
    synthetic: Sequence[Person] | None,
    out: Path,
    settings: FineTuningSettings,
    seed: int,
    bar: TQDMProgressBar | None,
) -> None:
    pl.seed_everything(seed, verbose=False)
    data = MixedPoseDataModule(
        real=real,
        synthetic=synthetic,
        synthetic_fraction=settings.synthetic_fraction if synthetic is not None else 0.0,
        batch_size=settings.batch_size,
        spec=estimator.spec,
        seed=seed,
        num_workers=settings.num_workers,
    )
    module = PoseEstimatorModule(estimator, settings.learning_rate, schedule=settings.schedule)
    checkpoint = ModelCheckpoint(
        dirpath=out / "checkpoints", save_last=True, every_n_train_steps=settings.checkpoint_every, save_top_k=0
    )
    trainer = pl.Trainer(
        max_steps=settings.steps,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        logger=CSVLogger(out, name="", version=""),
        log_every_n_steps=10,
        callbacks=[checkpoint, *([bar] if bar else [])],
        enable_progress_bar=bar is not None,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    last = out / "checkpoints" / "last.ckpt"
    fit(trainer, module, data, last if last.exists() else None)


class _NamedProgressBar(TQDMProgressBar):
    def __init__(self, name: str, row: int) -> None:
        super().__init__(refresh_rate=5, process_position=row)
        self._name = name

    def init_train_tqdm(self):
        bar = super().init_train_tqdm()
        bar.set_description(self._name)
        return bar
