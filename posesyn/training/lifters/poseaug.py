"""PoseAug as a Lightning module: augmentor, discriminators and lifter, trained in alternating passes.

Schedule and constants: jfzhang95/PoseAug ``run_poseaug.py`` and ``function_poseaug``. What the two recipes do
differently is told in :class:`~posesyn.settings.lifters.PoseAugSettings`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import InputError
from posesyn.estimators.lifters.lifter import Lifter
from posesyn.settings.lifters import PoseAugSettings
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmented, Augmentor, ViewRange
from posesyn.synthesis.augmentation.bones import bone_vectors, joints_from_bones, project_normalised, unit_bones
from posesyn.synthesis.augmentation.discriminators import PartDiscriminator, ProjectionDiscriminator
from posesyn.synthesis.augmentation.joint_range import FEWEST, JointLimits
from posesyn.training.lifters.health import Health, PoseAugGuard, frozen, in_picture, measure, statistics_held
from posesyn.training.lifters.lifter import error_on
from posesyn.training.lifters.source import FakePool, PoseAugBatches, PoseAugSource, Work

LIFTER_RATES = {"semgcn": 1e-3}
_LIFTER_RATE = 1e-4
_LIMITS_FROM = 50_000  # poses that human range is read off
_CHECKED = 2048  # poses a health check looks at
# R1 on every fourth discriminator step, four times as strong: lazy regularisation (Karras et al. 2020, section 3.1).
_PENALTY_EVERY = 4


class PoseAugModule(pl.LightningModule):
    """Trains a lifter together with an augmentor that makes its training poses harder.

    Args:
        lifter: The network; the published schedule starts from one trained alone.
        pairs: Training data with cameras.
        validation: Data the best epoch is chosen on, logged as ``val/mpjpe``.
        settings: As published by default, with the fixes listed there.
        seed: Decides orders, noise and swaps.

    Raises:
        InputError: Pairs without cameras, or fewer than two.
    """

    def __init__(
        self,
        lifter: Lifter,
        pairs: PosePairs,
        validation: PosePairs | None = None,
        settings: PoseAugSettings | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if pairs.cameras is None or len(pairs) < 2:
            raise InputError(
                "PoseAug needs at least two pose pairs with cameras",
                where="PoseAugModule",
                got=f"{len(pairs)} pairs, cameras {'unknown' if pairs.cameras is None else 'known'}",
                fix="use Human3.6M, or motions seen by a CameraRig; MPI-INF-3DHP's test file is for testing only",
            )
        self.automatic_optimization = False
        self.settings, self.seed, self.validation = settings or PoseAugSettings(), seed, validation
        options, spectral = self.settings, self.settings.spectral and not self.settings.official
        self.lifter = lifter
        views = ViewRange() if options.camera_views and not options.official else None
        self.source = PoseAugSource(pairs, options.bone_swap, views)
        limits = None
        if options.human_range and options.angles and not options.official and len(pairs) >= FEWEST:
            limits = JointLimits.of(pairs.joints_cam[:: max(1, len(pairs) // _LIMITS_FROM)], seed).table()
        self.augmentor = Augmentor(
            angles=options.angles,
            lengths=options.lengths,
            transform=options.transform,
            views=views,
            joint_range=limits,
        )
        if not options.official:
            self.augmentor.start_near(pairs.joints_cam[:, 0].mean(0))
        self.d3d, self.d2d = PartDiscriminator(spectral=spectral), ProjectionDiscriminator(spectral=spectral)
        self.average = copy.deepcopy(self.augmentor).requires_grad_(False).eval()
        self.pools = {"3d": FakePool(options.pool, seed), "2d": FakePool(options.pool, seed + 1)}
        self.batches = PoseAugBatches(len(pairs), options, seed)
        self.counter, self.candidate, self.guard = 0, None, PoseAugGuard()
        self.fakes: list[tuple[Tensor, Tensor]] = []

    # Lightning

    def offers(self, metrics: Mapping[str, float]) -> list[tuple[float, dict[str, Tensor]]]:
        """(validation error, weights) of this epoch's lifters that may be kept: none in the warm-up, which does not
        train it; two in the official recipe, which scores in the middle of an epoch too."""
        if "val/mpjpe" not in metrics or self.current_epoch < self.settings.warmup:
            return []
        found = [(metrics["val/mpjpe"], self.lifter.state_dict())]
        return found if self.candidate is None else [*found, self.candidate]

    def train_dataloader(self) -> DataLoader:
        # A generator of its own: the loader draws from it when it starts, before or within the epoch's seed.
        return DataLoader(self.batches, batch_size=None, generator=torch.Generator())

    def val_dataloader(self) -> list | DataLoader:
        return [] if self.validation is None else DataLoader([0], batch_size=None, generator=torch.Generator())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        rate = self.settings.learning_rate
        rates = {name: rate for name in ("augmentor", "d3d", "d2d")}
        rates["lifter"] = self.settings.lifter_rate or LIFTER_RATES.get(self.lifter.name, _LIFTER_RATE)
        self.rates = rates
        return [torch.optim.Adam(getattr(self, name).parameters(), value, fused=True) for name, value in rates.items()]

    def on_train_epoch_start(self) -> None:
        """Everything random of the epoch follows from (seed, epoch); rates fall by 1 - e / (epochs + 1).

        In the default recipe the lifter's falls over its own passes, by which it has the rate of a lifter that is
        trained alone (``schedule="linear"``) at each of its updates.
        """
        epoch = self.current_epoch
        self.batches.epoch = epoch
        torch.manual_seed(_seed_of(self.seed, epoch))
        draw = torch.Generator().manual_seed(_seed_of(self.seed, epoch, 7))
        self.source.swap(draw)
        self.fakes, self.candidate = [], None
        for name in self.rates:
            self._set_rate(name, 1 - epoch / (self.settings.epochs + 1))
        if self.guard.healthy is None:
            self.guard.remember(*self._gan())

    def training_step(self, work: Work, index: int) -> None:
        if work.phase == "gan":
            self.gan_step(*work.rows)
        elif work.phase == "check":
            self._check()
        elif self.current_epoch >= self.settings.warmup:
            if work.phase == "evaluate":
                self._evaluate_fakes()
            elif work.phase == "augment":
                self.fakes = [self.source.fakes(self.average, work.rows[0])]
            else:
                if not self.settings.official:
                    passes = 2 * (self.settings.epochs - self.settings.warmup)
                    done = 2 * (self.current_epoch - self.settings.warmup) + work.lifter_pass
                    self._set_rate("lifter", max(0.0, 1 - done / (passes + 1)))
                self.lifter_step(*self._lifter_batch(work))

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/mpjpe", error_on(self.lifter, self.validation), prog_bar=True, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["poseaug"] = {
            "counter": self.counter,
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "guard": self.guard.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["poseaug"]
        self.counter = state["counter"]
        self.guard.load_state_dict(state["guard"])
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])

    # Steps

    def gan_step(self, rows: Tensor, rows_3d: Tensor, rows_2d: Tensor) -> dict[str, Tensor]:
        """One augmentor step and, on every ``discriminate_every``-th call, one of both discriminators."""
        settings, (g, d3, d2, _) = self.settings, self.optimizers()
        pose, keypoints, camera = self.source(rows)
        if settings.official:
            self.lifter.train()
        else:
            self.lifter.eval()
        with frozen(self.lifter, self.d3d, self.d2d):
            made = self.augmentor(pose)
            flat_rt = project_normalised(made.pose_rt, camera)
            parts = self._generator_losses(pose, keypoints, camera, made, flat_rt)
            total = sum(parts.values())
            self._step(g, total, self.augmentor)
        self._average()
        if self.counter % settings.discriminate_every == 0:
            penalise = (self.counter // settings.discriminate_every) % _PENALTY_EVERY == 0
            self._discriminate(d3, d2, made, flat_rt, rows_3d, rows_2d, penalise)
        self.counter += 1
        if settings.official and self.current_epoch >= settings.warmup:
            self.fakes.append(self.source.kept(made, flat_rt))
        self._log_losses({**parts, "augmentor": total})
        return parts

    def lifter_step(
        self, keypoints: Tensor, targets: Tensor, fakes: tuple[Tensor, Tensor] | None = None
    ) -> Tensor | None:
        """One step of the lifter on root-relative poses; a batch of one is left out.

        ``fakes`` are normalised by themselves and leave the running statistics alone: these belong to real poses, and
        with fakes in them the error on real ones swings with the augmentor (MLP, validation: by 10 mm between epochs).
        """
        if len(keypoints) < 2:
            return None
        self.lifter.train()
        if fakes is None or len(fakes[0]) < 2:
            loss = functional.mse_loss(self.lifter(keypoints), targets)
        else:
            share = self.settings.fake_share
            loss = (1 - share) * functional.mse_loss(self.lifter(keypoints), targets)
            with statistics_held(self.lifter):
                loss = loss + share * functional.mse_loss(self.lifter(fakes[0]), fakes[1])
        self._step(self.optimizers()[3], loss, self.lifter)
        self.log("train/lifter", loss.detach(), batch_size=len(keypoints), on_step=False, on_epoch=True)
        return loss.detach()

    def _generator_losses(
        self, pose: Tensor, keypoints: Tensor, camera: Tensor, made: Augmented, flat_rt: Tensor
    ) -> dict[str, Tensor]:
        settings, parts = self.settings, {}
        if settings.weight_2d and settings.transform:
            parts["adversarial_2d"] = settings.weight_2d * losses.generator_adversarial(None, self.d2d(flat_rt))
        if settings.weight_3d and settings.angles:
            parts["adversarial_3d"] = settings.weight_3d * losses.generator_adversarial(None, self.d3d(made.pose_ba))
        turned, scaled = losses.change_loss(made.angle_change, made.length_ratios)
        parts["change"] = settings.weight_change * (turned + scaled)
        views_drawn = self.source.views is not None and made.rotation_share is not None
        if settings.weight_spread and views_drawn and len(pose) > 1:
            parts["spread"] = settings.weight_spread * losses.spread_loss(made.rotation_share)
        warm = self.current_epoch < settings.warmup
        # The feedback of the warm-up is not used; the official code computes it all the same, and the lifter's
        # normalisation drifts by that.
        if settings.feedback and (settings.official or not warm):
            with torch.set_grad_enabled(not warm):
                fed = self._feedback(pose, keypoints, camera, made, flat_rt)
            if not warm:
                parts["feedback"] = fed
        return parts

    def _feedback(self, pose: Tensor, keypoints: Tensor, camera: Tensor, made: Augmented, flat_rt: Tensor) -> Tensor:
        flat_ba = project_normalised(made.pose_ba, camera)
        with torch.no_grad():
            original = losses.group_errors(self.lifter(keypoints), pose, self.source.groups)
        if self.lifter.training:
            lifted = self.lifter(flat_ba), self.lifter(flat_rt)
        else:
            lifted = self.lifter(torch.cat((flat_ba, flat_rt))).chunk(2)
        ba = losses.group_errors(lifted[0], made.pose_ba, self.source.groups)
        rt = losses.group_errors(lifted[1], made.pose_rt, self.source.groups)
        weights = losses.FeedbackWeights()
        # The published epoch counts from 1 here, and from 0 for the rates (jfzhang95/PoseAug, run_poseaug.py).
        terms = losses.feedback_loss(original, ba, rt, weights, self.current_epoch + 1, self.settings.epochs)
        return weights.angle * terms[0] + weights.transform * terms[1]

    def _discriminate(
        self, d3: Any, d2: Any, made: Augmented, flat: Tensor, rows_3d: Tensor, rows_2d: Tensor, penalise: bool
    ) -> None:
        found = {}
        # Directions are all that D3D sees: swapped bone lengths make no difference to it.
        real_3d = joints_from_bones(unit_bones(bone_vectors(self.source.poses[rows_3d])))
        for name, network, optimizer, real, fake in (
            ("3d", self.d3d, d3, real_3d, made.pose_ba),
            ("2d", self.d2d, d2, self.source.seen(rows_2d), flat),
        ):
            weight = getattr(self.settings, f"weight_{name}")
            if not weight:
                continue
            old = self.pools[name](fake)
            penalty_due = penalise and self.settings.gradient_penalty > 0 and not self.settings.official
            real = real.detach().requires_grad_(penalty_due)
            scores_real, scores_fake = network(torch.cat((real, old))).split((len(real), len(old)))
            loss = losses.discriminator_adversarial(scores_real, scores_fake)
            if penalty_due:
                (slope,) = torch.autograd.grad(scores_real.mean(1).sum(), real, create_graph=True)
                norm = slope.square().sum((1, 2)).mean()
                loss = loss + _PENALTY_EVERY * self.settings.gradient_penalty / 2 * norm
            self._step(optimizer, loss, network)
            found[f"discriminator_{name}"] = loss
        self._log_losses(found)

    def _lifter_batch(self, work: Work) -> tuple[Any, ...]:
        if work.phase == "real":
            return self.source.recorded(work.rows[0])
        if work.phase == "mixed":
            return (*self.source.recorded(work.rows[0]), self._kept_fakes(work.number))
        if not self.settings.official:
            return self.source.fakes(self.average, work.rows[0])
        if work.number == 0 and self.fakes:
            joined = tuple(torch.cat(parts) for parts in zip(*self.fakes))
            order = torch.randperm(len(joined[0])).to(self.device)
            self.fakes = [(joined[0][order], joined[1][order])]
        return self._kept_fakes(work.number)

    def _kept_fakes(self, number: int) -> tuple[Tensor, Tensor]:
        """One batch of those made before; empty if there is none."""
        flat, target = self.fakes[0] if self.fakes else self.source.nothing()
        part = slice(number * self.settings.batch_size, (number + 1) * self.settings.batch_size)
        return flat[part], target[part]

    def _evaluate_fakes(self) -> None:
        """The official code scores after the fakes too; the better of the two lifters of an epoch may be kept."""
        if self.validation is not None and self.settings.official:
            value = error_on(self.lifter, self.validation)
            self.candidate = (value, copy.deepcopy(self.lifter.state_dict()))
            self.log("val/mpjpe_fake", value, batch_size=1)

    # Health

    def _check(self) -> None:
        """Measures the augmentor between the GAN pass and the lifter's; goes back to healthy weights if it must."""
        settings, health = self.settings, self.check()
        if settings.rescue and not settings.official:
            # A collapse of the warm-up, which no lifter learns from, may mend itself.
            if health.collapsed and (self.current_epoch >= settings.warmup or not health.finite):
                self.guard.rescue(*self._gan())
                for pool in self.pools.values():
                    pool.clear()
            elif not health.collapsed and self._sound():
                self.guard.remember(*self._gan())
        for name, value in {**health.values(), "rescues": float(self.guard.rescues)}.items():
            self.log(f"gan/{name}", value, batch_size=1, on_step=False, on_epoch=True)

    def _sound(self) -> bool:
        """Whether the augmentor behind its running average is healthy too, and every weight finite."""
        networks = self._gan()[0].values()
        finite = all(bool(torch.isfinite(value).all()) for network in networks for value in network.parameters())
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            return finite and not self.check(self.augmentor).collapsed

    def check(self, network: Augmentor | None = None) -> Health:
        """Health of an augmentor by itself, without :class:`JointRange`; None takes the one that makes the fakes."""
        rows = torch.arange(0, len(self.source), max(1, len(self.source) // _CHECKED), device=self.device)
        if network is None:
            network = self.augmentor if self.settings.official else self.average
        was_training = network.training
        with torch.no_grad():
            pose, flat, camera = self.source(rows)
            made = network.eval()(pose, within_range=False)
            made_flat = project_normalised(made.pose_rt, camera)
        network.train(was_training)
        usable = in_picture(made.pose_rt, made_flat, self.source.aspect)
        return measure(pose, flat, made, made_flat, usable, network.joint_range)

    def _gan(self) -> tuple[dict[str, nn.Module], list[Any]]:
        networks = {name: getattr(self, name) for name in ("augmentor", "average", "d3d", "d2d")}
        return networks, self.optimizers()[:3]

    # Optimisation

    def _set_rate(self, name: str, factor: float) -> None:
        for group in self.optimizers()[list(self.rates).index(name)].param_groups:
            group["lr"] = self.rates[name] * factor

    def _step(self, optimizer: Any, loss: Tensor, network: nn.Module) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip)
        optimizer.step()

    def _average(self) -> None:
        """Weights by a running mean; buffers of the normalisation are running means already."""
        if self.settings.official:
            return
        with torch.no_grad():
            pairs = list(zip(self.average.parameters(), self.augmentor.parameters()))
            torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - self.settings.ema)
            for old, new in zip(self.average.buffers(), self.augmentor.buffers()):
                old.copy_(new)

    def _log_losses(self, parts: dict[str, Tensor]) -> None:
        values = {f"gan/{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, batch_size=1, on_step=False, on_epoch=True)


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
