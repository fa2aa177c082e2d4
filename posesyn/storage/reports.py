"""Error reports on disk: a table per person (Parquet), a summary (JSON) and the predictions (npz).

``persons.parquet`` holds one row per scored person with its error, rank and annotation, so that later stages need
neither the data set nor the estimator; ``report.json`` the settings, counts and skipped persons; ``predictions.npz``
what the estimator predicted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posesyn.errors import FileError, InputError
from posesyn.storage.files import dump_json, read_json, read_npz, write_bytes, write_json, write_npz
from posesyn.storage.images import ImageFile
from posesyn.types import ErrorReport as ErrorReport
from posesyn.types import ImageSource, Person, PoseBatch, ScoredPerson
from posesyn.types.scores import MEASURES

if TYPE_CHECKING:
    import pandas as pd

TABLE, SUMMARY, PREDICTIONS = "persons.parquet", "report.json", "predictions.npz"
ERRORS = "errors.parquet"
VERSION = 1
# Fields of a person as JSON in one column. Reports of posesyn before 0.1 have these names in ``meta``.
_FACTS = (
    "occluded", "head_size", "area", "intrinsics", "image_width_height", "sequence", "subject", "action", "camera",
    "frame", "valid", "box_is_tight", "detected_by", "detection_score", "keypoints_by",
)  # fmt: skip
_FIELDS = ("joints_cam", "keypoints_px", "pose_rotmat", "betas", "transl_cam", "intrinsics")


def prediction_arrays(predictions: Sequence[PoseBatch]) -> dict[str, np.ndarray]:
    """Predictions (of one skeleton) as named arrays, a row per person, without meshes."""
    arrays = {}
    for name in _FIELDS:
        values = [getattr(one, name) for one in predictions]
        if predictions and all(value is not None for value in values):
            arrays[name] = np.concatenate([np.asarray(value, np.float32) for value in values])
    return arrays


def prediction_of(arrays: Mapping[str, np.ndarray], row: int, person_id: str, skeleton: str) -> PoseBatch:
    """One person's prediction from :func:`prediction_arrays`."""
    known = {name: arrays[name][row : row + 1] for name in _FIELDS if name in arrays}
    return PoseBatch((person_id,), skeleton, **known)


class AbsentImage:
    """Stands for pixels that were only in memory when the report was saved."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> np.ndarray:
        raise FileError(
            "an image was not on disk when its report was saved",
            where=self.name,
            fix="pass the data set: ErrorReport.load(folder, persons)",
        )


def report_table(report: ErrorReport) -> pd.DataFrame:
    """:meth:`ErrorReport.to_pandas` with what is needed to rebuild the persons."""
    import pandas as pd

    return report.to_pandas().join(pd.DataFrame([_stored(item) for item in report.scored]))


def _stored(item: ScoredPerson) -> dict[str, Any]:
    person, image = item.person, item.person.image
    size = getattr(image, "expected_size", None)
    facts = {name: value for name in _FACTS if (value := getattr(person, name)) is not None}
    try:
        meta = dump_json(dict(person.meta))
    except InputError:
        meta = "{}"  # a data set's own objects; nothing that later stages rely on
    return {
        "image_path": str(image.path.resolve()) if isinstance(image, ImageFile) else None,
        "image_orientation": image.orientation if isinstance(image, ImageFile) else None,
        "image_width_height": list(size) if size else None,
        "facts": dump_json(facts),
        "meta": meta,
        "predicted_skeleton": item.prediction.skeleton,
    }


def save_report(report: ErrorReport, folder: str | os.PathLike[str]) -> None:
    """Writes the three files, each atomically.

    Raises:
        FileError: The folder cannot be written.
        InputError: The predictions do not all have one joint set.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = {item.prediction.skeleton for item in report.scored}
    if len(names) > 1:
        raise InputError("the predictions of a report must share one skeleton", got=sorted(names))
    table = report_table(report).to_parquet(index=False)
    write_npz(folder / PREDICTIONS, prediction_arrays([item.prediction for item in report.scored]))
    write_bytes(folder / TABLE, table)
    errors = np.array([item.error for item in report.scored])
    summary = {
        "version": VERSION,
        "settings": dict(report.settings),
        "persons": len(report),
        "error": {"mean": errors.mean(), "median": np.median(errors), "largest": errors.max(), "smallest": errors.min()}
        if len(errors)
        else None,
        "challenging": [item.person.person_id for item in report.challenging],
        "non_challenging": [item.person.person_id for item in report.non_challenging],
        "skipped": [{"person_id": name, "reason": reason} for name, reason in report.skipped],
    }
    write_json(folder / SUMMARY, summary)


def save_errors(names: Sequence[str], scores: Sequence[float], folder: str | os.PathLike[str]) -> None:
    """Writes ``errors.parquet``: rank, name and score of everyone, where the report keeps only the selected persons."""
    import pandas as pd

    frame = pd.DataFrame({"person_id": names, "score": np.asarray(scores, np.float64)})
    frame = frame.sort_values(["score", "person_id"], ascending=[False, True], ignore_index=True)
    frame.insert(0, "rank", np.arange(len(frame)))
    write_bytes(Path(folder) / ERRORS, frame.to_parquet(index=False))


def load_report(folder: str | os.PathLike[str], persons: Sequence[Person] | None = None) -> ErrorReport:
    """:meth:`ErrorReport.load`."""
    import pandas as pd  # what only reads or holds reports needs no pandas

    folder = Path(folder)
    summary = read_json(folder / SUMMARY)
    if not isinstance(summary, dict) or summary.get("version") != VERSION:
        raise FileError("a report has another format", where=folder / SUMMARY, expected=f"version {VERSION}")
    arrays = read_npz(folder / PREDICTIONS)
    try:
        rows = pd.read_parquet(folder / TABLE).to_dict("records")
    except (OSError, ValueError) as error:
        raise FileError("a report's table is damaged", where=folder / TABLE, got=error) from error
    if any(len(value) != len(rows) for value in arrays.values()):
        raise FileError("a report's files do not belong together", where=folder, fix="run the extraction again")
    given = None if persons is None else {person.person_id: person for person in persons}
    try:
        scored = [_scored(row, index, arrays, given) for index, row in enumerate(rows)]
        by_id = {item.person.person_id: item for item in scored}
        challenging = tuple(by_id[name] for name in summary["challenging"])
        easy = tuple(by_id[name] for name in summary["non_challenging"])
        skipped = tuple((entry["person_id"], entry["reason"]) for entry in summary["skipped"])
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError("a report is damaged", where=folder, got=f"{type(error).__name__}: {error}") from error
    return ErrorReport(tuple(scored), challenging, easy, skipped, summary["settings"])


ErrorReport.writer, ErrorReport.reader = save_report, load_report


def _scored(
    row: dict[str, Any], index: int, arrays: dict[str, np.ndarray], given: dict[str, Person] | None
) -> ScoredPerson:
    name = str(row["person_id"])
    if given is not None and name not in given:
        raise InputError("the data set lacks a person of the report", where="load_report", got=name)
    return ScoredPerson(
        _person(row) if given is None else given[name],
        prediction_of(arrays, index, name, row["predicted_skeleton"]),
        float(row["error"]),
        np.asarray(row["joint_errors"], np.float32),
        np.asarray(row["joint_used"], bool),
        int(row["rank"]),
        **{measure: float(row[measure]) for measure in MEASURES if measure in row},
    )


def _person(row: dict[str, Any]) -> Person:
    image: ImageSource = AbsentImage(row["image_name"])
    if row["image_path"]:
        size = row["image_width_height"]
        expected = None if size is None else (int(size[0]), int(size[1]))
        image = ImageFile(Path(row["image_path"]), row["image_orientation"], expected)
    meta = json.loads(row["meta"])
    facts = json.loads(row["facts"]) if "facts" in row else {name: meta.pop(name) for name in _FACTS if name in meta}
    return Person(
        str(row["person_id"]),
        image,
        np.asarray(row["box_xyxy"], np.float32),
        np.asarray(row["keypoints_px"], np.float32).reshape(-1, 2),
        np.asarray(row["visible"], bool),
        row["skeleton"],
        captions=tuple(str(text) for text in row["captions"]),
        image_id=row["image_id"],
        track_id=row["track_id"],
        meta=meta,
        **{name: value for name, value in facts.items() if name in _FACTS and value is not None},
    )
