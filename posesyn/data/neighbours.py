"""Persons who know who else is in their image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from posesyn.types import Person


class WithNeighbours(Sequence[Person]):
    """A data set whose persons carry the others of their image in ``meta["neighbours"]``, a tuple of persons.

    Networks that take a 2D pose as input are trained with joints of neighbours mixed in, as detectors mix them up
    (:class:`posesyn.estimators.crowdnet.pose_noise.PoseNoise`).

    Args:
        persons: Any data set; it is read through once for the image names, boxes and keypoints, not for its images.
        most: Neighbours per person at most, those with the largest shared box first.
    """

    def __init__(self, persons: Sequence[Person], most: int = 4) -> None:
        self.persons, self.most = persons, most
        self._together: dict[str, list[int]] = defaultdict(list)
        self._boxes = np.zeros((len(persons), 4), np.float32)
        self._image_ids = [""] * len(persons)
        for row in range(len(persons)):
            person = persons[row]
            self._boxes[row], self._image_ids[row] = person.box_xyxy, person.image_id
            if person.image_id:
                self._together[person.image_id].append(row)

    def __len__(self) -> int:
        return len(self.persons)

    def __getitem__(self, index: int) -> Person:  # type: ignore[override]
        person = self.persons[index]
        row = index % len(self)
        others = np.array([other for other in self._together.get(self._image_ids[row], ()) if other != row], int)
        low = np.maximum(self._boxes[others, :2], self._boxes[row, :2])
        high = np.minimum(self._boxes[others, 2:], self._boxes[row, 2:])
        shared = np.clip(high - low, 0, None).prod(-1)
        nearest = others[np.argsort(-shared, kind="stable")[: self.most]]
        found = tuple(self.persons[int(other)] for other in nearest)
        return replace(person, meta={**person.meta, "neighbours": found})
