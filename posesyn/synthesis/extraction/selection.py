"""Which of the scored persons are picked: both ends of the ranking, by error alone or spread over different poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from posesyn import skeletons
from posesyn.metrics.pose2d_error import root_of
from posesyn.settings.stages import ExtractionSettings
from posesyn.types import ScoredPerson

# Poses further apart than this (mean distance of joints, in units of the pose's own size) count as fully different: our
# own choice, about the distance of a squat from standing.
_DIFFERENT = 0.25
_COMMON = "coco17"


def split_sizes(total: int, num_challenging: int, num_non_challenging: int) -> tuple[int, int]:
    """How many of ``total`` persons go to each selection, so that nobody is in both.

    Too few persons are divided in the proportion asked for, at least one each where there are two.
    """
    asked = num_challenging + num_non_challenging
    if total >= asked:
        return num_challenging, num_non_challenging
    hard = round(total * num_challenging / asked)
    if num_non_challenging and total >= 2:
        hard = min(hard, total - 1)
    hard = max(hard, 1)
    return hard, min(total - hard, num_non_challenging)


def pose_descriptors(items: Sequence[ScoredPerson]) -> tuple[np.ndarray, np.ndarray]:
    """Annotated 2D poses without place and size: (N, J, 2) and which joints are known (N, J).

    Joints are relative to the root and divided by the root mean square distance from it. Persons of several joint sets
    are compared in COCO's.
    """
    names = {item.person.skeleton for item in items}
    common = names.pop() if len(names) == 1 else _COMMON
    points, known = [], []
    for item in items:
        person = item.person
        pose, seen = skeletons.convert(person.keypoints_px, person.skeleton, common, person.visible)
        pose = pose.astype(np.float64)
        if seen.any():
            pose = pose - pose[list(root_of(common, seen)[1])].mean(0)
            size = float(np.sqrt((pose[seen] ** 2).sum(-1).mean()))
            pose = pose / max(size, 1e-6)
        points.append(np.where(seen[:, None], pose, 0))
        known.append(seen)
    return np.stack(points), np.stack(known)


def select_diverse(
    items: Sequence[ScoredPerson], count: int, score: Callable[[ScoredPerson], float] = lambda item: item.error
) -> list[int]:
    """Positions of ``count`` items that are bad and unlike each other, in the order they were picked.

    Greedy: the worst first, then always the one with the largest product of its score and its distance to the nearest
    one picked (at most 1). Copies of a picked pose thus come last, whatever their error. Left and right stay apart: a
    mirrored pose is another one. Our own choice; the paper ranks by error only.

    Args:
        items: Candidates, largest score first.
        count: How many; all if there are fewer.
        score: What makes an item bad.
    """
    if len(items) <= count:
        return list(range(len(items)))
    poses, known = pose_descriptors(items)
    scores = np.array([score(item) for item in items], np.float64)
    nearest = np.ones(len(items))
    picked: list[int] = []
    for _ in range(count):
        gains = scores * nearest
        gains[picked] = -1
        # Copies have no gain; among them the ranking decides.
        best = int(np.argmax(gains)) if gains.max() > 0 else next(i for i in range(len(items)) if i not in picked)
        picked.append(best)
        both = known & known[best]
        distance = np.linalg.norm(poses - poses[best], axis=-1)
        mean = np.where(both, distance, 0).sum(1) / np.maximum(both.sum(1), 1)
        # Poses without a common joint say nothing about each other.
        mean = np.where(both.any(1), mean, _DIFFERENT)
        nearest = np.minimum(nearest, np.minimum(mean / _DIFFERENT, 1.0))
    return picked


class Ranking:
    """Collects scored persons and keeps only what the selections can need.

    Args:
        settings: What persons are ranked by, how many are picked and how, and whether all of them are kept or only the
            two ends (names and scores of all are kept in any case).
    """

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings
        # Candidates of a diverse selection, as a multiple of its size.
        self._pool = settings.diversity_pool if settings.selection == "diverse" else 1
        self._low, self._high = self._pool * settings.num_challenging, settings.num_non_challenging
        self._items: list[ScoredPerson] = []
        self.names: list[str] = []
        self.scores: list[float] = []

    def __len__(self) -> int:
        return len(self.names)

    def add(self, items: Sequence[ScoredPerson]) -> None:
        """Takes in one batch."""
        for item in items:
            self.names.append(item.person.person_id)
            self.scores.append(self._score(item))
        self._items += items
        if self._settings.keep == "selected" and len(self._items) > 2 * (self._low + self._high) + 64:
            self._items.sort(key=self._key)
            # With few persons the two ends meet; nothing may be kept twice.
            if len(self._items) > self._low + self._high:
                self._items[self._low : len(self._items) - self._high] = []

    def finish(self) -> tuple[tuple[ScoredPerson, ...], tuple[ScoredPerson, ...], tuple[ScoredPerson, ...]]:
        """Ranked persons that were kept, and the challenging and non-challenging ones among them."""
        order = sorted(range(len(self.names)), key=lambda row: (-self.scores[row], self.names[row]))
        ranks = {self.names[row]: rank for rank, row in enumerate(order)}
        self._items.sort(key=self._key)
        ranked = tuple(replace(item, rank=ranks[item.person.person_id]) for item in self._items)
        hard, easy = split_sizes(len(self), self._settings.num_challenging, self._settings.num_non_challenging)
        non_challenging = ranked[len(ranked) - easy :][::-1]
        # The easiest ones are taken already where persons are few.
        candidates = ranked[: min(hard * self._pool, len(ranked) - easy)]
        if self._pool > 1:
            chosen = sorted(select_diverse(candidates, hard, self._score))
            challenging = tuple(candidates[row] for row in chosen)
        else:
            challenging = candidates[:hard]
        if self._settings.keep == "selected":
            kept = {item.person.person_id for item in (*challenging, *non_challenging)}
            ranked = tuple(item for item in ranked if item.person.person_id in kept)
        return ranked, challenging, non_challenging

    def _score(self, item: ScoredPerson) -> float:
        """Larger is worse."""
        return float(item.error if self._settings.rank_by == "error" else item.disagreement_mm or 0.0)

    def _key(self, item: ScoredPerson) -> tuple[float, str]:
        # Names break ties, so that the order does not depend on that of the data set.
        return -self._score(item), item.person.person_id
