"""The order of a PoseAug epoch: GAN batches, a check, lifter batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from posesyn.training.poseaug_settings import PoseAugSettings

_AHEAD = 8192  # fakes made at once: 3 MB


class Work(NamedTuple):
    """One training step.

    ``phase`` is ``gan`` (rows: sources, real 3D, real 2D), ``check``, ``fake``, ``real``, ``augment`` (rows: sources of
    the next fakes), ``mixed`` (rows: data; ``number`` counts from the last ``augment``) or ``evaluate``; else
    ``number`` counts the steps of the phase. ``lifter_pass`` is 0 or 1 in the two passes of the lifter.
    """

    phase: str
    number: int
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

    @property
    def per_pass(self) -> int:
        """Batches of a pass over the data."""
        full, rest = divmod(self.count, self.settings.batch_size)
        return max(1, full + (rest > 1))

    def __iter__(self) -> Iterator[Work]:
        # A generator reads the epoch when its first step is asked for: a run that is resumed gets its iterator before
        # it knows the epoch.
        epoch = self.epoch
        self.epoch += 1
        yield from self._steps(epoch)

    def _steps(self, epoch: int, dry: bool = False) -> Iterator[Work]:
        size, passes = self.settings.batch_size, self.per_pass
        rng = np.random.default_rng((self.seed, epoch, 1))

        def order() -> Tensor:
            return torch.zeros(self.count, dtype=torch.long) if dry else torch.from_numpy(rng.permutation(self.count))

        orders = [order() for _ in range(3)]
        share = 1.0 if self.settings.official else self.settings.gan_share
        for number in range(max(1, round(share * passes))):
            yield Work("gan", number, tuple(part[number * size : (number + 1) * size] for part in orders))
        yield Work("check", 0)
        if self.settings.official or not self.settings.mixed:
            for lifter_pass, phase in enumerate(("fake", "real")):
                rows = order()
                for number in range(passes):
                    yield Work(phase, number, (rows[number * size : (number + 1) * size],), lifter_pass)
                if phase == "fake":
                    yield Work("evaluate", 0)
        else:
            # The augmentor rests now: many fakes at once cost far less than those of one step at a time.
            ahead = max(1, _AHEAD // size)
            for lifter_pass in range(2):
                data, sources = order(), order()
                for number in range(passes):
                    if number % ahead == 0:
                        yield Work("augment", number // ahead, (sources[number * size : (number + ahead) * size],))
                    rows = data[number * size : (number + 1) * size]
                    yield Work("mixed", number % ahead, (rows,), lifter_pass)
