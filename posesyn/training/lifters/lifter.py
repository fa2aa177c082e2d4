"""A lifter trained alone, as a Lightning module, its score, and what a step may leave alone in a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from posesyn import metrics, skeletons
from posesyn.data.pose_pairs.pairs import SKELETON, PosePairs
from posesyn.estimators.lifters.lifter import Lifter
from posesyn.settings.lifters import LifterSettings

# jfzhang95/PoseAug, function_baseline/config.py and its commands.
RATES = {"mlp": 1e-3, "videopose": 1e-3, "semgcn": 2e-2, "stgcn": 1e-3}
EPOCHS = {"mlp": 50, "videopose": 50, "semgcn": 100, "stgcn": 50}
_FLIP = list(skeletons.get(SKELETON).flip)
_SCORE_BATCH = 4096


class PairBatches(IterableDataset):
    """Batches of row numbers in a new order every epoch; the order depends on (seed, epoch) only.

    A last batch of one pose is left out: batch normalisation has no variance there.
    """

    def __init__(self, count: int, batch_size: int, seed: int = 0) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch_size)
        return max(1, full + (rest > 1))

    def __iter__(self) -> Iterator[Tensor]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        self.epoch += 1
        for number in range(len(self)):
            yield torch.from_numpy(order[number * self.batch_size : (number + 1) * self.batch_size])


class LifterModule(pl.LightningModule):
    """Trains a lifter on pose pairs with MSE on root-relative poses (the published baseline).

    Args:
        lifter: The network.
        pairs: Training data.
        validation: Data the best epoch is chosen on; logged as ``val/mpjpe``.
        settings: As published by default.
        seed: Decides the order of the data.
    """

    keypoints: Tensor
    targets: Tensor

    def __init__(
        self,
        lifter: Lifter,
        pairs: PosePairs,
        validation: PosePairs | None = None,
        settings: LifterSettings | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        settings = settings or LifterSettings()
        self.settings = replace(settings, epochs=settings.epochs or EPOCHS[lifter.name])
        self.lifter, self.seed, self.validation = lifter, seed, validation
        self.register_buffer("keypoints", torch.from_numpy(pairs.keypoints), persistent=False)
        self.register_buffer("targets", torch.from_numpy(pairs.centred), persistent=False)
        self.batches = PairBatches(len(pairs), self.settings.batch_size, seed)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    def val_dataloader(self) -> list | DataLoader:
        return [] if self.validation is None else DataLoader([0], batch_size=None)

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.settings
        rate = settings.learning_rate or RATES[self.lifter.name]
        optimizer = torch.optim.Adam(self.lifter.parameters(), rate, fused=True)

        def factor(step: int) -> float:
            if settings.schedule == "linear":
                return max(0.0, 1 - (step // len(self.batches)) / (settings.epochs + 1))
            return settings.decay ** ((step + 1) // settings.decay_steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        # Not counted: a resumed Lightning run may begin an iteration that it does not use.
        self.batches.epoch = self.current_epoch
        # A lifter that was loaded to go on comes in eval mode, and Lightning leaves modes as they are.
        self.lifter.train()

    def on_train_batch_start(self, rows: Tensor, index: int) -> None:
        # Dropout follows from (seed, epoch, batch), so that a resumed training repeats it. Not from the epoch alone: a
        # data loader draws from the same generator when it starts, before this epoch or within it.
        key = (self.seed, self.current_epoch, index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, rows: Tensor, index: int) -> Tensor:
        keypoints, targets = self.keypoints[rows], self.targets[rows]
        if self.settings.mirror:
            # Depends on the step only, so that a resumed training repeats it.
            chance = torch.Generator().manual_seed(hash((self.seed, self.global_step)) % 2**63)
            keypoints, targets = mirror_some(keypoints, targets, chance)
        loss = functional.mse_loss(self.lifter(keypoints), targets)
        self.log("train/loss", loss.detach(), batch_size=len(rows))
        return loss

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        nn.utils.clip_grad_norm_(self.lifter.parameters(), self.settings.clip)

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/mpjpe", error_on(self.lifter, self.validation), prog_bar=True, batch_size=1)


def mirror_some(keypoints: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors each pose of a batch with probability one half, 2D and 3D alike."""
    chosen = (torch.rand(len(keypoints), generator=generator) < 0.5).to(keypoints.device)[:, None, None]
    across = keypoints.new_tensor([-1.0, 1.0, 1.0])
    return (
        torch.where(chosen, keypoints[:, _FLIP] * across[:2], keypoints),
        torch.where(chosen, targets[:, _FLIP] * across, targets),
    )


def lift_all(lifter: Lifter, keypoints: np.ndarray, flip: bool = False) -> np.ndarray:
    """(N, 16, 2) → (N, 16, 3) root-relative, in eval mode; ``flip`` averages with the mirrored input (3DHP rule)."""
    was_training, device = lifter.training, next(lifter.parameters()).device
    lifter.eval()
    found = []
    try:
        with torch.inference_mode():
            for part in torch.from_numpy(np.asarray(keypoints, np.float32)).split(_SCORE_BATCH):
                part = part.to(device)
                made = lifter(part)
                if flip:
                    across = part.new_tensor([-1.0, 1.0, 1.0])
                    made = (made + lifter(part[:, _FLIP] * across[:2])[:, _FLIP] * across) / 2
                found.append((made - made[:, :1]).cpu())
    finally:
        lifter.train(was_training)
    return torch.cat(found).numpy()


def error_on(lifter: Lifter, pairs: PosePairs) -> float:
    """Root-relative MPJPE in mm, what epochs are chosen by."""
    return float(metrics.mpjpe(lift_all(lifter, pairs.keypoints), pairs.centred))


def score(lifter: Lifter, pairs: PosePairs, flip: bool = False) -> dict[str, float]:
    """Root-relative MPJPE and PA-MPJPE in mm, PCK@150 and AUC in percent over 16 joints, of a lifter on labelled data.

    ``flip`` averages with the mirrored input, the published rule on MPI-INF-3DHP, not on Human3.6M.
    """
    made, truth = lift_all(lifter, pairs.keypoints, flip), pairs.centred
    measures: dict[str, Any] = {"mpjpe": metrics.mpjpe, "pa_mpjpe": metrics.pa_mpjpe}
    measures |= {"pck150": metrics.pck3d, "auc": metrics.auc3d}
    return {name: float(measure(made, truth)) for name, measure in measures.items()}


@contextmanager
def weights_without_gradient(*networks: nn.Module) -> Iterator[None]:
    """No gradients of these weights; gradients pass through to the input."""
    trained = [weight for network in networks for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batches are normalised by themselves and leave the running statistics alone."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, usual):
            norm.momentum = momentum
