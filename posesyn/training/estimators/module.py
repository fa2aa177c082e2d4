"""An estimator as a Lightning module: its own losses, and what keeps a fine-tuning from blowing up and forgetting."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from posesyn.errors import DivergenceError, InputError
from posesyn.evaluation.scoring import evaluate
from posesyn.interfaces import EstimatorSpec, TrainableEstimator
from posesyn.training.estimators.retention import Teacher
from posesyn.types import Person

# SPIN's rate (nkolot/SPIN), which PoseGen keeps for fine-tuning (mgholamikn/PoseGen).
LEARNING_RATE = 5e-5


class PoseEstimatorModule(pl.LightningModule):
    """Trains an estimator with its own losses; validates MPJPE and PA-MPJPE on labelled persons.

    Args:
        estimator: Any object with ``spec``, ``predict``, ``training_losses`` and ``parameters``; no inheritance needed.
            One that is no ``torch.nn.Module`` stays on the CPU unless it moves itself.
        learning_rate: Of Adam; an estimator may name parts of its own that learn faster or slower (``part_rates``,
            submodule → factor).
        freeze_batchnorm: Keep normalisation layers in eval mode: their running statistics stay those of the first
            training. PoseGen fine-tunes so (mgholamikn/PoseGen); small mixed batches would disturb them.
        weight_decay: Of Adam; SPIN has none.
        schedule: ``constant``; ``cosine`` down to 1 % over the training; or ``published``: optimiser, parameter groups
            and decay come from the estimator's own ``published_optimizers(learning_rate)``, which an estimator may
            have. Then ``learning_rate`` None is the published one, and ``weight_decay`` and ``warmup_steps`` are not
            used.
        warmup_steps: Linear rise at the start.
        max_grad_norm: Gradients are clipped to this norm; None leaves them. Our own choice.
        trunk_rate: Factor on the rate of the estimator's ``heavy_parts`` (names of its submodules, as the networks of
            posesyn have them). Below 1 the part that sees changes less than the part that tells.
        trunk_after: Steps for which these parts stay as they are.
        ema_decay: Decay per step of a running average of the weights, which :meth:`finish` takes over; 0 for none.
        teacher: See :class:`~posesyn.training.estimators.retention.Teacher`; None teaches nothing.

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
        trunk_rate: float = 1.0,
        trunk_after: int = 0,
        ema_decay: float = 0.0,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        where = f"estimator '{getattr(getattr(estimator, 'spec', None), 'name', type(estimator).__name__)}'"
        needed = ("spec", "predict", "training_losses", "parameters")
        if missing := [item for item in needed if not hasattr(estimator, item)]:
            raise InputError(
                "the estimator cannot be fine-tuned",
                where=where,
                expected="spec, predict(persons), training_losses(batch) and parameters()",
                got=f"no {', '.join(missing)}",
                fix="add them; CallableEstimator takes losses=... for a wrapped function",
            )
        if not any(parameter.requires_grad for parameter in estimator.parameters()):
            raise InputError("the estimator has no trainable parameters", where=where)
        if schedule not in ("constant", "cosine", "published"):
            raise InputError("unknown schedule", expected="'constant', 'cosine' or 'published'", got=schedule)
        if schedule == "published" and not hasattr(estimator, "published_optimizers"):
            wanted, fix = "a method published_optimizers(learning_rate)", "choose 'constant' or 'cosine'"
            raise InputError("the estimator has no published schedule", where=where, expected=wanted, fix=fix)
        if schedule != "published" and learning_rate is None:
            raise InputError("only the published schedule has a learning rate of its own", fix="pass learning_rate")
        self.estimator: Any = estimator  # a protocol cannot say that it may be a torch module, too
        if not isinstance(estimator, nn.Module):
            # Registered, so that checkpoints hold them.
            self.estimator_parameters = nn.ParameterList(estimator.parameters())
        self.learning_rate, self.weight_decay, self.freeze_batchnorm = learning_rate, weight_decay, freeze_batchnorm
        self.schedule, self.warmup_steps, self.max_grad_norm = schedule, warmup_steps, max_grad_norm
        self.trunk_rate, self.trunk_after = trunk_rate, trunk_after
        if (trunk_rate != 1 or trunk_after) and not self._trunk():
            what, wanted = (
                "the estimator does not say which of its parts are the trunk",
                "heavy_parts, names of its submodules",
            )
            raise InputError(what, where=where, expected=wanted, fix="leave trunk_rate at 1 and trunk_after at 0")
        if ema_decay and not isinstance(estimator, nn.Module):
            raise InputError("only the weights of a torch module can be averaged", where=where)
        averaged = get_ema_multi_avg_fn(ema_decay)
        # A part of the module, so that checkpoints hold it.
        self.average = AveragedModel(self.estimator, multi_avg_fn=averaged) if ema_decay else None
        self.teacher = teacher

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

    def on_fit_start(self) -> None:
        if self.teacher is not None:
            self.teacher.to(self.device)

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        if self.teacher is not None:
            batch = self.teacher.complete(batch)
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
        if bad := [name for name, value in losses.items() if not torch.isfinite(value)]:
            self._diverged("the loss is not finite", bad)
        return losses

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.trunk_after and self.global_step < self.trunk_after:
            for parameter in self._trunk():
                parameter.grad = None
        gradients = [parameter.grad for parameter in self.estimator.parameters() if parameter.grad is not None]
        # A loss can be finite where its gradient is not; one such step destroys every weight.
        if gradients and not torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()):
            self._diverged("the gradient of the loss is not finite", None)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        # Here and not at the end of the batch, where a callback has written the checkpoint already.
        if self.average is not None:
            self.average.update_parameters(self.estimator)

    def finish(self) -> None:
        """Puts the averaged weights into the estimator, where there are any."""
        if self.average is not None:
            self.estimator.load_state_dict(self.average.module.state_dict())

    def _trunk(self) -> list[nn.Parameter]:
        parts = getattr(self.estimator, "heavy_parts", ()) if isinstance(self.estimator, nn.Module) else ()
        return [one for part in parts for one in self.estimator.get_submodule(part).parameters() if one.requires_grad]

    def _diverged(self, what: str, got: Any) -> None:
        raise DivergenceError(
            what,
            where=f"training_losses of estimator '{self.spec.name}', step {self.global_step}",
            got=got,
            fix="lower the learning rate, set max_grad_norm, or look for damaged labels in the data",
        )

    def validation_step(self, batch: list[Person], index: int) -> None:
        result = evaluate(self.estimator, batch, batch_size=len(batch))
        for name, errors in (("val/mpjpe_mm", result.mpjpe_mm), ("val/pa_mpjpe_mm", result.pa_mpjpe_mm)):
            self.log(name, float(errors.mean()), prog_bar=True, batch_size=len(batch), on_epoch=True)

    def configure_optimizers(self) -> Any:
        if self.schedule == "published":
            return self.estimator.published_optimizers(self.learning_rate)
        rate = float(self.learning_rate or 0)
        optimizer = torch.optim.Adam(self._groups(rate), rate, weight_decay=self.weight_decay)
        if self.schedule == "constant" and not self.warmup_steps:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches) if self.schedule == "cosine" else 0

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
            done = min(1.0, step / steps) if steps else 0.0
            return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def _groups(self, rate: float) -> list[dict[str, Any]]:
        """The parameters by the rate that they are to have."""
        factors: dict[int, float] = defaultdict(lambda: 1.0)
        for part, factor in getattr(self.estimator, "part_rates", {}).items():
            for parameter in self.estimator.get_submodule(part).parameters():
                factors[id(parameter)] *= factor
        for parameter in self._trunk():
            factors[id(parameter)] *= self.trunk_rate
        groups: dict[float, list[nn.Parameter]] = defaultdict(list)
        for parameter in self.estimator.parameters():
            if parameter.requires_grad:
                groups[factors[id(parameter)]].append(parameter)
        return [{"params": parameters, "lr": rate * factor} for factor, parameters in groups.items()]

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        value = self.max_grad_norm if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, value, gradient_clip_algorithm or "norm")
