"""One resumable fine-tuning run: real and synthetic persons in, weights out."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from tqdm import tqdm

from posesyn.errors import InputError, PosesynError, RunError
from posesyn.evaluation.scoring import evaluate
from posesyn.interfaces import EstimatorSpec, TrainableEstimator
from posesyn.settings.training import FineTuningSettings, TrainerSettings
from posesyn.storage.checkpoints import fingerprint, load_into, load_weights, save_weights
from posesyn.storage.seeds import seed_of
from posesyn.training.estimators.mixed_data import MixedPoseDataModule
from posesyn.training.runs import run_training
from posesyn.types import Person

# SPIN's rate (nkolot/SPIN), which PoseGen keeps for fine-tuning (mgholamikn/PoseGen).
LEARNING_RATE = 5e-5


class PoseEstimatorModule(pl.LightningModule):
    """Trains an estimator with its own losses; validates MPJPE and PA-MPJPE on labelled persons.

    Args:
        estimator: Any object with ``spec``, ``predict``, ``training_losses`` and ``parameters``; no inheritance needed.
            One that is no ``torch.nn.Module`` stays on the CPU unless it moves itself.
        learning_rate: Of Adam.
        freeze_batchnorm: Keep normalisation layers in eval mode: their running statistics stay those of the first
            training. PoseGen fine-tunes so (mgholamikn/PoseGen); small mixed batches would disturb them.
        weight_decay: Of Adam; SPIN has none.
        schedule: ``constant``; ``cosine`` down to 1 % over the training; or ``published``: optimiser, parameter groups
            and decay come from the estimator's own ``published_optimizers(learning_rate)``, which an estimator may
            have. Then ``learning_rate`` None is the published one, and ``weight_decay`` and ``warmup_steps`` are not
            used.
        warmup_steps: Linear rise at the start.
        max_grad_norm: Gradients are clipped to this norm; None leaves them. Our own choice.

    Raises:
        InputError: The estimator cannot be trained.

    Example:
        >>> module = PoseEstimatorModule(ps.load_estimator("hmr_small"), learning_rate=1e-4)
        >>> module.estimator.spec.skeleton
        'smpl45'
    """

    def __init__(
        self,
        estimator: TrainableEstimator,
        learning_rate: float | None = LEARNING_RATE,
        *,
        freeze_batchnorm: bool = True,
        weight_decay: float = 0.0,
        schedule: Literal["constant", "cosine", "published"] = "constant",
        warmup_steps: int = 0,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__()
        name = getattr(getattr(estimator, "spec", None), "name", type(estimator).__name__)
        missing = [
            item for item in ("spec", "predict", "training_losses", "parameters") if not hasattr(estimator, item)
        ]
        if missing:
            raise InputError(
                "the estimator cannot be fine-tuned",
                where=f"estimator '{name}'",
                expected="spec, predict(persons), training_losses(batch) and parameters()",
                got=f"no {', '.join(missing)}",
                fix="add them; CallableEstimator takes losses=... for a wrapped function",
            )
        trainable = [parameter for parameter in estimator.parameters() if parameter.requires_grad]
        if not trainable:
            raise InputError("the estimator has no trainable parameters", where=f"estimator '{name}'")
        if schedule not in ("constant", "cosine", "published"):
            raise InputError("unknown schedule", expected="'constant', 'cosine' or 'published'", got=schedule)
        if schedule == "published" and not hasattr(estimator, "published_optimizers"):
            raise InputError(
                "the estimator has no published schedule",
                where=f"estimator '{name}'",
                expected="a method published_optimizers(learning_rate)",
                fix="choose 'constant' or 'cosine'",
            )
        if schedule != "published" and learning_rate is None:
            raise InputError("only the published schedule has a learning rate of its own", fix="pass learning_rate")
        self.estimator = estimator
        if not isinstance(estimator, nn.Module):
            # Registered, so that checkpoints hold them.
            self.estimator_parameters = nn.ParameterList(estimator.parameters())
        self.learning_rate, self.weight_decay, self.freeze_batchnorm = learning_rate, weight_decay, freeze_batchnorm
        self.schedule, self.warmup_steps, self.max_grad_norm = schedule, warmup_steps, max_grad_norm

    @property
    def spec(self) -> EstimatorSpec:
        """That of the estimator; the data module crops by it."""
        return self.estimator.spec

    def train(self, mode: bool = True) -> PoseEstimatorModule:
        super().train(mode)
        if self.freeze_batchnorm:
            for layer in self.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

    def on_train_epoch_start(self) -> None:
        # predict() of an estimator in validation may have left its layers in another mode.
        self.train()

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        losses = self._checked(self.estimator.training_losses(batch))
        total = torch.stack(list(losses.values())).sum()
        count = len(batch["images"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=count)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=count)
        return total

    def _checked(self, losses: Any) -> dict[str, Tensor]:
        where = f"training_losses of estimator '{self.spec.name}'"
        if not isinstance(losses, dict) or not losses:
            raise InputError("losses must be a non-empty dict", where=where, got=type(losses).__name__)
        shapes = {name: getattr(value, "shape", type(value).__name__) for name, value in losses.items()}
        if any(not isinstance(value, Tensor) or value.ndim for value in losses.values()):
            raise InputError("every loss must be a scalar tensor", where=where, got=shapes)
        bad = [name for name, value in losses.items() if not torch.isfinite(value)]
        if bad:
            raise PosesynError(
                "the loss is not finite",
                where=f"{where}, step {self.global_step}",
                got=bad,
                fix="lower the learning rate, or look for damaged labels in the data",
            )
        return losses

    def validation_step(self, batch: list[Person], index: int) -> None:
        result = evaluate(self.estimator, batch, batch_size=len(batch))
        for name, errors in (("val/mpjpe_mm", result.mpjpe_mm), ("val/pa_mpjpe_mm", result.pa_mpjpe_mm)):
            self.log(name, float(errors.mean()), prog_bar=True, batch_size=len(batch), on_epoch=True)

    def configure_optimizers(self) -> Any:
        if self.schedule == "published":
            return self.estimator.published_optimizers(self.learning_rate)
        parameters = [parameter for parameter in self.estimator.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(parameters, self.learning_rate, weight_decay=self.weight_decay)
        if self.schedule == "constant" and not self.warmup_steps:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches) if self.schedule == "cosine" else 0

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
            done = min(1.0, step / steps) if steps else 0.0
            return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        value = self.max_grad_norm if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, value, gradient_clip_algorithm or "norm")


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
    trainer: TrainerSettings | None = None,
    logger: Any = False,
    callbacks: Sequence[pl.Callback] = (),
) -> Path:
    """Trains ``estimator`` in place and saves its weights; a killed run continues from its last checkpoint.

    Args:
        estimator: A ``torch.nn.Module`` that is a TrainableEstimator.
        real: One real data set or several.
        synthetic: Rendered persons, or None for training on real data only.
        out: Folder for the weights, ``last.ckpt`` and ``curves.csv``.
        seed: Decides the order of the data and its augmentation.
        name: Shown beside the progress bar.
        bar_row: Line of the progress bar, for several trainings at once.
        trainer, logger, callbacks: See :func:`posesyn.training.runs.run_training`.

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
    if (out / "checkpoints").is_dir() and not (out / WEIGHTS).exists():
        raise RunError("the folder holds a training of an earlier version of posesyn", where=out,
                       fix="choose another folder")  # fmt: skip
    config = {
        "kind": "fine-tuning",
        # Whole, as earlier versions wrote it; how many processes read images changes nothing.
        "settings": {**asdict(settings), "num_workers": 0},
        "seed": seed,
        "estimator": estimator.spec.name,
        "weights": fingerprint(estimator),
        "real": _size(real),
        "synthetic": None if synthetic is None else _size(synthetic),
    }
    # NumPy's global generator takes 32 bits; the stages before take any whole number.
    pl.seed_everything(seed if 0 <= seed < 2**32 else seed_of(seed, "fine-tuning") % 2**32, verbose=False)
    data = MixedPoseDataModule(
        real=real,
        synthetic=synthetic,
        synthetic_fraction=settings.synthetic_fraction if synthetic is not None else 0.0,
        batch_size=settings.batch_size,
        spec=estimator.spec,
        seed=seed,
        num_workers=settings.num_workers,
    )
    return run_training(
        PoseEstimatorModule(estimator, settings.learning_rate, schedule=settings.schedule),
        estimator,
        out,
        config,
        weights=WEIGHTS,
        save=lambda path, _: save_weights(
            path, estimator.state_dict(), {"estimator": estimator.spec.name, "steps": settings.steps}
        ),
        load=lambda path: load_into(estimator, load_weights(path), where=path),
        data=data,
        steps=settings.steps,
        every=settings.checkpoint_every,
        trainer=trainer,
        logger=logger,
        callbacks=callbacks,
        progress=progress,
        name=name,
        row=bar_row,
    )


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
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start_process, initargs=(context.RLock(), threads)
    ) as pool:
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
