"""Real and synthetic persons mixed with an exact share per batch, the same for every run and number of workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from posesyn.data.batches import Neighbours, collate, training_sample
from posesyn.data.crop_augmentation import CropAugmentation
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import InputError, RunError
from posesyn.interfaces import EstimatorSpec
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.filtering.clip_filter import FilteredClips
from posesyn.types import Clip, Person
from posesyn.types.looks import short_repr

REAL, SYNTHETIC = 0, 1
# (stream, position in the stream's data, pass over the data)
Draw = tuple[int, int, int]


def synthetic_count(batch_size: int, fraction: float) -> int:
    """Synthetic persons in every batch: ``fraction * batch_size`` rounded to the nearest integer, halves upwards.

    A batch of 10 with 0.25 has 3.

    Raises:
        InputError: A fraction outside 0..1, or one that rounds away one of the two kinds.
    """
    where = "MixedPoseDataModule"
    if not 0 <= fraction <= 1 or batch_size < 1:
        got = f"{fraction} and {batch_size}"
        raise InputError("synthetic_fraction must be in 0..1 and batch_size positive", where=where, got=got)
    count = math.floor(fraction * batch_size + 0.5)
    if 0 < fraction < 1 and count in (0, batch_size):
        what = f"a batch of {batch_size} cannot hold a synthetic fraction of {fraction:g}"
        fix = "raise batch_size, or set the fraction to 0 or 1"
        raise InputError(what, where=where, got=f"{count} synthetic persons per batch", fix=fix)
    return count


class MixedBatchSampler:
    """Endless batches of draws; which draws batch ``g`` holds depends on (seed, g) and the sizes only.

    Each stream (real, synthetic) of ``sizes`` persons, ``counts`` of them in a batch, is read in passes. A pass visits
    every position once, in an order drawn from (seed, stream, pass), and goes on across batches and epochs of ``steps``
    batches, so that data smaller than a batch, or of a length that the batch does not divide, is repeated evenly and
    nothing is left out.
    """

    def __init__(self, sizes: tuple[int, int], counts: tuple[int, int], seed: int, steps: int) -> None:
        self.sizes, self.counts, self.seed, self.steps = sizes, counts, seed, steps
        self.next = 0  # first batch of the next epoch
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, list[Draw]]]]:
        start = self.next
        for index in range(start, start + self.steps):
            yield [(index, draw) for draw in self.batch(index)]
        if self.next == start:  # a trainer counts for itself, see MixedPoseDataModule
            self.next = start + self.steps

    def batch(self, index: int) -> list[Draw]:
        """Real persons first, then synthetic ones."""
        draws = []
        for stream, (size, count) in enumerate(zip(self.sizes, self.counts)):
            for place in range(index * count, (index + 1) * count):
                number, position = divmod(place, size)
                draws.append((stream, int(self._order(stream, number)[position]), number))
        return draws

    def _order(self, stream: int, number: int) -> np.ndarray:
        if (stream, number) not in self._orders:
            # Two passes per stream are alive where a batch crosses from one into the next.
            kept = {key: order for key, order in self._orders.items() if key[0] != stream or key[1] == number - 1}
            order = rng_of(self.seed, f"order/{stream}/{number}").permutation(self.sizes[stream])
            self._orders = {**kept, (stream, number): order}
        return self._orders[stream, number]


class _Share:
    """One process's part of every batch, where several train together: all of them make the batch of one alone."""

    def __init__(self, whole: MixedBatchSampler, rank: int, processes: int) -> None:
        self.whole, self.rank, self.processes = whole, rank, processes

    def __len__(self) -> int:
        return len(self.whole)

    def __iter__(self) -> Iterator[list[tuple[int, Draw]]]:
        return (batch[self.rank :: self.processes] for batch in self.whole)


class _Samples(Dataset):
    """Draw → sample. The augmentation depends on (seed, person, pass) only, never on the worker."""

    def __init__(self, streams, spec: EstimatorSpec, augment: CropAugmentation | None, seed: int) -> None:
        self.streams, self.spec, self.augment, self.seed = streams, spec, augment, seed
        # Rendered images show one person.
        self.neighbours = Neighbours(streams[REAL], spec.neighbours) if spec.neighbours else None

    def __getitem__(self, item: tuple[int, Draw]) -> dict[str, Any]:
        index, (stream, position, number) = item
        person = self.streams[stream][position]
        rng = rng_of(self.seed, f"{stream}/{person.person_id}/{number}")
        others = self.neighbours.of(position) if self.neighbours is not None and stream == REAL else ()
        sample = training_sample(person, self.spec, self.augment, rng, stream == SYNTHETIC, others)
        return {**sample, "batch_index": np.array(index)}


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    batch = collate(samples)
    batch["batch_index"] = int(batch["batch_index"][0])
    return batch


def as_persons(data: Any, argument: str) -> Sequence[Person]:
    """Persons from what a user has: persons, several sequences of persons, clips, or a clip store; None is no person.

    Raises:
        InputError: Something else.
    """
    if data is None:
        return ()
    if isinstance(data, ClipStore):
        return RenderedClips(data)
    if not isinstance(data, Sequence | Iterable) or isinstance(data, str | bytes | Mapping):
        raise _unreadable(argument, data)
    if not isinstance(data, Sequence):
        data = list(data)
    if len(data) == 0 or isinstance(data[0], Person):
        return data
    if isinstance(data[0], Clip):
        return RenderedClips(data)
    if not all(isinstance(part, Sequence | ClipStore) for part in data):
        raise _unreadable(argument, data)
    parts: Any = [part for part in (as_persons(part, argument) for part in data) if len(part)]
    joined: Any = ConcatDataset(parts) if parts else ()
    return joined


def _dropped(data: Any) -> str | None:
    """What a filter says of clips of which none is left."""
    if not isinstance(data, FilteredClips):
        return None
    found = data.statistics()
    reasons = ", ".join(f"{reason}: {count}" for reason, count in found["reasons"].items())
    return f"the filter dropped all {found['frames']} frames of {found['clips']} clips ({reasons})"


def _unreadable(argument: str, data: Any) -> InputError:
    content = f" of {type(data[0]).__name__}" if isinstance(data, Sequence) and len(data) else ""
    return InputError(
        f"MixedPoseDataModule cannot read '{argument}'",
        expected="persons, several sequences of persons, clips or a ClipStore",
        got=f"{type(data).__name__}{content}",
    )


class _Loader(DataLoader):
    """Tells Lightning that it can be resumed; its state is that of the data module."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to do: the data module has set the sampler."""


class MixedPoseDataModule(pl.LightningDataModule):
    """Batches of :mod:`posesyn.data.batches` with the same number of synthetic persons in each.

    An epoch passes once over the real persons (over the synthetic ones where the fraction is 1), the last batch filled
    up with the beginning of the next pass. PoseSyn states no ratio of real to synthetic data: 0.5 is our own choice.

    Several processes of one training (``devices`` of the Trainer) divide every batch among them; the Trainer needs
    ``use_distributed_sampler=False`` then.

    The state that a checkpoint keeps makes a resumed training, also from the middle of an epoch, see exactly the
    batches it would have seen.

    Args:
        real: Persons, or several sequences of persons (joined: each person is seen equally often).
        synthetic: Persons, clips (iterables too) or a :class:`posesyn.storage.ClipStore`; None with a fraction of 0.
        synthetic_fraction: Share per batch, exact after the rounding of :func:`synthetic_count`.
        batch_size: Persons per batch.
        seed: Decides order and augmentation.
        num_workers: Processes that read and crop images; the batches do not depend on it.
        augment: Default: :meth:`CropAugmentation.of_spec`; none is written ``augment=False``.
        spec: What the estimator wants to see; default: that of the module being trained.
        val: Labelled persons for validation; batches of it are lists of persons.
        steps_per_epoch: Batches per epoch instead of the rule above.

    Raises:
        InputError: A stream the fraction needs is empty, or the fraction does not fit the batch.

    Example:
        >>> image, box = ps.types.ArrayImage(np.zeros((48, 64, 3), np.uint8)), np.array([8, 4, 56, 44])
        >>> persons = [ps.Person(name, image, box, np.full((17, 2), 20.0), np.ones(17), "coco17") for name in "abcd"]
        >>> spec = ps.EstimatorSpec("mine", input_size=(32, 32))
        >>> data = MixedPoseDataModule(persons, synthetic_fraction=0.0, batch_size=2, spec=spec)
        >>> [batch["images"].shape for batch in data.train_dataloader()]
        [torch.Size([2, 3, 32, 32]), torch.Size([2, 3, 32, 32])]
    """

    def __init__(
        self,
        real: Any = None,
        synthetic: Any = None,
        synthetic_fraction: float = 0.5,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        augment: CropAugmentation | bool = True,
        spec: EstimatorSpec | None = None,
        val: Sequence[Person] | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        count = synthetic_count(batch_size, synthetic_fraction)
        self.counts = (batch_size - count, count)
        self.streams = (as_persons(real, "real"), as_persons(synthetic, "synthetic"))
        for name, stream, needed in zip(("real", "synthetic"), self.streams, self.counts):
            if needed and not len(stream):
                dropped = _dropped(real if name == "real" else synthetic)
                raise InputError(
                    f"MixedPoseDataModule has no {name} persons",
                    expected=f"at least one, for a synthetic fraction of {synthetic_fraction:g}",
                    got=dropped,
                    fix="loosen the filter (a higher quantile or threshold), or render other clips" if dropped
                    else f"pass {name}=..., or set synthetic_fraction to {1 if name == 'real' else 0}",
                )  # fmt: skip
        self.batch_size, self.seed, self.num_workers, self.spec = batch_size, seed, num_workers, spec
        self.augment = augment
        self.val = as_persons(val, "val")
        leading = REAL if self.counts[REAL] else SYNTHETIC
        steps = steps_per_epoch or math.ceil(len(self.streams[leading]) / self.counts[leading])
        sizes = tuple(map(len, self.streams))
        self.sampler = MixedBatchSampler(sizes, self.counts, seed, steps)
        self._trained = 0

    def __repr__(self) -> str:
        real, synthetic = map(len, self.streams)
        parts = {"real": real, "synthetic": synthetic, "batch_size": self.batch_size, "seed": self.seed}
        return short_repr(self, **parts, synthetic_per_batch=self.counts[SYNTHETIC], num_workers=self.num_workers)

    def _spec(self) -> EstimatorSpec:
        module = None if self.trainer is None else self.trainer.lightning_module
        spec = self.spec or getattr(module, "spec", None)
        if spec is None:
            fix = "pass spec=estimator.spec, or use it with a Trainer and a PoseEstimatorModule"
            raise InputError("MixedPoseDataModule does not know what the estimator wants to see", fix=fix)
        return spec

    def train_dataloader(self) -> DataLoader:
        spec = self._spec()
        augment = CropAugmentation.of_spec(spec) if self.augment is True else (self.augment or None)
        samples = _Samples(self.streams, spec, augment, self.seed)
        processes = 1 if self.trainer is None else self.trainer.world_size
        if self.batch_size % processes:
            raise InputError(f"a batch of {self.batch_size} cannot be divided among {processes} devices",
                             where="MixedPoseDataModule", fix="choose a multiple")  # fmt: skip
        batches = self.sampler if processes == 1 else _Share(self.sampler, self.trainer.global_rank, processes)
        workers: dict[str, Any] = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return _Loader(samples, batch_sampler=batches, collate_fn=_collate, **workers)

    def val_dataloader(self) -> DataLoader | list:
        if not len(self.val):
            return []
        return DataLoader(self.val, self.batch_size, collate_fn=list)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        # Validation batches are lists of persons, which hold no tensors and are not to be walked through.
        return batch if isinstance(batch, list) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        # Called when a batch is about to be trained on, however far the loader has read ahead, and however often the
        # trainer has started to iterate without training.
        if self.trainer is not None and self.trainer.training and isinstance(batch, dict):
            self._trained = self.sampler.next = batch["batch_index"] + 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        sizes, counts = list(self.sampler.sizes), list(self.counts)
        return {"next_batch": self._trained, "sizes": sizes, "counts": counts, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken.

        Raises:
            RunError: The state was taken with other data, batch size, fraction or seed.
        """
        own = self.state_dict()
        different = [name for name in ("sizes", "counts", "seed") if state_dict.get(name) != own[name]]
        if different:
            wanted, got = ({name: state.get(name) for name in different} for state in (state_dict, own))
            fix = "use the settings it was started with, or start anew in another folder"
            raise RunError("a training cannot be resumed with other data", where="MixedPoseDataModule",
                           expected=wanted, got=got, fix=fix)  # fmt: skip
        self._trained = self.sampler.next = state_dict["next_batch"]
