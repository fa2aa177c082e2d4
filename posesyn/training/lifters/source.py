"""What PoseAug trains on: batches of data, views of them, fakes beside them and the pool that keeps earlier fakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import InputError
from posesyn.settings.lifters import PoseAugSettings
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmented, Augmentor, ViewRange
from posesyn.synthesis.augmentation.bones import project_normalised, with_bone_lengths
from posesyn.training.lifters.health import in_picture

SIZE = 4096  # jfzhang95/PoseAug, utils/gan_utils.py


class FakePool:
    """Keeps up to ``size`` samples. Once full, a coming sample is swapped for a random stored one with probability ½.

    Stored places are drawn without repetition within a batch, so that all swaps happen at once; the official loop may
    meet one place twice. The distribution of a single swap is the same.

    Args:
        size: Number of samples.
        seed: Decides the swaps.
    """

    def __init__(self, size: int = SIZE, seed: int = 0) -> None:
        if size < 1:
            raise InputError("a pool holds at least one sample", where="FakePool", got=size)
        self.size = size
        self.count = 0
        self.items: Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, fakes: Tensor) -> Tensor:
        """(B, ...) → (B, ...) of which some come from earlier batches; detached."""
        fakes = fakes.detach()
        if self.items is None:
            self.items = fakes.new_empty(self.size, *fakes.shape[1:])
        self.items = self.items.to(fakes.device)  # checkpoints are read on the CPU
        room = min(self.size - self.count, len(fakes))
        self.items[self.count : self.count + room] = fakes[:room]
        self.count += room
        rest = fakes[room:]
        if not len(rest):
            return fakes
        given = rest.clone()
        swaps = torch.nonzero(torch.rand(len(rest), generator=self.generator) < 0.5).flatten()[: self.size]
        places = torch.randperm(self.size, generator=self.generator)[: len(swaps)].to(self.items.device)
        swaps = swaps.to(self.items.device)
        given[swaps] = self.items[places]
        self.items[places] = rest[swaps]
        return torch.cat((fakes[:room], given))

    def clear(self) -> None:
        """Forgets all samples."""
        self.items, self.count = None, 0

    def state_dict(self) -> dict:
        """For checkpoints."""
        return {"items": self.items, "count": self.count, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Restores :meth:`state_dict`."""
        self.items, self.count = state["items"], state["count"]
        self.generator.set_state(state["generator"])


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


_REACHED = 0.99  # share of the poses inside the picture that fakes must keep to; detections may lie anywhere


class PoseAugSource(nn.Module):
    """The training data on the module's device, by row numbers.

    Args:
        pairs: N pose pairs with cameras.
        bone_swap: Give the poses other subjects' bone lengths, drawn anew by :meth:`swap`.
        views: Cameras that real 2D poses are also seen by; None shows them as they are.

    Attributes:
        aspect: Height / width of the picture: what the data itself reaches but for outliers, at least the square that
            fits the width.
    """

    poses: Tensor
    keypoints: Tensor
    cameras: Tensor
    templates: Tensor
    groups: Tensor
    template_of: Tensor

    def __init__(self, pairs: PosePairs, bone_swap: bool = True, views: ViewRange | None = None) -> None:
        super().__init__()
        self.bone_swap, self.views = bone_swap, views
        for name, value in (
            ("poses", pairs.joints_cam),
            ("keypoints", pairs.keypoints),
            ("cameras", pairs.cameras),
            ("templates", _templates(pairs)),
        ):
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        self.register_buffer("groups", losses.group_matrix(self.poses), persistent=False)
        self.register_buffer("template_of", torch.zeros(len(pairs), dtype=torch.long), persistent=False)
        self.aspect = max(1.0, float(np.quantile(np.abs(pairs.keypoints[..., 1]).max(1), _REACHED)))

    def __len__(self) -> int:
        return len(self.poses)

    def swap(self, generator: torch.Generator) -> None:
        """Draws whose bone lengths each pose takes."""
        drawn = torch.randint(len(self.templates), (len(self),), generator=generator)
        self.template_of = drawn.to(self.poses.device)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Poses (B, 16, 3) with the bone lengths of a random subject, their projection (B, 16, 2), cameras (B, 9).

        Lengths are replaced, not scaled: swapping the swapped poses of the epoch before, as the official code does,
        gives the same.
        """
        pose, camera = self.poses[rows], self.cameras[rows]
        if not self.bone_swap:
            return pose, self.keypoints[rows], camera
        pose = with_bone_lengths(pose, self.templates[self.template_of[rows]])
        return pose, project_normalised(pose, camera), camera

    def recorded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(keypoints, root-relative targets) as they are in the data."""
        return self.keypoints[rows], _centred(self.poses[rows])

    def seen(self, rows: Tensor) -> Tensor:
        """What D2D takes for real, (B, 16, 2): the data as it is, or as other cameras would see it."""
        pose, flat, camera = self(rows)
        if self.views is None:
            return flat
        turned = self.views.draw(pose)
        turned_flat = project_normalised(turned, camera)
        return torch.where(self._usable(turned, turned_flat), turned_flat, flat)

    def fakes(self, augmentor: Augmentor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented (keypoints, root-relative targets); in place of unusable ones their sources."""
        with torch.no_grad():
            pose, flat, camera = self(rows)
            made = augmentor(pose)
            made_flat = project_normalised(made.pose_rt, camera)
            usable = self._usable(made.pose_rt, made_flat)
            return torch.where(usable, made_flat, flat), _centred(torch.where(usable, made.pose_rt, pose))

    def kept(self, made: Augmented, flat: Tensor) -> tuple[Tensor, Tensor]:
        """The (keypoints, root-relative targets) that the official code keeps of a GAN step's fakes."""
        pose, flat = made.pose_rt.detach(), flat.detach()
        inside = in_picture(pose, flat, self.aspect, lower_bound=False)
        return flat[inside], _centred(pose)[inside]

    def nothing(self) -> tuple[Tensor, Tensor]:
        """An empty batch."""
        return self.keypoints[:0], self.poses[:0]

    def _usable(self, pose: Tensor, flat: Tensor) -> Tensor:
        return in_picture(pose, flat, self.aspect)[:, None, None]


def _centred(pose: Tensor) -> Tensor:
    return pose - pose[:, :1]


def _templates(pairs: PosePairs) -> np.ndarray:
    """(S, 15) median bone lengths of each subject."""
    _, owner = np.unique(pairs.subjects, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    parts = np.split(pairs.lengths[order], np.flatnonzero(np.diff(owner[order])) + 1)
    return np.stack([np.median(part, 0) for part in parts]).astype(np.float32)
