"""Finds the persons on whom a frozen estimator fails (PoseSyn's error extraction module)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from posesyn import skeletons
from posesyn.data.persons.base import box_problem
from posesyn.errors import InputError
from posesyn.interfaces import TargetEstimator
from posesyn.metrics.pose2d_error import (
    NORMALIZERS,
    Normalizer,
    joint_weights,
    occlusion_weights,
    person_size,
    pose_error,
)
from posesyn.storage.checkpoints import fingerprint
from posesyn.storage.ledger import RunLedger, check_budget
from posesyn.synthesis.extraction.crop_reader import DAMAGED, ImageReader, LoadedPerson
from posesyn.synthesis.extraction.report_files import read_part, write_part
from posesyn.synthesis.extraction.selection import Ranking, disagreement_mm, split_sizes
from posesyn.types import ArrayImage, ErrorReport, Person, PoseBatch, ScoredPerson
from posesyn.types.arguments import check_several

STAGE = "extract"

__all__ = ["ErrorExtractor", "estimator_fingerprint", "split_sizes"]


class ErrorExtractor:
    """Runs the estimator on every person, compares with the 2D truth, ranks, and selects both ends.

    The error is ``pose_error`` of :mod:`posesyn.metrics.pose2d_error`: root-relative L1 between the annotated joints
    and the projection of the predicted ones, weighted per joint, divided by the person's size. The split is by rank,
    without a threshold.

    Args:
        estimator: The frozen estimator. A run is only continued with an estimator of the same weights: those of a torch
            module are hashed, any other object may have an attribute ``fingerprint``.
        num_challenging: K_C = 500 largest errors (PoseSyn, arXiv 2503.13025).
        num_non_challenging: K_NC = 200 smallest errors (same). No person is in both: with fewer persons than K_C +
            K_NC they are divided in that proportion (our own choice).
        joint_weights: ``"limbs"``, ``"uniform"`` or weights by joint name; the values are our own choice.
        normalizer: ``"box"``, ``"area"``, ``"keypoints"``, ``"torso"`` or ``"head"``; our own choice. Persons that do
            not show their torso or head are skipped.
        min_joints: Persons with fewer comparable joints are skipped; our own choice (a root-relative error needs two).
        batch_size: Persons per call of the estimator.
        num_threads: Threads that decode images ahead of it.
        num_processes: Processes that decode images in place of the threads; 0 for none.
        occluded_weight: Factor on the weight of joints that are marked as hidden or lie outside the image; 0 masks
            them, 1 (the paper's) treats all alike.
        crowded_weight: The same for joints inside another person's box.
        selection: ``"rank"`` takes the largest errors as the paper does, ``"diverse"`` picks among the
            ``diversity_pool`` · K_C largest those that are unlike each other.
        diversity_pool: See ``selection``.
        others: Further estimators. Their disagreement with ``estimator`` is written into each scored person.
        rank_by: ``"error"``, or ``"disagreement"`` (needs ``others``), which asks for no annotation but a box.
        keep: ``"all"`` scored persons stay in the report; ``"selected"`` keeps only the two selections in memory, for
            data sets of any size (with ``out``, ``errors.parquet`` holds rank and error of everyone).
        error_budget: Unreadable images tolerated: a fraction of the persons (float, at least one) or a number (int).

    Raises:
        InputError: A number that makes no sense.

    Example:
        >>> image, box = ps.types.ArrayImage(np.zeros((48, 64, 3), np.uint8)), np.array([8, 4, 56, 44])
        >>> persons = [ps.Person(name, image, box, np.full((17, 2), 20.0), np.ones(17), "coco17") for name in "ab"]
        >>> report = ErrorExtractor(ps.load_estimator("hmr_small")).extract(persons, progress=False)
        >>> len(report.scored), len(report.challenging), len(report.non_challenging)
        (2, 1, 1)
    """

    def __init__(
        self,
        estimator: TargetEstimator,
        num_challenging: int = 500,
        num_non_challenging: int = 200,
        *,
        joint_weights: str | Mapping[str, float] = "limbs",
        normalizer: Normalizer = "box",
        min_joints: int = 2,
        batch_size: int = 32,
        num_threads: int = 2,
        num_processes: int = 0,
        occluded_weight: float = 1.0,
        crowded_weight: float = 1.0,
        selection: Literal["rank", "diverse"] = "rank",
        diversity_pool: int = 4,
        others: Sequence[TargetEstimator] = (),
        rank_by: Literal["error", "disagreement"] = "error",
        keep: Literal["all", "selected"] = "all",
        error_budget: float | int = 0.1,
    ) -> None:
        for one in (estimator, *others):
            if not (callable(getattr(one, "predict", None)) and hasattr(one, "spec")):
                raise InputError(
                    "an estimator needs `spec` and `predict(persons)`",
                    got=type(one).__name__,
                    fix="wrap a function with posesyn.CallableEstimator",
                )
        for name, value, least in (
            ("num_challenging", num_challenging, 1),
            ("num_non_challenging", num_non_challenging, 0),
            ("min_joints", min_joints, 1),
            ("batch_size", batch_size, 1),
            ("num_threads", num_threads, 1),
            ("num_processes", num_processes, 0),
            ("diversity_pool", diversity_pool, 1),
            ("occluded_weight", occluded_weight, 0),
            ("crowded_weight", crowded_weight, 0),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}", where="ErrorExtractor", got=value)
        for name, text, known in (
            ("normalizer", normalizer, NORMALIZERS),
            ("selection", selection, ("rank", "diverse")),
            ("rank_by", rank_by, ("error", "disagreement")),
            ("keep", keep, ("all", "selected")),
        ):
            if text not in known:
                raise InputError(f"unknown {name}", where="ErrorExtractor", expected=", ".join(known), got=text)
        if rank_by == "disagreement" and not others:
            raise InputError("disagreement needs a second estimator", where="ErrorExtractor", fix="pass others=[...]")
        self.estimator = estimator
        self.num_challenging, self.num_non_challenging = num_challenging, num_non_challenging
        self.joint_weights, self.normalizer, self.min_joints = joint_weights, normalizer, min_joints
        self.batch_size, self.num_threads, self.error_budget = batch_size, num_threads, error_budget
        self.num_processes, self.occluded_weight, self.crowded_weight = num_processes, occluded_weight, crowded_weight
        self.selection, self.diversity_pool, self.rank_by, self.keep = selection, diversity_pool, rank_by, keep
        self.others = tuple(others)
        self._weights: dict[str, np.ndarray] = {}
        self._neighbours: dict[str, list[tuple[str, np.ndarray]]] = {}

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result apart from the persons, as JSON values."""
        return {
            "estimator": self.estimator.spec.name,
            "estimator_fingerprint": estimator_fingerprint(self.estimator),
            "num_challenging": self.num_challenging,
            "num_non_challenging": self.num_non_challenging,
            "joint_weights": self.joint_weights if isinstance(self.joint_weights, str) else dict(self.joint_weights),
            "normalizer": self.normalizer,
            "min_joints": self.min_joints,
            **self._options(),
        }

    def _options(self) -> dict[str, Any]:
        """What goes beyond the paper, where it is used: runs without it keep the settings they had."""
        options: dict[str, Any] = {}
        if self.occluded_weight != 1:
            options["occluded_weight"] = self.occluded_weight
        if self.crowded_weight != 1:
            options["crowded_weight"] = self.crowded_weight
        if self.selection != "rank":
            options |= {"selection": self.selection, "diversity_pool": self.diversity_pool}
        if self.others:
            options["others"] = [[one.spec.name, estimator_fingerprint(one)] for one in self.others]
            options["rank_by"] = self.rank_by
        return options

    def extract(
        self,
        persons: Sequence[Person],
        progress: bool = True,
        out: str | os.PathLike[str] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> ErrorReport:
        """Scores all persons.

        Args:
            persons: A data set; persons it has skipped itself (``persons.skipped``) are listed in the report too.
            progress: Show a bar.
            out: Folder for the report and for resuming: an interrupted extraction continues where it stopped. None
                keeps everything in memory.
            on_batch: Called after each batch with (persons done, persons in all).

        Returns:
            All scored persons, largest error first, the two selections, and who was skipped and why.

        Raises:
            InputError: No person, duplicate names, or nobody could be scored.
            RunError: ``out`` holds another run, or too many images are damaged.
        """
        check_several(persons, Person, "extract")
        if not len(persons):
            raise InputError("there are no persons to extract from", where="ErrorExtractor.extract")
        ids = _unique_ids(persons)
        config = {"stage": STAGE, **self.settings()}
        with RunLedger(out, config, self.error_budget) if out is not None else nullcontext() as ledger:
            if ledger is not None:
                ledger.plan(STAGE, ids)
            ranking, skipped = self._score_all(persons, ids, ledger, progress, on_batch)
        report = self._select(ranking, [*getattr(persons, "skipped", ()), *skipped])
        if out is not None:
            from posesyn.storage.reports import save_errors, save_report

            save_report(report, Path(out))
            if self.keep == "selected":
                save_errors(ranking.names, ranking.scores, Path(out))
        return report

    def _score_all(
        self,
        persons: Sequence[Person],
        ids: Sequence[str],
        ledger: RunLedger | None,
        progress: bool,
        on_batch: Callable[[int, int], None] | None,
    ) -> tuple[Ranking, list[tuple[str, str]]]:
        ranking = Ranking(
            self._rank_value,
            self.num_challenging,
            self.num_non_challenging,
            keep_all=self.keep == "all",
            pool=self.diversity_pool if self.selection == "diverse" else 1,
        )
        self._neighbours = _boxes_by_image(persons) if self.crowded_weight != 1 else {}
        skipped: list[tuple[str, str]] = []
        ranges = [range(i, min(i + self.batch_size, len(ids))) for i in range(0, len(ids), self.batch_size)]
        todo = []
        finished = ledger.finished(STAGE) if ledger is not None else {}
        for rows in ranges:
            if all(ids[row] in finished for row in rows):
                done, out_of = read_part(ledger.folder, finished, [persons[row] for row in rows])
                ranking.add(done)
                skipped += out_of
            else:
                todo.append(rows)
        damaged = sum(reason.startswith(DAMAGED) for _, reason in skipped)
        bar = tqdm(
            total=len(ids), initial=len(ranking) + len(skipped), desc="extract", unit="person", disable=not progress
        )
        with bar, ImageReader(self.num_threads, self.num_processes) as reader:
            for batch in reader.batches(persons, todo):
                done, out_of = self._score_batch(batch)
                if ledger is not None:
                    write_part(ledger, STAGE, [person.person_id for person, _ in batch], done, out_of)
                ranking.add(done)
                skipped += out_of
                for name, reason in out_of:
                    if reason.startswith(DAMAGED):
                        damaged += 1
                        check_budget(damaged, len(ids), self.error_budget, "the images", f"{name}: {reason}")
                bar.update(len(batch))
                if on_batch is not None:
                    on_batch(len(ranking) + len(skipped), len(ids))
        return ranking, skipped

    def _rank_value(self, item: ScoredPerson) -> float:
        return item.error if self.rank_by == "error" else float(item.disagreement_mm or 0.0)

    def _score_batch(self, batch: Sequence[LoadedPerson]) -> tuple[list[ScoredPerson], list[tuple[str, str]]]:
        usable, skipped = [], []
        for person, pixels in batch:
            reason = pixels if isinstance(pixels, str) else self._unusable(person, pixels)
            if reason is None:
                usable.append((person, replace(person, image=ArrayImage(pixels, person.image.name))))
            else:
                skipped.append((person.person_id, reason))
        if not usable:
            return [], skipped
        loaded = [one for _, one in usable]
        predictions = self._predict(self.estimator, loaded)
        spread = self._disagreement(predictions, loaded) if self.others else None
        scored = []
        for row, (person, one) in enumerate(usable):
            pixels = one.image.pixels
            result = self._score(person, _single(predictions, row), (pixels.shape[1], pixels.shape[0]))
            if not isinstance(result, str) and spread is not None and not np.isfinite(spread[row]):
                result = "an estimator answered with NaN or infinite values"
            if isinstance(result, str):
                skipped.append((person.person_id, result))
            else:
                scored.append(result if spread is None else replace(result, disagreement_mm=float(spread[row])))
        return scored, skipped

    def _disagreement(self, predictions: PoseBatch, persons: Sequence[Person]) -> np.ndarray:
        """(B,) mm, NaN where an estimator gave no pose."""
        batches = [predictions, *(self._predict(one, persons) for one in self.others)]
        sound = np.logical_and.reduce([np.isfinite(batch.joints_cam).all((1, 2)) for batch in batches])
        spread = np.full(len(persons), np.nan)
        for row in np.flatnonzero(sound):
            spread[row] = disagreement_mm([_single(batch, int(row)) for batch in batches])[0]
        return spread

    def _predict(self, estimator: TargetEstimator, persons: Sequence[Person]) -> PoseBatch:
        predictions = estimator.predict(persons)
        ids = [person.person_id for person in persons]
        if list(predictions.person_ids) != ids:
            raise InputError(
                "an estimator must answer for the persons it was given, in their order",
                where=f"estimator '{estimator.spec.name}'",
                expected=ids[:3],
                got=list(predictions.person_ids)[:3],
            )
        return predictions

    def _unusable(self, person: Person, pixels: np.ndarray) -> str | None:
        seen = int(person.visible.sum())
        if seen < self.min_joints:
            return f"only {seen} joints are visible, {self.min_joints} are needed"
        return box_problem(person.box_xyxy, (pixels.shape[1], pixels.shape[0]))

    def _score(self, person: Person, prediction: PoseBatch, image_size: tuple[int, int]) -> ScoredPerson | str:
        """The scored person, or why it cannot be scored."""
        points, present = skeletons.convert(prediction.keypoints_px[0], prediction.skeleton, person.skeleton)
        used = person.visible & present
        if not np.isfinite(points[used]).all() or not np.isfinite(prediction.joints_cam).all():
            return "the estimator answered with NaN or infinite values"
        if person.skeleton not in self._weights:
            self._weights[person.skeleton] = joint_weights(person.skeleton, self.joint_weights)
        weights = self._weights[person.skeleton]
        if self.occluded_weight != 1 or self.crowded_weight != 1:
            near = [box for name, box in self._neighbours.get(person.image_id, ()) if name != person.person_id]
            boxes = np.stack(near) if near else None
            weights = weights * occlusion_weights(person, image_size, self.occluded_weight, self.crowded_weight, boxes)
        size = person_size(
            person.box_xyxy, person.keypoints_px, used, self.normalizer, person.skeleton, person.head_size
        )
        if not size > 0:
            shown = self.normalizer in ("torso", "head")
            return f"it does not show its {self.normalizer}" if shown else "the visible joints have no extent"
        if not (used & (weights > 0)).sum() >= self.min_joints:
            return f"only {int(used.sum())} joints can be compared, {self.min_joints} are needed"
        error, joint_errors, entered, _ = pose_error(points, person.keypoints_px, used, person.skeleton, size, weights)
        return ScoredPerson(person, prediction, error, joint_errors, entered)

    def _select(self, ranking: Ranking, skipped: list[tuple[str, str]]) -> ErrorReport:
        if not len(ranking):
            raise InputError(
                "no person could be scored",
                where="ErrorExtractor.extract",
                got=f"{len(skipped)} skipped, the first because {skipped[0][1]}",
            )
        ranked, challenging, easiest = ranking.finish()
        settings = {**self.settings(), "root": "pelvis, else mid-hips, thorax, neck, mid-shoulders, mean of the joints"}
        if self.keep == "selected":
            settings["persons_scored"] = len(ranking)
        return ErrorReport(ranked, challenging, easiest, tuple(skipped), settings)


def estimator_fingerprint(estimator: TargetEstimator) -> str | None:
    """What tells two estimators of one name apart: their own word, else a hash of their weights, else nothing."""
    if hasattr(estimator, "fingerprint"):
        return str(estimator.fingerprint)
    return fingerprint(estimator) if isinstance(estimator, torch.nn.Module) else None


def _single(batch: PoseBatch, row: int) -> PoseBatch:
    # Meshes are left behind: 13,000 vertices for each of 100,000 persons fill the memory.
    return replace(batch, vertices_cam=None)[row]


def _unique_ids(persons: Sequence[Person]) -> list[str]:
    names = getattr(persons, "person_ids", None)
    ids = list(names) if names is not None else [person.person_id for person in persons]
    if len(set(ids)) != len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise InputError("two persons have the same name", where="ErrorExtractor.extract", got=twice)
    return ids


def _boxes_by_image(persons: Sequence[Person]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Names and boxes of the persons of each image that shows several."""
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    for person in persons:
        if person.image_id:
            found.setdefault(person.image_id, []).append((person.person_id, person.box_xyxy))
    return {image: boxes for image, boxes in found.items() if len(boxes) > 1}
