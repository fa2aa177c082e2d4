"""Which of the scored persons are picked: both ends of the ranking, by error alone or spread over different poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from posesyn import metrics, skeletons
from posesyn.errors import InputError
from posesyn.metrics.pose2d_error import root_of
from posesyn.types import PoseBatch, ScoredPerson

# The joints that nearly every estimator has.
_COMPARED = "lsp14"
_LEAST = 4


def disagreement_mm(predictions: Sequence[PoseBatch]) -> np.ndarray:
    """(B,) mean distance in mm between the poses of each pair of estimators, after the best similarity of the pair.

    Size and orientation of the whole body are aligned away, since estimators assume different cameras. Our own measure.

    Args:
        predictions: At least two, for the same persons in the same order.

    Raises:
        InputError: One prediction, other persons, or fewer than four joints in common.
    """
    if len(predictions) < 2:
        raise InputError("disagreement needs at least two estimators", got=len(predictions))
    ids = predictions[0].person_ids
    if any(batch.person_ids != ids for batch in predictions):
        raise InputError("the estimators answered for different persons", where="disagreement_mm")
    pairs = [skeletons.convert(np.asarray(b.joints_cam, np.float64), b.skeleton, _COMPARED) for b in predictions]
    common = np.logical_and.reduce([present for _, present in pairs])[0]
    if common.sum() < _LEAST:
        raise InputError(
            "the estimators have too few joints in common",
            expected=f"at least {_LEAST} of '{_COMPARED}'",
            got=int(common.sum()),
        )
    poses = [points[:, common] for points, _ in pairs]
    # A similarity fits one pose onto the other; both directions make the measure symmetric.
    values = [metrics.pa_mpjpe(a, b, reduce="none") for x, y in combinations(poses, 2) for a, b in ((x, y), (y, x))]
    return np.mean(values, axis=0)


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
        score: What persons are ranked by; larger is worse.
        num_challenging, num_non_challenging: Sizes of the selections.
        keep_all: Keep every scored person, or only the two ends (names and scores of all are kept in any case).
        pool: Candidates for a diverse selection, as a multiple of ``num_challenging``; 1 selects by rank.
    """

    def __init__(
        self,
        score: Callable[[ScoredPerson], float],
        num_challenging: int,
        num_non_challenging: int,
        *,
        keep_all: bool = True,
        pool: int = 1,
    ) -> None:
        self._score, self._keep_all, self._pool = score, keep_all, pool
        self._sizes = (num_challenging, num_non_challenging)
        self._low, self._high = pool * num_challenging, num_non_challenging
        self._items: list[ScoredPerson] = []
        self.names: list[str] = []
        self.scores: list[float] = []

    def __len__(self) -> int:
        return len(self.names)

    def add(self, items: Sequence[ScoredPerson]) -> None:
        """Takes in one batch."""
        for item in items:
            self.names.append(item.person.person_id)
            self.scores.append(float(self._score(item)))
        self._items += items
        if not self._keep_all and len(self._items) > 2 * (self._low + self._high) + 64:
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
        hard, easy = split_sizes(len(self), *self._sizes)
        non_challenging = ranked[len(ranked) - easy :][::-1]
        # The easiest ones are taken already where persons are few.
        candidates = ranked[: min(hard * self._pool, len(ranked) - easy)]
        if self._pool > 1:
            chosen = sorted(select_diverse(candidates, hard, self._score))
            challenging = tuple(candidates[row] for row in chosen)
        else:
            challenging = candidates[:hard]
        if not self._keep_all:
            kept = {item.person.person_id for item in (*challenging, *non_challenging)}
            ranked = tuple(item for item in ranked if item.person.person_id in kept)
        return ranked, challenging, non_challenging

    def _key(self, item: ScoredPerson) -> tuple[float, str]:
        # Names break ties, so that the order does not depend on that of the data set.
        return -float(self._score(item)), item.person.person_id
