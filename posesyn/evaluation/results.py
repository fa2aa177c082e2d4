"""What an evaluation found: values per person, their means with intervals, files, and the comparison of two runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from posesyn import metrics
from posesyn.errors import FileError, InputError
from posesyn.evaluation.protocols import HIGHER_IS_BETTER, MPJPE, PA_MPJPE
from posesyn.storage.files import read_json, write_bytes, write_json

SUMMARY, TABLE = "evaluation.json", "persons.parquet"
VERSION = 1
_UNIT = {"mm": "joint_errors_mm", "px": "joint_errors_px"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Values per person, in the order of ``person_ids``. Compare only numbers of one protocol.

    Attributes:
        person_ids: N names.
        values: Metric → (N,).
        groups: N names of sequences (track, else image), for intervals.
        actions: N names of actions, or empty strings.
        joint_errors: (N, J) error of each joint in ``joint_unit``, after the root was removed.
        joint_used: (N, J) bool.
        joints: J names.
        joint_unit: ``mm`` or ``px``.
        settings: The protocol, written out, and what it was applied with.
        skipped: (person_id, reason) of persons that are no part of it.
    """

    person_ids: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    groups: tuple[str, ...]
    actions: tuple[str, ...]
    joint_errors: np.ndarray
    joint_used: np.ndarray
    joints: tuple[str, ...]
    joint_unit: str = "mm"
    settings: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def protocol(self) -> str:
        """The protocol in words."""
        return str(self.settings.get("description", ""))

    @property
    def mpjpe_mm(self) -> np.ndarray:
        """(N,) MPJPE."""
        return self.values[MPJPE]

    @property
    def pa_mpjpe_mm(self) -> np.ndarray:
        """(N,) PA-MPJPE."""
        return self.values[PA_MPJPE]

    def summary(self) -> dict[str, float]:
        """Means over persons."""
        return {"persons": len(self.person_ids), **{name: float(v.mean()) for name, v in self.values.items()}}

    def intervals(self, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> dict[str, metrics.Interval]:
        """Means with bootstrap intervals over sequences."""
        return {
            name: metrics.bootstrap_mean(value, self.groups, resamples=resamples, level=level, seed=seed)
            for name, value in self.values.items()
        }

    def by_joint(self) -> dict[str, float]:
        """Mean error of each joint over the persons that have it."""
        counts = self.joint_used.sum(0)
        sums = np.where(self.joint_used, self.joint_errors, 0).sum(0)
        return {name: float(s / c) for name, s, c in zip(self.joints, sums, counts) if c}

    def by_action(self) -> dict[str, dict[str, float]]:
        """Means per action; the mean of these is the literature's mean over actions, not over frames."""
        names = [action for action in dict.fromkeys(self.actions) if action]
        rows = np.array(self.actions)
        return {
            action: {name: float(value[rows == action].mean()) for name, value in self.values.items()}
            for action in names
        }

    def rows(self, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> list[dict[str, Any]]:
        """The table: one row per metric."""
        counts = {"persons": len(self.person_ids), "sequences": len(set(self.groups))}
        found = self.intervals(resamples, level, seed).items()
        return [{"metric": name, "mean": one.mean, **_bounds(one, level), **counts} for name, one in found]

    def table(self) -> pd.DataFrame:
        """One row per person."""
        frame = pd.DataFrame(
            {"person_id": self.person_ids, "sequence": self.groups, "action": self.actions, **self.values}
        )
        frame[_UNIT[self.joint_unit]] = [row.tolist() for row in np.asarray(self.joint_errors, np.float32)]
        frame["joint_used"] = [row.tolist() for row in self.joint_used]
        return frame

    def save(self, folder: str | os.PathLike[str], resamples: int = 2000, level: float = 0.95, seed: int = 0) -> None:
        """Writes ``evaluation.json`` (protocol, means, intervals, joints, actions, skipped) and ``persons.parquet``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / TABLE, self.table().to_parquet(index=False))
        by_action = self.by_action()
        names = self.values if by_action else ()
        write_json(
            folder / SUMMARY,
            {
                "version": VERSION,
                "settings": dict(self.settings),
                "results": self.rows(resamples, level, seed),
                "interval": {
                    "method": "bootstrap over sequences",
                    "resamples": resamples,
                    "level": level,
                    "seed": seed,
                },
                "joints": list(self.joints),
                "joint_unit": self.joint_unit,
                "by_joint": self.by_joint(),
                "by_action": by_action,
                "mean_over_actions": {name: float(np.mean([v[name] for v in by_action.values()])) for name in names},
                "skipped": [{"person_id": name, "reason": reason} for name, reason in self.skipped],
            },
        )


def _bounds(interval: metrics.Interval | metrics.PairedDifference, level: float) -> dict[str, float]:
    return {f"{100 * level:g} % low": interval.low, f"{100 * level:g} % high": interval.high}


def load_evaluation(folder: str | os.PathLike[str]) -> Evaluation:
    """Reads what :meth:`Evaluation.save` wrote. Raises FileError: missing or damaged files."""
    folder = Path(folder)
    summary = read_json(folder / SUMMARY)
    if not isinstance(summary, dict) or summary.get("version") != VERSION:
        raise FileError("an evaluation has another format", where=folder / SUMMARY, expected=f"version {VERSION}")
    try:
        frame = pd.read_parquet(folder / TABLE)
        unit = summary["joint_unit"]
        names = [row["metric"] for row in summary["results"]]
        joints = len(summary["joints"])
        return Evaluation(
            tuple(frame["person_id"]),
            {name: frame[name].to_numpy(np.float64) for name in names},
            tuple(frame["sequence"]),
            tuple(frame["action"]),
            np.array(frame[_UNIT[unit]].tolist(), np.float32).reshape(-1, joints),
            np.array(frame["joint_used"].tolist(), bool).reshape(-1, joints),
            tuple(summary["joints"]),
            unit,
            summary["settings"],
            tuple((entry["person_id"], entry["reason"]) for entry in summary["skipped"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FileError("an evaluation is damaged", where=folder, got=f"{type(error).__name__}: {error}") from error


def compare(
    first: Evaluation, second: Evaluation, *, resamples: int = 10000, level: float = 0.95, seed: int = 0
) -> list[dict[str, Any]]:
    """Two runs on the same persons: one row per metric with the difference second - first, its interval and p-value.

    See :func:`posesyn.metrics.paired_difference` for the test.

    Raises:
        InputError: Other protocols, or other persons.
    """
    names = [run.settings.get("name") for run in (first, second)]
    if names[0] != names[1] or list(first.values) != list(second.values):
        raise InputError("two runs can only be compared under one protocol", where="compare", got=names)
    if set(first.person_ids) != set(second.person_ids):
        only = sorted(set(first.person_ids) ^ set(second.person_ids))
        got, fix = f"{len(only)} are in one of them only: {', '.join(only[:3])}", "evaluate both on the same data"
        raise InputError("two runs must hold the same persons", where="compare", got=got, fix=fix)
    place = {name: row for row, name in enumerate(second.person_ids)}
    order = np.array([place[name] for name in first.person_ids])
    rows = []
    for name, before in first.values.items():
        after = second.values[name][order]
        found = metrics.paired_difference(before, after, first.groups, resamples=resamples, level=level, seed=seed)
        better = "second" if (found.mean > 0) == (name in HIGHER_IS_BETTER) else "first"
        rows.append(
            {
                "metric": name,
                "first": float(before.mean()),
                "second": float(after.mean()),
                "difference": found.mean,
                **_bounds(found, level),
                "p": found.p_value,
                # Names the better one only where the interval excludes zero.
                "better": better if found.low > 0 or found.high < 0 else "equal" if found.mean == 0 else "undecided",
                "persons": len(order),
                "sequences": found.sequences,
            }
        )
    return rows


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""

    def cell(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"

    names = list(rows[0])
    body = [[cell(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in body)) for i, name in enumerate(names)]
    lines = [names, ["-" * width for width in widths], *body]
    return "\n".join("| " + " | ".join(text.ljust(w) for text, w in zip(line, widths)) + " |" for line in lines)
