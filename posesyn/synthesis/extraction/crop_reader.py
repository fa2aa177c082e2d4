"""Decodes the images of coming batches while the network works on the present one. Loads no torch: worker processes
import this module alone."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np

from posesyn.errors import FileError
from posesyn.types import ArrayImage, ImageSource, Person

DAMAGED = "its image cannot be read: "
LoadedPerson = tuple[Person, np.ndarray | str]


def load_image(image: ImageSource) -> np.ndarray | str:
    """The pixels, or why there are none."""
    try:
        return image.load()
    except FileError as error:
        return DAMAGED + str(error)


class ImageReader:
    """Batches of persons with their pixels; use it as a context manager.

    Args:
        num_threads: Threads that decode (Pillow frees the interpreter while it decodes).
        num_processes: Processes that decode instead, for many small files, slow file systems or formats whose decoder
            holds the interpreter; 0 takes threads. Images in memory never travel to a process.
        ahead: Batches decoded beyond the one in work; bounds the memory.
    """

    def __init__(self, num_threads: int = 2, num_processes: int = 0, ahead: int = 2) -> None:
        self._threads, self._processes, self._ahead = num_threads, num_processes, ahead
        self._pool: Executor | None = None

    def __enter__(self) -> ImageReader:
        # A forked child of a process with torch's threads can hang.
        spawn, count = multiprocessing.get_context("spawn"), self._processes
        self._pool = ProcessPoolExecutor(count, mp_context=spawn) if count else ThreadPoolExecutor(self._threads)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def batches(self, persons: Sequence[Person], batches: Sequence[range]) -> Iterator[list[LoadedPerson]]:
        """The persons of each range of rows, with their pixels or the reason why there are none."""
        waiting: deque[list[tuple[Person, Future]]] = deque()
        queue = iter(batches)
        for rows in itertools.islice(queue, self._ahead):
            waiting.append(self._submit([persons[row] for row in rows]))
        while waiting:
            batch = waiting.popleft()
            for rows in itertools.islice(queue, 1):
                waiting.append(self._submit([persons[row] for row in rows]))
            yield [(person, load.result()) for person, load in batch]

    def _submit(self, persons: Sequence[Person]) -> list[tuple[Person, Future]]:
        batch, loads = [], {}
        for person in persons:
            # Persons of one image share one decoding; sources that do not hash are loaded one by one.
            key = person.image if _hashable(person.image) else id(person.image)
            if key not in loads:
                loads[key] = self._load(person.image)
            batch.append((person, loads[key]))
        return batch

    def _load(self, image: ImageSource) -> Future:
        if isinstance(image, ArrayImage):
            done: Future = Future()
            done.set_result(image.pixels)
            return done
        return self._pool.submit(load_image, image)  # type: ignore[union-attr]


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
