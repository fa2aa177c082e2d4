"""An extraction as a folder of linked pages: every chosen person can be looked at, by rank and by worst joint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.report.cards import person_card
from posesyn.report.html import MAX_RANKING_ROWS, _write
from posesyn.types import ErrorReport, ScoredPerson


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
    items = list(report.scored)
    if only_selected:
        chosen = {item.person.person_id for item in (*report.challenging, *report.non_challenging)}
        items = [item for item in items if item.person.person_id in chosen]
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
        funnel=[],
        pages=pages,
        joints=joints,
        skipped=[(str(name), str(reason)) for name, reason in report.skipped[:MAX_RANKING_ROWS]],
        skipped_count=len(report.skipped),
    )
    return [index, *written]


def _page(path: Path, title: str, part: Sequence[ScoredPerson], before: str | None, after: str | None) -> Path:
    _write(
        path,
        "persons_page.html.j2",
        title=title,
        subtitle="",
        funnel=[],
        heading=title,
        previous=before,
        next=after,
        cards=[person_card(item) for item in part],
    )
    return path


def _by_worst_joint(items: Sequence[ScoredPerson]) -> dict[str, list[ScoredPerson]]:
    """Joint name → persons whose largest error it has, the joint with most persons first."""
    found: dict[str, list[ScoredPerson]] = {}
    for item in items:
        names = skeletons.get(item.person.skeleton).joints
        worst = names[int(np.argmax(np.where(item.joint_used, item.joint_errors, -1)))]
        found.setdefault(worst, []).append(item)
    return dict(sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0])))
