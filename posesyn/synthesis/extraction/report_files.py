"""Results of single batches on disk, from which an interrupted extraction goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from posesyn.errors import FileError
from posesyn.storage.files import dump_json, read_npz, write_npz
from posesyn.storage.ledger import Finished, RunLedger
from posesyn.storage.reports import load_report, prediction_arrays, prediction_of, save_report
from posesyn.types import Person, ScoredPerson

# Reports are posesyn.storage.reports; their names stay here for who knew them here.
__all__ = ["load_report", "read_part", "save_report", "write_part"]


def write_part(
    ledger: RunLedger,
    stage: str,
    ids: Sequence[str],
    scored: Sequence[ScoredPerson],
    skipped: Sequence[tuple[str, str]],
) -> None:
    """Stores one batch and commits all its persons at once."""
    folder = ledger.folder / "parts"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:24] + ".npz"
    header = {
        "scored": [item.person.person_id for item in scored],
        "skeletons": [item.prediction.skeleton for item in scored],
        "joints": [len(item.joint_errors) for item in scored],
        "skipped": [list(entry) for entry in skipped],
    }
    arrays = {
        "header": np.frombuffer(dump_json(header).encode(), np.uint8),
        "error": np.array([item.error for item in scored], np.float64),
        "joint_errors": np.concatenate([item.joint_errors for item in scored]) if scored else np.zeros(0, np.float32),
        "joint_used": np.concatenate([item.joint_used for item in scored]) if scored else np.zeros(0, bool),
        **_disagreements(scored),
        **prediction_arrays(scored),
    }
    digest = write_npz(folder / name, arrays)
    ledger.commit(stage, [Finished(person_id, f"parts/{name}", digest) for person_id in ids])


def read_part(
    folder: Path, finished: Mapping[str, Finished], persons: Sequence[Person]
) -> tuple[list[ScoredPerson], list[tuple[str, str]]]:
    """Results of committed persons.

    Raises:
        FileError: A part is missing or is not what was committed.
    """
    wanted = {person.person_id: person for person in persons}
    scored: list[ScoredPerson] = []
    skipped: list[tuple[str, str]] = []
    for name, digest in sorted({(finished[person_id].file, finished[person_id].sha256) for person_id in wanted}):
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise FileError(
                "a committed part of the run is missing", where=folder / name, got=error.strerror
            ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise FileError(
                "a committed part of the run is damaged", where=folder / name, fix="remove the folder and rerun"
            )
        arrays = read_npz(data, name=name)
        header = json.loads(arrays["header"].tobytes())
        ends = np.cumsum([0, *header["joints"]])
        for row, person_id in enumerate(header["scored"]):
            if person_id not in wanted:
                continue
            joints = slice(ends[row], ends[row + 1])
            scored.append(
                ScoredPerson(
                    wanted[person_id],
                    prediction_of(arrays, row, person_id, header["skeletons"][row]),
                    float(arrays["error"][row]),
                    arrays["joint_errors"][joints],
                    arrays["joint_used"][joints].astype(bool),
                    disagreement_mm=float(arrays["disagreement_mm"][row]) if "disagreement_mm" in arrays else None,
                )
            )
        skipped += [(person_id, reason) for person_id, reason in header["skipped"] if person_id in wanted]
    return scored, skipped


def _disagreements(scored: Sequence[ScoredPerson]) -> dict[str, np.ndarray]:
    if not scored or any(item.disagreement_mm is None for item in scored):
        return {}
    return {"disagreement_mm": np.array([item.disagreement_mm for item in scored], np.float64)}
