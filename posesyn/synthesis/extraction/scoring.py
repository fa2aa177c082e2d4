"""Predicts the persons of a batch, compares each prediction with the person's 2D truth, and picks both ends of the
ranking, by error alone or spread over different poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from posesyn import metrics, skeletons
from posesyn.body.pose_fitting import MIN_JOINTS, PoseFitter, distance_mm
from posesyn.data.persons.base import box_problem
from posesyn.errors import InputError
from posesyn.interfaces import TargetEstimator
from posesyn.metrics.pose2d_error import joint_weights, occlusion_weights, person_size, pose_error, root_of
from posesyn.settings.stages import ExtractionSettings
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.extraction.crop_reader import LoadedPerson
from posesyn.types import ArrayImage, Person, PoseBatch, ScoredPerson

# The joints that nearly every estimator has.
_COMPARED = "lsp14"
_LEAST = 4


class PersonScorer:
    """Scores loaded persons, batch by batch, by ``estimator`` and the disagreement with ``others``; ``persons`` is the
    whole data set, for the boxes of persons in one image."""

    def __init__(
        self,
        estimator: TargetEstimator,
        others: Sequence[TargetEstimator],
        settings: ExtractionSettings,
        persons: Sequence[Person],
    ) -> None:
        self._estimators, self._settings = (estimator, *others), settings
        self._weights: dict[str, np.ndarray] = {}
        self._neighbours = _boxes_by_image(persons) if settings.crowded_weight != 1 else {}
        self._fitter = PoseFitter() if settings.rank_by == "lifted" else None

    def score(self, batch: Sequence[LoadedPerson]) -> list[ScoredPerson | str]:
        """One entry per person, in order: the scored person, or why it cannot be scored."""
        results: list = [pixels if isinstance(pixels, str) else self._unusable(one, pixels) for one, pixels in batch]
        rows = [row for row, reason in enumerate(results) if reason is None]
        if not rows:
            return results
        shown = [replace(batch[row][0], image=ArrayImage(batch[row][1], batch[row][0].image.name)) for row in rows]
        predictions = [_predict(estimator, shown) for estimator in self._estimators]
        spread = _disagreement(predictions) if len(predictions) > 1 else [None] * len(rows)
        for index, row in enumerate(rows):
            person, pixels = batch[row]
            results[row] = self._compare(person, _single(predictions[0], index), pixels.shape[1::-1], spread[index])
        return results

    def _unusable(self, person: Person, pixels: np.ndarray) -> str | None:
        seen, needed = int(person.visible.sum()), self._settings.min_joints
        if seen < needed:
            return f"only {seen} joints are visible, {needed} are needed"
        return box_problem(person.box_xyxy, (pixels.shape[1], pixels.shape[0]))

    def _compare(
        self, person: Person, prediction: PoseBatch, image_size: tuple[int, int], spread: float | None
    ) -> ScoredPerson | str:
        points, present = skeletons.convert(prediction.keypoints_px[0], prediction.skeleton, person.skeleton)
        used = person.visible & present
        weights = self._joint_weights(person, image_size)
        normalizer, needed = self._settings.normalizer, self._settings.min_joints
        size = person_size(
            person.body_box_xyxy, person.keypoints_px, used, normalizer, person.skeleton, person.head_size
        )
        if not np.isfinite(points[used]).all() or not np.isfinite(prediction.joints_cam).all():
            return "the estimator answered with NaN or infinite values"
        if not size > 0:
            part = normalizer in ("torso", "head")
            return f"it does not show its {normalizer}" if part else "the visible joints have no extent"
        if not (used & (weights > 0)).sum() >= needed:
            return f"only {int(used.sum())} joints can be compared, {needed} are needed"
        if spread is not None and not np.isfinite(spread):
            return "an estimator answered with NaN or infinite values"
        error, joint_errors, entered, _ = pose_error(
            points, person.keypoints_px, used, person.skeleton, size, weights, self._settings.reduce
        )
        disagreement = None if spread is None else float(spread)
        scored = ScoredPerson(person, prediction, error, joint_errors, entered, disagreement_mm=disagreement)
        if self._fitter is None:
            return scored
        fitted = self._fitter.fit(scored)
        if fitted is None:
            return f"fewer than {MIN_JOINTS} joints of its limbs are visible, too few to say what pose it has"
        return replace(scored, lifted_mm=distance_mm(scored, fitted, self._fitter.settings.temperature))

    def _joint_weights(self, person: Person, image_size: tuple[int, int]) -> np.ndarray:
        if person.skeleton not in self._weights:
            self._weights[person.skeleton] = joint_weights(person.skeleton, self._settings.joint_weights)
        weights = self._weights[person.skeleton]
        occluded, crowded = self._settings.occluded_weight, self._settings.crowded_weight
        if occluded == 1 and crowded == 1:
            return weights
        near = [box for name, box in self._neighbours.get(person.image_id, ()) if name != person.person_id]
        return weights * occlusion_weights(person, image_size, occluded, crowded, np.stack(near) if near else None)


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
        wanted = f"at least {_LEAST} of '{_COMPARED}'"
        raise InputError("the estimators have too few joints in common", expected=wanted, got=int(common.sum()))
    poses = [points[:, common] for points, _ in pairs]
    # A similarity fits one pose onto the other; both directions make the measure symmetric.
    values = [metrics.pa_mpjpe(a, b, reduce="none") for x, y in combinations(poses, 2) for a, b in ((x, y), (y, x))]
    return np.mean(values, axis=0)


def _disagreement(predictions: Sequence[PoseBatch]) -> np.ndarray:
    """(B,) mm, NaN where an estimator gave no pose."""
    sound = np.logical_and.reduce([np.isfinite(batch.joints_cam).all((1, 2)) for batch in predictions])
    spread = np.full(len(sound), np.nan)
    for row in np.flatnonzero(sound):
        spread[row] = disagreement_mm([_single(batch, int(row)) for batch in predictions])[0]
    return spread


def _predict(estimator: TargetEstimator, persons: Sequence[Person]) -> PoseBatch:
    predictions = estimator.predict(persons)
    ids, got = [person.person_id for person in persons], list(predictions.person_ids)
    if got != ids:
        problem = "an estimator must answer for the persons it was given, in their order"
        raise InputError(problem, where=f"estimator '{estimator.spec.name}'", expected=ids[:3], got=got[:3])
    return predictions


def _single(batch: PoseBatch, row: int) -> PoseBatch:
    # Meshes are left behind: 13,000 vertices for each of 100,000 persons fill the memory.
    return replace(batch, vertices_cam=None)[row]


def _boxes_by_image(persons: Sequence[Person]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Names and boxes of the persons of each image that shows several."""
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    for person in persons:
        if person.image_id:
            found.setdefault(person.image_id, []).append((person.person_id, person.body_box_xyxy))
    return {image: boxes for image, boxes in found.items() if len(boxes) > 1}


# Poses further apart than this (mean distance of joints, in units of the pose's own size) count as fully different: our
# own choice, about the distance of a squat from standing.
_DIFFERENT = 0.25
_COMMON = "coco17"


def split_sizes(total: int, num_challenging: int, num_non_challenging: int) -> tuple[int, int]:
    """How many of ``total`` persons go to each selection, so that nobody is in both: too few are divided in the
    proportion asked for, at least one each where there are two."""
    asked = num_challenging + num_non_challenging
    if total >= asked:
        return num_challenging, num_non_challenging
    hard = round(total * num_challenging / asked)
    if num_non_challenging and total >= 2:
        hard = min(hard, total - 1)
    hard = max(hard, 1)
    return hard, min(total - hard, num_non_challenging)


def pose_descriptors(items: Sequence[ScoredPerson]) -> tuple[np.ndarray, np.ndarray]:
    """Annotated 2D poses (N, J, 2) relative to the root and divided by the root mean square distance from it, and which
    joints are known (N, J). Persons of several joint sets are compared in COCO's."""
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
    mirrored pose is another one. Our own choice; the paper ranks by error only. Items come largest ``score`` first.
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


# rank_by → field of a scored person.
_MEASURES = {"error": "error", "lifted": "lifted_mm", "disagreement": "disagreement_mm"}


class Ranking:
    """Collects scored persons and keeps only what the selections can need; names and scores of all in any case.

    Who is taken at random depends on the seed and the person's name only, so that neither the order of the data set nor
    a resumed run changes it.
    """

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings
        # Candidates of a diverse selection, as a multiple of its size.
        self._pool = settings.diversity_pool if settings.selection == "diverse" else 1
        self._low, self._high = self._pool * settings.num_challenging, settings.num_non_challenging
        drawn = {"random": 1.0, "mixed": 0.5}.get(settings.selection, 0.0)
        self._drawn = round(drawn * settings.num_challenging)
        self._items: list[ScoredPerson] = []
        self.names: list[str] = []
        self.scores: list[float] = []

    def __len__(self) -> int:
        return len(self.names)

    def add(self, items: Sequence[ScoredPerson]) -> None:
        """Takes in one batch."""
        self.names += [item.person.person_id for item in items]
        self.scores += [self._score(item) for item in items]
        self._items += items
        if self._settings.keep == "selected" and len(self._items) > 2 * (self._low + self._high) + 64:
            self._items.sort(key=self._key)
            # With few persons the two ends meet; nothing may be kept twice.
            if len(self._items) > self._low + self._high:
                between = self._items[self._low : len(self._items) - self._high]
                # Enough, were all others of the lowest draws among the two ends.
                lucky = sorted(between, key=self._draw)[: self._drawn and self._drawn + self._low + self._high]
                self._items[self._low : len(self._items) - self._high] = sorted(lucky, key=self._key)

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
        elif self._drawn:
            by_rank = candidates[: hard - round(hard * self._drawn / self._settings.num_challenging)]
            others = sorted(ranked[len(by_rank) : len(ranked) - easy], key=self._draw)[: hard - len(by_rank)]
            challenging = (*by_rank, *sorted(others, key=self._key))
        else:
            challenging = candidates[:hard]
        if self._settings.keep == "selected":
            kept = {item.person.person_id for item in (*challenging, *non_challenging)}
            ranked = tuple(item for item in ranked if item.person.person_id in kept)
        return ranked, challenging, non_challenging

    def _score(self, item: ScoredPerson) -> float:
        """Larger is worse."""
        return float(getattr(item, _MEASURES[self._settings.rank_by]) or 0.0)

    def _draw(self, item: ScoredPerson) -> float:
        return rng_of(self._settings.selection_seed, f"random/{item.person.person_id}").random()

    def _key(self, item: ScoredPerson) -> tuple[float, str]:
        # Names break ties, so that the order does not depend on that of the data set.
        return -self._score(item), item.person.person_id
