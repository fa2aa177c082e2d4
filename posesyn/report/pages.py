"""Self-contained HTML: the page of an extraction or a run, and the pages of its persons."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

import posesyn
from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.report import plots
from posesyn.report.cards import RunSummary, clip_card, comparison_card, frame_card, person_card, stand_in_note
from posesyn.report.embedding import figure_uri
from posesyn.storage.files import write_bytes
from posesyn.types import Clip, ErrorReport, ScoredPerson

# A page must open quickly and go by mail: the parts below stay well under it. Our own choice.
MAX_REPORT_BYTES = 15_000_000
MAX_CLIPS = 12
MAX_FRAMES = 12
MAX_RANKING_ROWS = 500
_CLIP_BYTES = 450_000


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("posesyn.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _figure(draw: Callable[[bool], Figure], alt: str, tall: bool = False) -> dict[str, Any]:
    """A plot for light and for dark screens, with its description."""
    return {"light": figure_uri(draw(False)), "dark": figure_uri(draw(True)), "alt": alt, "tall": tall}


def format_value(value: Any) -> str:
    """A table cell as text: numbers rounded to what is worth reading, missing values as a dash."""
    if value is None:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}".replace(",", "\u202f")
    if isinstance(value, (float, np.floating)):
        if not np.isfinite(value):
            return "–"
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_value(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(one) for one in value)
    return str(value)


def _is_number(value: Any) -> bool:
    """Whether a cell is set flush right: numbers, and text such as "-3.1" or "45.2 ± 0.3"."""
    if isinstance(value, str):
        return value[:1].isdigit() or (value[:1] in "+-−±" and value[1:2].isdigit())
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _table(rows: Sequence[Mapping[str, Any]], highlight: str | None = None) -> dict[str, Any]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    # A column is set flush right as a whole, also where a value is missing.
    numeric = {column: any(_is_number(row.get(column)) for row in rows) for column in columns}
    body = [
        {
            "strong": highlight is not None and str(row.get(columns[0])) == highlight,
            "cells": [{"text": format_value(row.get(column)), "number": numeric[column]} for column in columns],
        }
        for row in rows
    ]
    return {"columns": [{"text": str(column), "number": numeric[column]} for column in columns], "rows": body}


def _pairs(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(key), format_value(value)) for key, value in mapping.items()]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 90 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _write(path: str | os.PathLike[str], template: str, **values: Any) -> int:
    page = _environment().get_template(template).render(version=posesyn.__version__, **values).encode("utf-8")
    if len(page) > MAX_REPORT_BYTES:
        problem, limit = "the report grew too large to be of use", f"at most {MAX_REPORT_BYTES} bytes"
        raise InputError(problem, where=path, expected=limit, got=len(page), fix="show fewer persons")
    write_bytes(path, page)
    return len(page)


def write_extraction_report(
    path: str | os.PathLike[str], report: ErrorReport, max_persons: int = 24, title: str = "Where the estimator fails"
) -> int:
    """Writes what ``ErrorExtractor`` found: plots of the errors, the worst and best persons, the ranking.

    Args:
        path: The HTML file; its folder must exist. It appears complete or not at all.
        max_persons: Pictures at most of challenging and, again, of non-challenging persons.
        title: Heading.

    Returns:
        Size of the file in bytes (at most ``MAX_REPORT_BYTES``).

    Raises:
        FileError: The file cannot be written.
        InputError: ``max_persons`` is negative or leads to a page over the limit.

    A person whose image cannot be read any more gets a card that says so.
    """
    _check_count(max_persons, "write_extraction_report")
    figures = []
    groups = {"challenging": report.challenging, "non-challenging": report.non_challenging}
    counted = {"persons scored": report.scored, **groups, "skipped": report.skipped}
    if report.scored:
        shares = {name: np.array([one.error for one in group]) for name, group in groups.items() if group}
        if not shares:
            shares = {"all persons": np.array([one.error for one in report.scored])}
        joints = {name: plots.mean_joint_errors(group) for name, group in groups.items() if group}
        joints = joints or {"all persons": plots.mean_joint_errors(report.scored)}
        figures = [
            _figure(lambda dark: plots.error_by_rank(report, dark), _rank_alt(report)),
            _histogram(shares, "", 30, "normalised 2D error"),
            _figure(lambda dark: plots.joint_error_bars(joints, "", dark), _joints_alt(joints), tall=True),
        ]
    ranking = [
        {
            "rank": rank,
            "person": one.person.person_id,
            "error": f"{one.error:.4f}",
            "joints used": int(np.sum(one.joint_used)),
            "caption": one.person.captions[0] if one.person.captions else None,
        }
        for rank, one in enumerate(report.scored[:MAX_RANKING_ROWS])
    ]
    return _write(
        path,
        "extraction.html.j2",
        title=title,
        subtitle="Persons ranked by the distance between the 2D joints and the projected prediction.",
        note=stand_in_note(report.scored),
        funnel=_pairs({name: len(group) for name, group in counted.items()}),
        figures=figures,
        challenging=[person_card(one) for one in report.challenging[:max_persons]],
        challenging_count=len(report.challenging),
        non_challenging=[person_card(one) for one in report.non_challenging[:max_persons]],
        non_challenging_count=len(report.non_challenging),
        ranking=_table(ranking),
        ranking_count=len(report.scored),
        settings=_pairs(report.settings),
        **_skipped(report),
    )


def write_run_report(path: str | os.PathLike[str], summary: RunSummary, max_persons: int = 24) -> int:
    """Writes the report of a whole run; returns its size in bytes. Arguments and errors as of the extraction report."""
    _check_count(max_persons, "write_run_report")
    clips = list(summary.clips[:MAX_CLIPS])
    kept, dropped = _frame_examples([*summary.clips, *summary.rejected])
    series = {name: np.asarray(values) for name, values in summary.error_series.items() if np.size(values)}
    unit = summary.error_unit
    return _write(
        path,
        "run.html.j2",
        title=summary.title,
        subtitle=summary.subtitle,
        note=stand_in_note([*summary.worst, *summary.best]),
        table=_table(summary.rows, summary.highlight),
        table_note=summary.table_note,
        rounds=_table(summary.rounds),
        funnel=_pairs(summary.funnel),
        figures=[_histogram(series, unit, 40)] if series else [],
        improved=[comparison_card(before, after, unit) for before, after in summary.improved[:max_persons]],
        improved_count=len(summary.improved),
        worst=[person_card(one) for one in summary.worst[:max_persons]],
        worst_count=len(summary.worst),
        best=[person_card(one) for one in summary.best[:max_persons]],
        best_count=len(summary.best),
        clips=[clip_card(clip, _CLIP_BYTES) for clip in clips],
        clips_count=len(summary.clips),
        kept=kept,
        dropped=dropped,
        settings=_pairs(summary.settings),
        timings=[(str(name), _seconds(float(value))) for name, value in summary.timings.items()],
        notes=[str(note) for note in summary.notes],
    )


def _frame_examples(clips: Sequence[Clip]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Cards of some kept and some rejected frames, at most one of each per clip; none if nothing was rejected."""
    if all(np.all(clip.keep) for clip in clips):
        return [], []
    groups: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
    for clip in clips:
        for group, wanted in zip(groups, (True, False)):
            frames = np.flatnonzero(np.asarray(clip.keep, bool) == wanted)
            if len(frames) and len(group) < MAX_FRAMES:
                group.append(frame_card(clip, int(frames[len(frames) // 2])))
    return groups


def _histogram(series: Mapping[str, np.ndarray], unit: str, bins: int, xlabel: str | None = None) -> dict[str, Any]:
    medians = (f"median of {name} {np.median(v):.3g} {unit}".rstrip() for name, v in series.items() if np.size(v))
    alt = "Histogram of the errors: " + "; ".join(medians) + "."
    return _figure(lambda dark: plots.error_histogram(series, unit, bins, dark, xlabel), alt)


def _check_count(max_persons: int, where: str) -> None:
    if max_persons < 0:
        raise InputError("max_persons must not be negative", where=where, got=max_persons)


def _rank_alt(report: ErrorReport) -> str:
    first, last = report.scored[0].error, report.scored[-1].error
    return f"Error by rank: it falls from {first:.3g} to {last:.3g} over {len(report.scored)} persons."


def _joints_alt(groups: Mapping[str, Mapping[str, float]]) -> str:
    name, errors = next(iter(groups.items()))
    top = sorted(errors, key=errors.__getitem__, reverse=True)[:3]
    return f"Mean error per joint. Largest for {name} persons: {', '.join(joint.replace('_', ' ') for joint in top)}."


def write_extraction_pages(
    folder: str | os.PathLike[str], report: ErrorReport, per_page: int = 60, only_selected: bool = True
) -> list[Path]:
    """Writes ``index.html``, ``rank-0001.html`` … and one page per worst joint. No page loads anything from elsewhere.

    Args:
        folder: Made if absent; pages of an earlier report are replaced, others stay.
        report: What the extractor found.
        per_page: Persons per page (of a joint: at most so many).
        only_selected: Show challenging and non-challenging persons, or everyone scored.

    Returns:
        The files, the index first.

    Raises:
        InputError: ``per_page`` below 1, or nobody to show.
        FileError: The folder cannot be written.
    """
    chosen = report.selections
    items = [item for item in report.scored if not only_selected or item.person.person_id in chosen]
    if per_page < 1 or not items:
        raise InputError("pages need persons and at least one per page", got=f"{len(items)} persons, {per_page}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError("could not make a folder", where=folder, got=error.strerror) from error
    parts = [items[i : i + per_page] for i in range(0, len(items), per_page)]
    names = [f"rank-{number:04d}.html" for number in range(1, len(parts) + 1)]
    pages, written = [], []
    for number, (part, name) in enumerate(zip(parts, names)):
        title = f"Ranks {part[0].rank} to {part[-1].rank}"
        before = names[number - 1] if number else None
        after = names[number + 1] if number + 1 < len(names) else None
        written.append(_page(folder / name, title, part, before, after))
        pages.append({"file": name, "title": f"{title}: errors {part[0].error:.3g} to {part[-1].error:.3g}"})
    joints = []
    for joint, group in _by_worst_joint(items).items():
        name = f"joint-{joint}.html"
        written.append(_page(folder / name, f"Worst joint: {joint.replace('_', ' ')}", group[:per_page], None, None))
        joints.append({"file": name, "title": f"{joint.replace('_', ' ')}: {len(group)}"})
    index = folder / "index.html"
    _write(
        index,
        "persons_index.html.j2",
        title="Where the estimator fails",
        subtitle=f"{len(items)} of {report.settings.get('persons_scored', len(report.scored))} scored persons.",
        note=stand_in_note(report.scored),
        funnel=[],
        pages=pages,
        joints=joints,
        **_skipped(report),
    )
    return [index, *written]


def _skipped(report: ErrorReport) -> dict[str, Any]:
    shown = [(str(name), str(reason)) for name, reason in report.skipped[:MAX_RANKING_ROWS]]
    return {"skipped": shown, "skipped_count": len(report.skipped)}


def _page(path: Path, title: str, part: Sequence[ScoredPerson], before: str | None, after: str | None) -> Path:
    values = {
        "title": title,
        "subtitle": "",
        "note": stand_in_note(part),
        "funnel": [],
        "heading": title,
        "previous": before,
        "next": after,
    }
    _write(path, "persons_page.html.j2", **values, cards=[person_card(item) for item in part])
    return path


def _by_worst_joint(items: Sequence[ScoredPerson]) -> dict[str, list[ScoredPerson]]:
    """Joint name → persons whose largest error it has, the joint with most persons first."""
    found: dict[str, list[ScoredPerson]] = {}
    for item in items:
        names = skeletons.get(item.person.skeleton).joints
        worst = names[int(np.argmax(np.where(item.joint_used, item.joint_errors, -1)))]
        found.setdefault(worst, []).append(item)
    return dict(sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0])))
