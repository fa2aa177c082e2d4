"""What a run has made, read from its folders: counts, errors before and after, a row per round, the page's content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posesyn.evaluation.results import Evaluation
from posesyn.report import RunSummary, clips_to_show
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import read_json, write_json
from posesyn.storage.reports import load_report
from posesyn.types import ErrorReport, Person, ScoredPerson

FINE_TUNED, CONTROL = "fine_tuned", "control"
COLUMNS = {CONTROL: "control", FINE_TUNED: "after"}  # arm → column of the tables, after "before"
ROUNDS, HELD_OUT = "rounds.json", "held_out.json"
# Where the selected persons of a round are scored again; from round 2 on those of round 1, too.
AFTER = {FINE_TUNED: "extraction_after", CONTROL: "extraction_after_control"}
FIRST_AFTER = {FINE_TUNED: "first_after", CONTROL: "first_after_control"}
_WARNING = (
    "The errors after training are on persons that it was trained with: they show what was learnt, not "
    "what carries over. Score data that the training has not seen with `posesyn evaluate`."
)
_EQUAL = (
    "The control started from the same weights and trained with the same settings for as many steps of as many "
    "persons, on the real persons alone; these have the places in its batches that synthetic persons have elsewhere."
)


def round_folder(out: Path, number: int) -> Path:
    """Round 1 has the run's folder itself, round k ``round_k`` in it."""
    return out if number == 1 else out / f"round_{number}"


def selected(report: ErrorReport) -> list[Person]:
    """The persons of both selections."""
    return [scored.person for scored in (*report.challenging, *report.non_challenging)]


def funnel(folder: Path, persons: Sequence[Person]) -> dict[str, int]:
    """What is left after each stage of a round that has run."""
    report, store = load_report(folder / "extraction", persons), ClipStore(folder / "clips")
    return {
        "2D persons": len(persons),
        "persons scored": len(report),
        "challenging persons": len(report.challenging),
        "motions": len(list((folder / "motions").glob("*.npz"))),
        "rendered frames": sum(store.header(row).shape[0] for row in range(len(store))),
        "kept frames": sum(int(store.labels(row)["keep"].sum()) for row in range(len(store))),
    }


def note_round(out: Path, number: int, persons: Sequence[Person], seed: int, trained_on: int) -> None:
    """Writes what a finished round added into ``rounds.json``; the rows of other rounds stay.

    Args:
        out: Folder of the run.
        number: Of the round, from 1 on.
        persons: The 2D data set.
        seed: Of the round.
        trained_on: Synthetic frames of all rounds so far.
    """
    folder = round_folder(out, number)
    report, first = load_report(folder / "extraction", persons), load_report(out / "extraction", persons)
    rows = {row["round"]: row for row in read_rounds(out)}
    names = [scored.person.person_id for scored in report.challenging]
    known = {name for before in range(1, number) for name in rows[before]["persons"]}
    counts = funnel(folder, persons)
    rows[number] = {
        "round": number,
        "folder": folder.relative_to(out).as_posix(),
        "seed": seed,
        "challenging": len(names),
        "new": sum(name not in known for name in names),
        "motions": counts["motions"],
        "rendered_frames": counts["rendered frames"],
        "kept_frames": counts["kept frames"],
        "frames_trained_on": trained_on,
        "error": _means(report, folder, AFTER),
        # The same persons in every round, so that rounds can be compared.
        "error_of_first": _means(first, folder, AFTER if number == 1 else FIRST_AFTER),
        "persons": names,
    }
    write_json(out / ROUNDS, [rows[one] for one in sorted(rows)])


def read_rounds(out: Path) -> list[dict[str, Any]]:
    """The rows of ``rounds.json``, none where there is no such file."""
    path = out / ROUNDS
    return list(read_json(path)) if path.exists() else []


def note_held_out(out: Path, evaluations: Mapping[str, Evaluation], rounds: int) -> None:
    """Writes the means of evaluations on held-out persons after so many rounds, by column of the page."""
    one = next(iter(evaluations.values()))
    means = {
        column: _finite({metric: values.mean() for metric, values in evaluation.values.items()})
        for column, evaluation in evaluations.items()
    }
    found = {"protocol": one.protocol, "persons": len(one.person_ids), "rounds": rounds, "means": means}
    write_json(out / HELD_OUT, found)


def _held_out_rows(out: Path, rounds: int) -> tuple[list[dict[str, Any]], str]:
    """Rows of the table, one per metric, and what is to be said of them; nothing where these rounds are not scored."""
    found = read_json(out / HELD_OUT) if (out / HELD_OUT).exists() else {}
    if found.get("rounds") != rounds:
        return [], ""
    rows = []
    for metric in found["means"]["before"]:
        values = {column: means[metric] for column, means in found["means"].items()}
        rows.append({"persons": f"held out: {metric}", "count": str(found["persons"]), **values})
    return rows, f" Held-out persons: {found['protocol']}"


def _finite(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def summarise(out: Path, persons: Sequence[Person], rounds: int = 1, control: bool = False, **shown: Any) -> RunSummary:
    """What the run report shows.

    Args:
        out: Folder of the run.
        persons: The 2D data set.
        rounds, control: As asked for.
        shown: Further fields of the summary; ``notes`` are added to.
    """
    report, store = load_report(out / "extraction", persons), ClipStore(out / "clips")
    clips, rejected = clips_to_show(store)
    notes = [f"{len(report.skipped)} persons were not scored: {report.skipped[:5]}"] if report.skipped else []
    after = _after(report, round_folder(out, rounds), AFTER if rounds == 1 else FIRST_AFTER)
    rows: list[dict[str, Any]] = []
    improved: list[tuple[ScoredPerson, ScoredPerson]] = []
    table_note = "Mean 2D error of the selected persons, in box sizes."
    if FINE_TUNED in after:
        if not control:
            after.pop(CONTROL, None)
        parts = {"challenging": report.challenging, "non-challenging": report.non_challenging}
        rows = [_change(name, part, after) for name, part in parts.items() if part]
        ours = after[FINE_TUNED]
        pairs = [(one, ours[name]) for one in report.challenging if (name := one.person.person_id) in ours]
        improved = sorted(pairs, key=lambda pair: pair[1].error - pair[0].error)[:8]
        notes.append(_WARNING)
        if CONTROL in after:
            table_note += " Before: as shipped; after: posesyn."
            notes.append(_EQUAL)
        if rounds > 1:
            table_note += f" Selected in round 1; after: {rounds} rounds."
        scored, said = _held_out_rows(out, rounds)
        rows, table_note = [*rows, *scored], table_note + said
    return RunSummary(
        title="posesyn run",
        funnel=funnel(out, persons),
        rows=rows,
        rounds=[_round_row(row, control) for row in read_rounds(out)[:rounds]] if rounds > 1 else (),
        table_note=table_note,
        improved=improved,
        error_series={"2D error": np.array([scored.error for scored in report.scored])},
        error_unit="box sizes",
        worst=report.challenging[:12],
        best=report.non_challenging[:12],
        clips=clips,
        rejected=rejected,
        **{**shown, "notes": [*shown.get("notes", ()), *notes]},
    )


Scored = Mapping[str, ScoredPerson]


def _after(report: ErrorReport, folder: Path, names: Mapping[str, str]) -> dict[str, Scored]:
    """Arm → the selected persons of a report by name, as they are scored after its training; arms that have been."""
    found: dict[str, Scored] = {}
    for arm, name in names.items():
        if (folder / name / "report.json").exists():
            scored = load_report(folder / name, selected(report)).scored
            found[arm] = {one.person.person_id: one for one in scored}
    return found


def _means(report: ErrorReport, folder: Path, names: Mapping[str, str]) -> dict[str, float | None]:
    """Mean error of the challenging persons before and after; None where there is none."""
    row = _change("", report.challenging, _after(report, folder, names))
    return _finite({name: row.get(name, np.nan) for name in ("before", *COLUMNS.values())})


def _change(name: str, part: Sequence[ScoredPerson], after: Mapping[str, Scored]) -> dict[str, Any]:
    """One row of the table: the part's mean error before and after, on persons scored each time."""
    both = [one for one in part if all(one.person.person_id in scored for scored in after.values())]
    row = {"persons": name, "count": str(len(both)), "before": _mean([one.error for one in both])}
    for arm, column in COLUMNS.items():
        if arm in after:
            row[column] = _mean([after[arm][one.person.person_id].error for one in both])
    return row


def _mean(errors: Sequence[float]) -> float:
    return float(np.mean(errors)) if errors else float("nan")


def _round_row(row: Mapping[str, Any], control: bool) -> dict[str, Any]:
    """A row of ``rounds.json`` as the page shows it."""
    counts = {"round": str(row["round"]), "challenging": row["challenging"], "of them new": row["new"]}
    counts |= {"motions": row["motions"], "kept frames": row["kept_frames"]}
    shown = ("before", *(column for arm, column in COLUMNS.items() if control or arm != CONTROL))
    return {
        **counts,
        **{name: row["error"][name] for name in shown},
        "round 1's persons after": row["error_of_first"]["after"],
    }
