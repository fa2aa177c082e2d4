"""PoseAug as a Lightning module: augmentor, discriminators and lifter, trained in alternating passes.

The file is read from top to bottom: :class:`PoseAugBatches` lists the steps of an epoch,
:meth:`PoseAugModule.training_step` does each, and the methods behind it stand in the order in which an epoch comes to
them. Schedule and constants: jfzhang95/PoseAug ``run_poseaug.py`` and ``function_poseaug``. What the two recipes do
differently is told in :class:`~posesyn.settings.lifters.PoseAugSettings`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import InputError
from posesyn.estimators.lifters.lifter import Lifter
from posesyn.settings.lifters import PoseAugSettings
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmented, Augmentor, ViewRange
from posesyn.synthesis.augmentation.bones import bone_vectors, joints_from_bones, project_normalised, unit_bones
from posesyn.synthesis.augmentation.joint_range import FEWEST, JointLimits
from posesyn.synthesis.augmentation.losses import PartDiscriminator, ProjectionDiscriminator
from posesyn.training.lifters.health import AugmentorHealth, CollapseGuard, health_of
from posesyn.training.lifters.lifter import error_on, running_statistics_kept, weights_without_gradient
from posesyn.training.lifters.source import FakePool, PoseAugSource

LIFTER_RATES = {"semgcn": 1e-3}
_LIFTER_RATE = 1e-4
_LIMITS_FROM = 50_000  # poses that human range is read off
_FAKES_AHEAD = 8192  # fakes made at once: 3 MB
# R1 on every fourth discriminator step, four times as strong: lazy regularisation (Karras et al. 2020, section 3.1).
_PENALTY_EVERY = 4


class Work(NamedTuple):
    """One training step: what is done, row numbers of the data it is done with, and which of the two passes of the
    lifter it belongs to (0 or 1)."""

    phase: str
    rows: tuple[Tensor, ...] = ()
    lifter_pass: int = 0


class PoseAugBatches(IterableDataset):
    """Every step of one epoch; orders depend on (seed, epoch) only, so that a resumed training repeats them.

    A last batch of one pose is left out: batch normalisation has no variance there.
    """

    def __init__(self, count: int, settings: PoseAugSettings, seed: int = 0) -> None:
        self.count, self.settings, self.seed, self.epoch = count, settings, seed, 0

    def __len__(self) -> int:
        return sum(1 for _ in self._steps(0, dry=True))

    def __iter__(self) -> Iterator[Work]:
        # A generator reads the epoch when its first step is asked for: a run that is resumed gets its iterator before
        # it knows the epoch.
        epoch = self.epoch
        self.epoch += 1
        yield from self._steps(epoch)

    def _steps(self, epoch: int, dry: bool = False) -> Iterator[Work]:
        official, size = self.settings.official, self.settings.batch_size
        full, rest = divmod(self.count, size)
        batches = max(1, full + (rest > 1))
        rng = np.random.default_rng((self.seed, epoch, 1))

        def order() -> Tensor:
            return torch.zeros(self.count, dtype=torch.long) if dry else torch.from_numpy(rng.permutation(self.count))

        def batch(rows: Tensor, number: int, count: int = 1) -> Tensor:
            return rows[number * size : (number + count) * size]

        orders = [order() for _ in range(3)]
        for number in range(max(1, round((1.0 if official else self.settings.gan_share) * batches))):
            yield Work("gan", tuple(batch(rows, number) for rows in orders))
        yield Work("guard")
        if official or not self.settings.mixed:
            for lifter_pass, phase in enumerate(("fake", "real")):
                rows = order()
                for number in range(batches):
                    yield Work(phase, (batch(rows, number),), lifter_pass)
                if phase == "fake":
                    yield Work("evaluate")
        else:
            # The augmentor rests now: many fakes at once cost far less than those of one step at a time.
            ahead = max(1, _FAKES_AHEAD // size)
            for lifter_pass in range(2):
                rows, sources = order(), order()
                for number in range(batches):
                    if number % ahead == 0:
                        yield Work("augment", (batch(sources, number, ahead),), lifter_pass)
                    yield Work("mixed", (batch(rows, number),), lifter_pass)


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
                "PoseAug needs at least two pose pairs with cameras", where="PoseAugModule",
                got=f"{len(pairs)} pairs, cameras {'unknown' if pairs.cameras is None else 'known'}",
                fix="use Human3.6M, or motions seen by a CameraRig; MPI-INF-3DHP's test file is for testing only",
            )  # fmt: skip
        self.automatic_optimization = False
        self.settings, self.seed, self.validation = settings or PoseAugSettings(), seed, validation
        options, spectral = self.settings, self.settings.spectral and not self.settings.official
        self.lifter = lifter
        views = ViewRange() if options.camera_views and not options.official else None
        self.source = PoseAugSource(pairs, options.bone_swap, views)
        limits = None
        if options.human_range and options.angles and not options.official and len(pairs) >= FEWEST:
            limits = JointLimits.of(pairs.joints_cam[:: max(1, len(pairs) // _LIMITS_FROM)], seed).table()
        steps = {"angles": options.angles, "lengths": options.lengths, "transform": options.transform}
        self.augmentor = Augmentor(**steps, views=views, joint_range=limits)
        if not options.official:
            self.augmentor.start_near(pairs.joints_cam[:, 0].mean(0))
        self.d3d, self.d2d = PartDiscriminator(spectral=spectral), ProjectionDiscriminator(spectral=spectral)
        self.average = copy.deepcopy(self.augmentor).requires_grad_(False).eval()
        self.pools = {"3d": FakePool(options.pool, seed), "2d": FakePool(options.pool, seed + 1)}
        self.batches = PoseAugBatches(len(pairs), options, seed)
        self.counter, self.candidate, self.guard = 0, None, CollapseGuard()
        self.fakes: list[tuple[Tensor, Tensor]] = []  # made ahead, a batch for each of the lifter's coming steps

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        rates = dict.fromkeys(("augmentor", "d3d", "d2d"), self.settings.learning_rate)
        rates["lifter"] = self.settings.lifter_rate or LIFTER_RATES.get(self.lifter.name, _LIFTER_RATE)
        self.rates = rates
        return [torch.optim.Adam(getattr(self, name).parameters(), value, fused=True) for name, value in rates.items()]

    def train_dataloader(self) -> DataLoader:
        # A generator of its own: the loader draws from it when it starts, before or within the epoch's seed.
        return DataLoader(self.batches, batch_size=None, generator=torch.Generator())

    def val_dataloader(self) -> list | DataLoader:
        return [] if self.validation is None else DataLoader([0], batch_size=None, generator=torch.Generator())

    # An epoch, in the order in which it happens

    def on_train_epoch_start(self) -> None:
        """Everything random of the epoch follows from (seed, epoch); rates fall by 1 - e / (epochs + 1)."""
        epoch = self.current_epoch
        self.batches.epoch = epoch
        torch.manual_seed(_seed_of(self.seed, epoch))
        self.source.swap_bones(torch.Generator().manual_seed(_seed_of(self.seed, epoch, 7)))
        self.fakes, self.candidate = [], None
        for name in self.rates:
            self._set_rate(name, 1 - epoch / (self.settings.epochs + 1))
        if self.guard.healthy is None:
            self.guard.remember(*self._guarded())

    def training_step(self, work: Work, index: int) -> None:
        """The GAN's pass, the guard and two passes of the lifter, which the warm-up leaves out."""
        (phase, rows, lifter_pass), settings = work, self.settings
        if phase == "gan":
            self.gan_step(*rows)
            return
        if phase == "guard":
            self._rescue_or_remember()
            if self.fakes:  # the official recipe learns from those of the GAN's pass, in a new order
                flat, target = (torch.cat(parts) for parts in zip(*self.fakes))
                order = torch.randperm(len(flat)).to(self.device).split(settings.batch_size)
                self.fakes = [(flat[part], target[part]) for part in order]
            return
        if self.current_epoch < settings.warmup:
            return
        if not settings.official:
            # Falls over the lifter's own passes, as in a training of the lifter alone with ``schedule="linear"``.
            passes = 2 * (settings.epochs - settings.warmup)
            done = 2 * (self.current_epoch - settings.warmup) + lifter_pass
            self._set_rate("lifter", max(0.0, 1 - done / (passes + 1)))
        if phase == "augment":
            made = self.source.fakes(self.average, rows[0])
            self.fakes = list(zip(*(part.split(settings.batch_size) for part in made)))
        elif phase == "mixed":
            self.lifter_step(*self.source.recorded(rows[0]), self.fakes.pop(0))
        elif phase == "real":
            self.lifter_step(*self.source.recorded(rows[0]))
        elif phase == "fake" and not settings.official:
            self.lifter_step(*self.source.fakes(self.average, rows[0]))
        elif phase == "fake" and self.fakes:
            self.lifter_step(*self.fakes.pop(0))
        elif phase == "evaluate" and settings.official and self.validation is not None:
            # The official code scores after the fakes too; the better of the two lifters of an epoch may be kept.
            value = error_on(self.lifter, self.validation)
            self.candidate = (value, copy.deepcopy(self.lifter.state_dict()))
            self.log("val/mpjpe_fake", value, batch_size=1)

    def gan_step(self, rows: Tensor, rows_3d: Tensor, rows_2d: Tensor) -> dict[str, Tensor]:
        """One augmentor step and, on every ``discriminate_every``-th call, one of both discriminators."""
        settings = self.settings
        pose, keypoints, camera = self.source(rows)
        self.lifter.train(settings.official)
        with weights_without_gradient(self.lifter, self.d3d, self.d2d):
            made = self.augmentor(pose)
            flat = project_normalised(made.pose_rt, camera)
            parts = self._augmentor_losses(pose, keypoints, camera, made, flat)
            total = sum(parts.values())
            self._step("augmentor", total)
        if not settings.official:
            with torch.no_grad():
                old_weights, new_weights = self.average.parameters(), self.augmentor.parameters()
                torch._foreach_lerp_([*old_weights], [*new_weights], 1 - settings.ema)
                for old, new in zip(self.average.buffers(), self.augmentor.buffers()):
                    old.copy_(new)  # of the normalisation: running means already
        if self.counter % settings.discriminate_every == 0:
            self._discriminate(made, flat, rows_3d, rows_2d)
        self.counter += 1
        if settings.official and self.current_epoch >= settings.warmup:
            self.fakes.append(self.source.official_fakes(made, flat))
        self._log_losses({**parts, "augmentor": total})
        return parts

    def _augmentor_losses(
        self, pose: Tensor, keypoints: Tensor, camera: Tensor, made: Augmented, flat: Tensor
    ) -> dict[str, Tensor]:
        settings, groups, parts = self.settings, self.source.groups, {}
        if settings.weight_2d and settings.transform:
            parts["adversarial_2d"] = settings.weight_2d * losses.generator_adversarial(None, self.d2d(flat))
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
        if not settings.feedback or (warm and not settings.official):
            return parts
        with torch.set_grad_enabled(not warm):
            flat_ba = project_normalised(made.pose_ba, camera)
            with torch.no_grad():
                original = losses.group_errors(self.lifter(keypoints), pose, groups)
            if self.lifter.training:
                lifted = self.lifter(flat_ba), self.lifter(flat)
            else:
                lifted = self.lifter(torch.cat((flat_ba, flat))).chunk(2)
            ba = losses.group_errors(lifted[0], made.pose_ba, groups)
            rt = losses.group_errors(lifted[1], made.pose_rt, groups)
        if not warm:
            weights = losses.FeedbackWeights()
            # The published epoch counts from 1 here, and from 0 for the rates (jfzhang95/PoseAug, run_poseaug.py).
            terms = losses.feedback_loss(original, ba, rt, weights, self.current_epoch + 1, settings.epochs)
            parts["feedback"] = weights.angle * terms[0] + weights.transform * terms[1]
        return parts

    def _discriminate(self, made: Augmented, flat: Tensor, rows_3d: Tensor, rows_2d: Tensor) -> None:
        settings, found = self.settings, {}
        penalise = (self.counter // settings.discriminate_every) % _PENALTY_EVERY == 0
        penalise = penalise and settings.gradient_penalty > 0 and not settings.official
        # Directions are all that D3D sees: swapped bone lengths make no difference to it.
        real_3d = joints_from_bones(unit_bones(bone_vectors(self.source.poses[rows_3d])))
        for name, weight, network, real, fake in (
            ("3d", settings.weight_3d, self.d3d, real_3d, made.pose_ba),
            ("2d", settings.weight_2d, self.d2d, self.source.real_2d(rows_2d), flat),
        ):
            if not weight:
                continue
            old = self.pools[name](fake)
            real = real.detach().requires_grad_(penalise)
            scores_real, scores_fake = network(torch.cat((real, old))).split((len(real), len(old)))
            loss = losses.discriminator_adversarial(scores_real, scores_fake)
            if penalise:
                (slope,) = torch.autograd.grad(scores_real.mean(1).sum(), real, create_graph=True)
                loss = loss + _PENALTY_EVERY * settings.gradient_penalty / 2 * slope.square().sum((1, 2)).mean()
            self._step(f"d{name}", loss)
            found[f"discriminator_{name}"] = loss
        self._log_losses(found)

    def _rescue_or_remember(self) -> None:
        """Back to the last healthy weights if the augmentor has collapsed; if it is healthy, these are remembered."""
        settings, health = self.settings, self.check()
        if settings.rescue and not settings.official:
            networks, optimizers = self._guarded()
            # A collapse of the warm-up, which no lifter learns from, may mend itself.
            if health.collapsed and (self.current_epoch >= settings.warmup or not health.finite):
                self.guard.rescue(networks, optimizers)
                for pool in self.pools.values():
                    pool.clear()
            elif not health.collapsed:
                # The augmentor behind its running average must be healthy too, and every weight finite.
                finite = all(torch.isfinite(value).all() for part in networks.values() for value in part.parameters())
                with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                    if finite and not self.check(self.augmentor).collapsed:
                        self.guard.remember(networks, optimizers)
        for name, value in {**health.values(), "rescues": float(self.guard.rescues)}.items():
            self.log(f"gan/{name}", value, batch_size=1, on_step=False, on_epoch=True)

    def check(self, network: Augmentor | None = None) -> AugmentorHealth:
        """Health of an augmentor by itself, without :class:`JointRange`; None takes the one that makes the fakes."""
        if network is None:
            network = self.augmentor if self.settings.official else self.average
        return health_of(network, self.source)

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
            with running_statistics_kept(self.lifter):
                loss = loss + share * functional.mse_loss(self.lifter(fakes[0]), fakes[1])
        self._step("lifter", loss)
        self.log("train/lifter", loss.detach(), batch_size=len(keypoints), on_step=False, on_epoch=True)
        return loss.detach()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/mpjpe", error_on(self.lifter, self.validation), prog_bar=True, batch_size=1)

    def offers(self, metrics: Mapping[str, float]) -> list[tuple[float, dict[str, Tensor]]]:
        """(validation error, weights) of this epoch's lifters that may be kept: none in the warm-up, which does not
        train it; two in the official recipe, which scores in the middle of an epoch too."""
        if "val/mpjpe" not in metrics or self.current_epoch < self.settings.warmup:
            return []
        found = [(metrics["val/mpjpe"], self.lifter.state_dict())]
        return found if self.candidate is None else [*found, self.candidate]

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

    # What several steps share

    def _optimizer(self, name: str) -> Any:
        found: Any = self.optimizers()
        return found[list(self.rates).index(name)]

    def _guarded(self) -> tuple[dict[str, nn.Module], list[Any]]:
        networks = {name: getattr(self, name) for name in ("augmentor", "average", "d3d", "d2d")}
        return networks, [self._optimizer(name) for name in ("augmentor", "d3d", "d2d")]

    def _set_rate(self, name: str, factor: float) -> None:
        for group in self._optimizer(name).param_groups:
            group["lr"] = self.rates[name] * factor

    def _step(self, name: str, loss: Tensor) -> None:
        optimizer = self._optimizer(name)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(getattr(self, name).parameters(), self.settings.clip)
        optimizer.step()

    def _log_losses(self, parts: dict[str, Tensor]) -> None:
        values = {f"gan/{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, batch_size=1, on_step=False, on_epoch=True)


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
