"""One resumable fine-tuning run: real and synthetic persons in, weights out."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from posesyn.errors import InputError, RunError
from posesyn.interfaces import TrainableEstimator
from posesyn.settings.base import identity
from posesyn.settings.training import FineTuningSettings, TrainerSettings
from posesyn.storage.checkpoints import fingerprint, load_into, load_weights, save_weights
from posesyn.storage.seeds import seed_of
from posesyn.training.estimators.mixed_data import MixedPoseDataModule
from posesyn.training.estimators.module import LEARNING_RATE, PoseEstimatorModule
from posesyn.training.estimators.retention import Teacher, between
from posesyn.training.runs import run_training
from posesyn.types import Person

WEIGHTS = "estimator.safetensors"
# Settings that the module takes by the same name.
_PASSED = (
    "schedule", "warmup_steps", "weight_decay", "max_grad_norm", "trunk_rate", "trunk_after", "ema_decay",
)  # fmt: skip


def fine_tune(
    estimator: TrainableEstimator,
    real: Sequence[Person] | Sequence[Sequence[Person]],
    synthetic: Sequence[Person] | Sequence[Sequence[Person]] | None,
    out: str | Path,
    settings: FineTuningSettings | None = None,
    *,
    seed: int = 0,
    name: str = "fine-tuning",
    progress: bool = True,
    bar_row: int = 0,
    trainer: TrainerSettings | None = None,
    logger: Any = False,
    callbacks: Sequence[pl.Callback] = (),
) -> Path:
    """Trains ``estimator`` in place and saves its weights; a killed run continues from its last checkpoint.

    Args:
        estimator: A ``torch.nn.Module`` that is a TrainableEstimator.
        real: One real data set or several.
        synthetic: Rendered persons, also several sequences of them, or None for training on real data only.
        out: Folder for the weights, ``last.ckpt`` and ``curves.csv``.
        seed: Decides the order of the data and its augmentation.
        name, bar_row, trainer, logger, callbacks: As for :func:`posesyn.training.runs.run_training` (``row``).

    Returns:
        The file with the weights. If it is there already it is loaded and nothing is trained.

    Raises:
        RunError: ``out`` holds a training with other settings, data sizes or starting weights.
        DivergenceError: The loss is no longer finite; the last good weights are in ``out``.
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
    if (out / "checkpoints").is_dir() and not (out / WEIGHTS).exists():
        raise RunError("the folder holds a training of an earlier version of posesyn", where=out,
                       fix="choose another folder")  # fmt: skip
    config = {
        "kind": "fine-tuning",
        "settings": identity(settings),
        "seed": seed,
        "estimator": estimator.spec.name,
        "weights": fingerprint(estimator),
        "real": _size(real),
        "synthetic": None if synthetic is None else _size(synthetic),
    }
    # NumPy's global generator takes 32 bits; the stages before take any whole number.
    pl.seed_everything(seed if 0 <= seed < 2**32 else seed_of(seed, "fine-tuning") % 2**32, verbose=False)
    fraction = settings.synthetic_fraction if synthetic is not None else 0.0
    data = MixedPoseDataModule(
        real, synthetic, fraction, settings.batch_size, seed, settings.num_workers, spec=estimator.spec
    )
    start = copy.deepcopy(estimator.state_dict()) if settings.end_share < 1 else {}
    rate = settings.learning_rate or getattr(estimator, "learning_rate", LEARNING_RATE)
    module = PoseEstimatorModule(
        estimator,
        rate,
        teacher=Teacher(estimator, settings.retain, settings.retain_reach, seed) if settings.retain else None,
        **{name: getattr(settings, name) for name in _PASSED},
    )

    def save(path: Path, _: Any) -> None:
        if path.name == WEIGHTS:
            module.finish()
            if start:
                estimator.load_state_dict(between(start, estimator.state_dict(), settings.end_share))
        save_weights(path, estimator.state_dict(), {"estimator": estimator.spec.name, "steps": settings.steps})

    return run_training(
        module, estimator, out, config, weights=WEIGHTS, save=save, data=data,
        load=lambda path: load_into(estimator, load_weights(path), where=path),
        steps=settings.steps, every=settings.checkpoint_every, trainer=trainer, logger=logger, callbacks=callbacks,
        progress=progress, name=name, row=bar_row,
    )  # fmt: skip


def train_side_by_side(jobs: Sequence[Mapping[str, Any]], processes: int) -> list[Path]:
    """:func:`fine_tune` of several jobs at once, each in a process of its own; returns the files with the weights.

    Args:
        jobs: Keyword arguments of :func:`fine_tune`. They are sent to the processes, so they must pickle.
        processes: Jobs at the same time; torch's threads are divided among them.
    """
    threads = max(1, torch.get_num_threads() // processes)
    others = set(multiprocessing.active_children())
    # A forked process would hang in the thread pools that torch has already started here.
    context = multiprocessing.get_context("spawn")
    # The lock keeps their bars from writing into each other's lines.
    started: dict[str, Any] = {"initializer": _start_process, "initargs": (context.RLock(), threads)}
    with ProcessPoolExecutor(processes, mp_context=context, **started) as pool:
        try:
            running = [pool.submit(fine_tune, **{**job, "bar_row": row}) for row, job in enumerate(jobs)]
            return [job.result() for job in running]
        except BaseException:
            # The pool would wait for them to the end; their checkpoints are on disk.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise


def _start_process(lock: Any, threads: int) -> None:
    tqdm.set_lock(lock)
    torch.set_num_threads(threads)


def _size(data: Sequence) -> int:
    return sum(len(part) for part in data) if len(data) and not isinstance(data[0], Person) else len(data)
