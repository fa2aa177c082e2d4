"""Finds the persons on whom a frozen estimator fails (PoseSyn's error extraction module)."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from posesyn import skeletons
from posesyn.data.boxes import box_problem
from posesyn.errors import FileError, InputError
from posesyn.protocols import TargetEstimator
from posesyn.storage.checkpoints import fingerprint
from posesyn.storage.ledger import RunLedger, check_budget
from posesyn.synthesis.extraction_parts import read_part, write_part
from posesyn.synthesis.pose_error import Normalizer, joint_weights, person_size, pose_error
from posesyn.types import ArrayImage, ErrorReport, Person, PoseBatch, ScoredPerson

STAGE = "extract"
DAMAGED = "its image cannot be read: "


class ErrorExtractor:
    """Runs the estimator on every person, compares with the 2D truth, ranks, and selects both ends.

    The error is ``pose_error`` of :mod:`posesyn.synthesis.pose_error`: root-relative L1 between the annotated joints
    and the projection of the predicted ones, weighted per joint, divided by the person's size. The split is by rank,
    without a threshold.

    Args:
        estimator: The frozen estimator. A run is only continued with an estimator of the same weights: those of a torch
            module are hashed, any other object may have an attribute ``fingerprint``.
        num_challenging: K_C = 500 largest errors (posesyn.md section 2).
        num_non_challenging: K_NC = 200 smallest errors (same). No person is in both: with fewer persons than K_C +
            K_NC they are divided in that proportion (our own choice).
        joint_weights: ``"limbs"``, ``"uniform"`` or weights by joint name; the values are our own choice.
        normalizer: ``"box"``, ``"area"`` or ``"keypoints"``; our own choice.
        min_joints: Persons with fewer comparable joints are skipped; our own choice (a root-relative error needs two).
        batch_size: Persons per call of the estimator.
        num_threads: Threads that decode images ahead of it.
        error_budget: Unreadable images tolerated: a fraction of the persons (float, at least one) or a number (int).

    Raises:
        InputError: A number that makes no sense.
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
        error_budget: float | int = 0.1,
    ) -> None:
        if not (callable(getattr(estimator, "predict", None)) and hasattr(estimator, "spec")):
            raise InputError(
                "an estimator needs `spec` and `predict(persons)`",
                got=type(estimator).__name__,
                fix="wrap a function with posesyn.CallableEstimator",
            )
        for name, value, least in (
            ("num_challenging", num_challenging, 1),
            ("num_non_challenging", num_non_challenging, 0),
            ("min_joints", min_joints, 1),
            ("batch_size", batch_size, 1),
            ("num_threads", num_threads, 1),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}", where="ErrorExtractor", got=value)
        if normalizer not in ("box", "area", "keypoints"):
            raise InputError("unknown normalizer", expected="box, area or keypoints", got=normalizer)
        self.estimator = estimator
        self.num_challenging, self.num_non_challenging = num_challenging, num_non_challenging
        self.joint_weights, self.normalizer, self.min_joints = joint_weights, normalizer, min_joints
        self.batch_size, self.num_threads, self.error_budget = batch_size, num_threads, error_budget

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
        }

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
        if not len(persons):
            raise InputError("there are no persons to extract from", where="ErrorExtractor.extract")
        ids = _unique_ids(persons)
        config = {"stage": STAGE, **self.settings()}
        with RunLedger(out, config, self.error_budget) if out is not None else nullcontext() as ledger:
            if ledger is not None:
                ledger.plan(STAGE, ids)
            scored, skipped = self._score_all(persons, ids, ledger, progress, on_batch)
        report = self._select(scored, [*getattr(persons, "skipped", ()), *skipped])
        if out is not None:
            from posesyn.synthesis.extraction_report import save_report

            save_report(report, Path(out))
        return report

    def _score_all(
        self,
        persons: Sequence[Person],
        ids: Sequence[str],
        ledger: RunLedger | None,
        progress: bool,
        on_batch: Callable[[int, int], None] | None,
    ) -> tuple[list[ScoredPerson], list[tuple[str, str]]]:
        scored: list[ScoredPerson] = []
        skipped: list[tuple[str, str]] = []
        ranges = [range(i, min(i + self.batch_size, len(ids))) for i in range(0, len(ids), self.batch_size)]
        todo = []
        finished = ledger.finished(STAGE) if ledger is not None else {}
        for rows in ranges:
            if all(ids[row] in finished for row in rows):
                done, out_of = read_part(ledger.folder, finished, [persons[row] for row in rows])
                scored += done
                skipped += out_of
            else:
                todo.append(rows)
        damaged = sum(reason.startswith(DAMAGED) for _, reason in skipped)
        bar = tqdm(
            total=len(ids), initial=len(scored) + len(skipped), desc="extract", unit="person", disable=not progress
        )
        with bar, ThreadPoolExecutor(self.num_threads) as pool:
            for batch in self._prefetch(pool, persons, todo):
                done, out_of = self._score_batch(batch)
                if ledger is not None:
                    write_part(ledger, STAGE, [person.person_id for person, _ in batch], done, out_of)
                scored += done
                skipped += out_of
                for name, reason in out_of:
                    if reason.startswith(DAMAGED):
                        damaged += 1
                        check_budget(damaged, len(ids), self.error_budget, "the images", f"{name}: {reason}")
                bar.update(len(batch))
                if on_batch is not None:
                    on_batch(len(scored) + len(skipped), len(ids))
        return scored, skipped

    def _prefetch(
        self, pool: ThreadPoolExecutor, persons: Sequence[Person], batches: Sequence[range]
    ) -> Iterator[list[tuple[Person, np.ndarray | str]]]:
        """Batches of persons with their pixels, or with the reason why there are none; one batch is decoded ahead."""
        waiting: deque[list[tuple[Person, Future]]] = deque()

        def submit(rows: range) -> None:
            batch, loads = [], {}
            for row in rows:
                person = persons[row]
                # Persons of one image share one decoding; sources that do not hash are loaded one by one.
                key = person.image if _hashable(person.image) else id(person.image)
                if key not in loads:
                    loads[key] = pool.submit(_load, person)
                batch.append((person, loads[key]))
            waiting.append(batch)

        queue = iter(batches)
        for rows in itertools.islice(queue, 2):
            submit(rows)
        while waiting:
            batch = waiting.popleft()
            yield [(person, load.result()) for person, load in batch]
            for rows in itertools.islice(queue, 1):
                submit(rows)

    def _score_batch(
        self, batch: Sequence[tuple[Person, np.ndarray | str]]
    ) -> tuple[list[ScoredPerson], list[tuple[str, str]]]:
        usable, skipped = [], []
        for person, pixels in batch:
            reason = pixels if isinstance(pixels, str) else self._unusable(person, pixels)
            if reason is None:
                usable.append((person, replace(person, image=ArrayImage(pixels, person.image.name))))
            else:
                skipped.append((person.person_id, reason))
        if not usable:
            return [], skipped
        predictions = self.estimator.predict([loaded for _, loaded in usable])
        self._check(predictions, [person.person_id for person, _ in usable])
        scored = []
        for row, (person, _) in enumerate(usable):
            result = self._score(person, _single(predictions, row))
            if isinstance(result, str):
                skipped.append((person.person_id, result))
            else:
                scored.append(result)
        return scored, skipped

    def _unusable(self, person: Person, pixels: np.ndarray) -> str | None:
        seen = int(person.visible.sum())
        if seen < self.min_joints:
            return f"only {seen} joints are visible, {self.min_joints} are needed"
        return box_problem(person.box_xyxy, (pixels.shape[1], pixels.shape[0]))

    def _check(self, predictions: PoseBatch, ids: list[str]) -> None:
        if list(predictions.person_ids) != ids:
            raise InputError(
                "an estimator must answer for the persons it was given, in their order",
                where=f"estimator '{self.estimator.spec.name}'",
                expected=ids[:3],
                got=list(predictions.person_ids)[:3],
            )

    def _score(self, person: Person, prediction: PoseBatch) -> ScoredPerson | str:
        """The scored person, or why it cannot be scored."""
        points, present = skeletons.convert(prediction.keypoints_px[0], prediction.skeleton, person.skeleton)
        used = person.visible & present
        if not np.isfinite(points[used]).all() or not np.isfinite(prediction.joints_cam).all():
            return "the estimator answered with NaN or infinite values"
        weights = joint_weights(person.skeleton, self.joint_weights)
        size = person_size(person.box_xyxy, person.keypoints_px, used, self.normalizer)
        if not size > 0:
            return "the visible joints have no extent"
        if not (used & (weights > 0)).sum() >= self.min_joints:
            return f"only {int(used.sum())} joints can be compared, {self.min_joints} are needed"
        error, joint_errors, entered, _ = pose_error(points, person.keypoints_px, used, person.skeleton, size, weights)
        return ScoredPerson(person, prediction, error, joint_errors, entered)

    def _select(self, scored: list[ScoredPerson], skipped: list[tuple[str, str]]) -> ErrorReport:
        if not scored:
            raise InputError(
                "no person could be scored",
                where="ErrorExtractor.extract",
                got=f"{len(skipped)} skipped, the first because {skipped[0][1]}",
            )
        # Names break ties, so that the order does not depend on that of the data set.
        scored.sort(key=lambda item: (-item.error, item.person.person_id))
        ranked = tuple(replace(item, rank=rank) for rank, item in enumerate(scored))
        hard, easy = split_sizes(len(ranked), self.num_challenging, self.num_non_challenging)
        settings = {**self.settings(), "root": "pelvis, else mid-hips, thorax, neck, mid-shoulders, mean of the joints"}
        easiest = ranked[len(ranked) - easy :][::-1]
        return ErrorReport(ranked, ranked[:hard], easiest, tuple(skipped), settings)


def estimator_fingerprint(estimator: TargetEstimator) -> str | None:
    """What tells two estimators of one name apart: their own word, else a hash of their weights, else nothing."""
    if hasattr(estimator, "fingerprint"):
        return str(estimator.fingerprint)
    return fingerprint(estimator) if isinstance(estimator, torch.nn.Module) else None


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


def _single(batch: PoseBatch, row: int) -> PoseBatch:
    # Meshes are left behind: 13,000 vertices for each of 100,000 persons fill the memory.
    return replace(batch, vertices_cam=None)[row]


def _load(person: Person) -> np.ndarray | str:
    try:
        return person.image.load()
    except FileError as error:
        return DAMAGED + str(error)


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _unique_ids(persons: Sequence[Person]) -> list[str]:
    ids = [person.person_id for person in persons]
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise InputError("two persons have the same name", where="ErrorExtractor.extract", got=twice)
    return ids
