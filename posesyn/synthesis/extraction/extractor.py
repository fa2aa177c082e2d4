"""Finds the persons on whom a frozen estimator fails (PoseSyn's error extraction module)."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posesyn.errors import FileError, InputError
from posesyn.geometry.devices import device_of
from posesyn.interfaces import KeypointDetector, TargetEstimator
from posesyn.progress import ProgressBar
from posesyn.settings.base import identity, plain, with_changes
from posesyn.settings.stages import ExtractionSettings
from posesyn.storage.checkpoints import fingerprint
from posesyn.storage.files import dump_json, read_npz, write_npz
from posesyn.storage.ledger import Finished, RunLedger, check_budget
from posesyn.storage.reports import prediction_arrays, prediction_of, save_errors, save_report
from posesyn.synthesis.extraction.crop_reader import DAMAGED, ImageReader
from posesyn.synthesis.extraction.scoring import PersonScorer, Ranking
from posesyn.types import ErrorReport, Person, ScoredPerson
from posesyn.types.arguments import check_several
from posesyn.types.looks import changes_of, short_repr
from posesyn.types.scores import MEASURES

STAGE = "extract"
# Always written down, whether or not they are the default's; the others only where they differ from it.
_STATED = ("num_challenging", "num_non_challenging", "joint_weights", "normalizer", "min_joints", "reduce")
# Fields of a spec that decide the crop and its colours.
_CROP = (
    "input_size", "box_scale", "tight_box_scale", "box_aspect", "box_clip", "antialias", "mean", "std", "channels",
)  # fmt: skip

Results = dict[str, "ScoredPerson | str"]


class ErrorExtractor:
    """Runs the estimator on every person, compares with the 2D truth, ranks, and selects both ends.

    The error is ``pose_error`` of :mod:`posesyn.metrics.pose2d_error`: root-relative L1 between the annotated joints
    and the projection of the predicted ones, weighted per joint, divided by the person's size. The split is by rank,
    without a threshold.

    Args:
        estimator: The frozen estimator. A run is only continued with an estimator that cuts the same crops and has the
            same weights: those of a torch module are hashed, any other object may have an attribute ``fingerprint``.
        settings: How persons are scored and picked; None takes the defaults.
        others: Further estimators. Their disagreement with ``estimator`` is written into each scored person.
        changes: Fields of the settings to change: ``ErrorExtractor(estimator, num_challenging=100)``.

    Raises:
        InputError: No estimator, a setting that does not exist or makes no sense, or a ranking by disagreement with
            nobody.

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
        settings: ExtractionSettings | None = None,
        *,
        others: Sequence[TargetEstimator] = (),
        **changes: Any,
    ) -> None:
        for one in (estimator, *others):
            if not (callable(getattr(one, "predict", None)) and hasattr(one, "spec")):
                raise InputError(
                    "an estimator needs `spec` and `predict(persons)`",
                    got=type(one).__name__,
                    fix="wrap a function with posesyn.CallableEstimator",
                )
        self.estimator, self.others = estimator, tuple(others)
        self.settings = with_changes(ExtractionSettings, settings, changes)
        if self.settings.rank_by == "disagreement" and not others:
            raise InputError("disagreement needs a second estimator", where="ErrorExtractor", fix="pass others=[...]")

    def __repr__(self) -> str:
        name, *others = (one.spec.name for one in (self.estimator, *self.others))
        place = str(device_of(self.estimator))
        parts = {"estimator": name, "others": ", ".join(others), "device": place, **changes_of(self.settings)}
        return short_repr(self, **parts)

    def identity(self) -> dict[str, Any]:
        """What decides the result apart from the persons, as JSON values; a run is only continued with the same."""
        stated = [*_STATED, *(["diversity_pool"] if self.settings.selection == "diverse" else [])]
        found = {
            "estimator": self.estimator.spec.name,
            "estimator_fingerprint": estimator_fingerprint(self.estimator),
            "crop": crop_rule(self.estimator),
            **{name: plain(getattr(self.settings, name)) for name in stated},
            **identity(self.settings),
        }
        if self.others:
            found["others"] = [[one.spec.name, estimator_fingerprint(one), crop_rule(one)] for one in self.others]
            found["rank_by"] = self.settings.rank_by
        return found

    def extract(
        self,
        persons: Sequence[Person],
        progress: bool = True,
        out: str | os.PathLike[str] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> ErrorReport:
        """Scores all persons, and writes the report.

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
        ids = _unique_ids(persons)
        ranking, damaged = Ranking(self.settings), 0
        reasons: dict[str, str] = {}
        budget = self.settings.error_budget
        ledger = None if out is None else RunLedger(out, {"stage": STAGE, **self.identity()}, budget)
        bar = ProgressBar(len(ids), "extract", "person", shown=progress)
        with ledger or nullcontext(), bar, closing(self._results(persons, ids, ledger)) as batches:
            for results in batches:
                ranking.add([one for one in results.values() if not isinstance(one, str)])
                missed = {name: reason for name, reason in results.items() if isinstance(reason, str)}
                reasons |= missed
                for name, reason in missed.items():
                    if reason.startswith(DAMAGED):
                        damaged += 1
                        check_budget(damaged, len(ids), budget, "the images", f"{name}: {reason}")
                bar.update(len(results))
                if on_batch is not None:
                    on_batch(len(ranking) + len(reasons), len(ids))
        # In the data set's order, which neither batches nor a resumed run change.
        skipped = [*getattr(persons, "skipped", ()), *((name, reasons[name]) for name in ids if name in reasons)]
        report = self._report(ranking, skipped)
        if out is not None:
            save_report(report, Path(out))
            if self.settings.keep == "selected":
                save_errors(ranking.names, ranking.scores, Path(out))
        return report

    def _results(self, persons: Sequence[Person], ids: Sequence[str], ledger: RunLedger | None) -> Iterator[Results]:
        """Every person's score, or why there is none, batch by batch: first what an earlier run has finished."""
        finished: Mapping[str, Finished] = {}
        if ledger is not None:
            ledger.plan(STAGE, ids)
            finished = ledger.finished(STAGE)
        size = self.settings.batch_size
        ranges = [range(start, min(start + size, len(ids))) for start in range(0, len(ids), size)]
        missing = [rows for rows in ranges if not all(ids[row] in finished for row in rows)]
        for rows in ranges:
            if ledger is not None and all(ids[row] in finished for row in rows):
                yield _read_part(ledger.folder, finished, [persons[row] for row in rows])
        scorer = PersonScorer(self.estimator, self.others, self.settings, persons)
        with ImageReader(self.settings.num_threads, self.settings.num_processes) as reader:
            for batch in reader.batches(persons, missing):
                names = [person.person_id for person, _ in batch]
                results = dict(zip(names, scorer.score(batch)))
                if ledger is not None:
                    _write_part(ledger, results)
                yield results

    def _report(self, ranking: Ranking, skipped: Sequence[tuple[str, str]]) -> ErrorReport:
        if not len(ranking):
            got = f"{len(skipped)} skipped, the first because {skipped[0][1]}"
            bare = "persons found in pictures carry no 2D truth: find_persons(..., keypoints=load_detector(...))"
            fix = bare if any(why.startswith("only 0 joints are visible") for _, why in skipped) else None
            raise InputError("no person could be scored", where="ErrorExtractor.extract", got=got, fix=fix)
        settings = {**self.identity(), "root": "pelvis, else mid-hips, thorax, neck, mid-shoulders, mean of the joints"}
        if self.settings.keep == "selected":
            settings["persons_scored"] = len(ranking)
        return ErrorReport(*ranking.finish(), tuple(skipped), settings)


def estimator_fingerprint(estimator: TargetEstimator | KeypointDetector) -> str | None:
    """What tells two of one name apart: their own word, else a hash of their weights, else nothing."""
    if hasattr(estimator, "fingerprint"):
        return str(estimator.fingerprint)
    return fingerprint(estimator) if isinstance(estimator, torch.nn.Module) else None


def crop_rule(estimator: TargetEstimator | KeypointDetector) -> dict[str, Any]:
    """What decides, beside its weights, which pixels an estimator sees of a person; empty for one that does not say.

    Weights stay the same where the rule that cuts the crops is changed, by another version or by hand, and other crops
    give other predictions.
    """
    spec = getattr(estimator, "spec", None)
    found = {name: plain(getattr(spec, name)) for name in _CROP if hasattr(spec, name)}
    search = getattr(estimator, "search", None)  # where BlazePose's first region comes from
    return found if search is None else {**found, "search": str(search)}


def _unique_ids(persons: Sequence[Person]) -> list[str]:
    if not len(persons):
        raise InputError("there are no persons to extract from", where="ErrorExtractor.extract")
    names = getattr(persons, "person_ids", None)
    ids = list(names) if names is not None else [person.person_id for person in persons]
    if len(set(ids)) != len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise InputError("two persons have the same name", where="ErrorExtractor.extract", got=twice)
    return ids


def _write_part(ledger: RunLedger, results: Results) -> None:
    """Stores one batch and commits all its persons at once."""
    folder = ledger.folder / "parts"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256("\n".join(results).encode()).hexdigest()[:24] + ".npz"
    scored = [item for item in results.values() if not isinstance(item, str)]
    header = {
        "scored": [item.person.person_id for item in scored],
        "skeletons": [item.prediction.skeleton for item in scored],
        "joints": [len(item.joint_errors) for item in scored],
        "skipped": [[person_id, reason] for person_id, reason in results.items() if isinstance(reason, str)],
    }
    arrays = {
        "header": np.frombuffer(dump_json(header).encode(), np.uint8),
        "error": np.array([item.error for item in scored], np.float64),
        "joint_errors": np.concatenate([item.joint_errors for item in scored]) if scored else np.zeros(0, np.float32),
        "joint_used": np.concatenate([item.joint_used for item in scored]) if scored else np.zeros(0, bool),
        **prediction_arrays([item.prediction for item in scored]),
    }
    for measure in MEASURES:
        if scored and all(getattr(item, measure) is not None for item in scored):
            arrays[measure] = np.array([getattr(item, measure) for item in scored], np.float64)
    digest = write_npz(folder / name, arrays)
    ledger.commit(STAGE, [Finished(person_id, f"parts/{name}", digest) for person_id in results])


def _read_part(folder: Path, finished: Mapping[str, Finished], persons: Sequence[Person]) -> Results:
    """Results of committed persons; FileError where a part is missing or is not what was committed."""
    wanted = {person.person_id: person for person in persons}
    results: Results = {}
    for name, digest in sorted({(finished[person_id].file, finished[person_id].sha256) for person_id in wanted}):
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            problem = "a committed part of the run is missing"
            raise FileError(problem, where=folder / name, got=error.strerror) from error
        if hashlib.sha256(data).hexdigest() != digest:
            problem = "a committed part of the run is damaged"
            raise FileError(problem, where=folder / name, fix="remove the folder and rerun")
        arrays = read_npz(data, name=name)
        header = json.loads(arrays["header"].tobytes())
        ends = np.cumsum([0, *header["joints"]])
        for row, person_id in enumerate(header["scored"]):
            if person_id not in wanted:
                continue
            joints = slice(ends[row], ends[row + 1])
            prediction = prediction_of(arrays, row, person_id, header["skeletons"][row])
            error, errors = float(arrays["error"][row]), arrays["joint_errors"][joints]
            measures = {measure: float(arrays[measure][row]) for measure in MEASURES if measure in arrays}
            used = arrays["joint_used"][joints].astype(bool)
            results[person_id] = ScoredPerson(wanted[person_id], prediction, error, errors, used, **measures)
        results |= {person_id: reason for person_id, reason in header["skipped"] if person_id in wanted}
    return results
