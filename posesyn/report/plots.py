"""Figures for reports. Each function returns a Matplotlib figure and shows nothing, so no window system is touched."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.types import ErrorReport, ScoredPerson

# Okabe & Ito's colour-blind safe palette, ordered so that neighbours differ in lightness too; brighter on dark paper.
SERIES = {
    False: ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"),
    True: ("#56B4E9", "#F0B429", "#2BC79B", "#E39BC6", "#8FB8FF", "#FF8A4C"),
}
_INK = {False: ("#22262e", "#d5d9e0", "#ffffff"), True: ("#dfe3ea", "#3a414d", "#1b1f27")}


def _axes(width: float, height: float, dark: bool) -> tuple[Figure, Axes]:
    """An empty figure in the colours of the report; no global Matplotlib state is changed."""
    ink, line, paper = _INK[dark]
    figure = Figure(figsize=(width, height), facecolor=paper, layout="constrained")
    axes = figure.add_subplot(facecolor=paper)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(line)
    axes.tick_params(colors=ink, labelsize=9)
    axes.grid(True, color=line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    return figure, axes


def _plain(text: str) -> str:
    """Text that Matplotlib prints as it is: ``$`` starts no formula and a leading ``_`` does not hide a series."""
    text = str(text).replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def _legend(axes: Axes, dark: bool, **options) -> None:
    ink, line, paper = _INK[dark]
    axes.legend(labelcolor=ink, facecolor=paper, edgecolor=line, fontsize=9, framealpha=0.9, **options)


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64).ravel()
    bad = (~np.isfinite(values)).sum()
    if bad:
        raise InputError("errors to be plotted must be finite", where=f"series '{name}'", got=f"{bad} bad")
    return values


def error_histogram(
    series: Mapping[str, np.ndarray], unit: str = "mm", bins: int = 40, dark: bool = False, xlabel: str | None = None
) -> Figure:
    """Histograms of several named error series over common bins, with the median of each as a dashed line.

    Args:
        series: Name → errors of any shape; empty series are left out.
        unit: Unit for the axis and the medians.
        bins: Number of bins up to the 99th percentile of all values; larger ones are counted in the last bin.

    Raises:
        InputError: A series holds NaN or infinite values.
    """
    figure, axes = _axes(7.2, 3.2, dark)
    clean = {name: values for name, raw in series.items() if (values := _finite(name, raw)).size}
    label = xlabel or "error"
    axes.set_xlabel(f"{label} ({unit})" if unit else label)
    axes.set_ylabel("share of persons (%)")
    if not clean:
        axes.text(0.5, 0.5, "no values", ha="center", va="center", color=_INK[dark][0], transform=axes.transAxes)
        return figure
    pooled = np.concatenate(list(clean.values()))
    low, high = float(min(pooled.min(), 0.0)), float(np.percentile(pooled, 99))
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    for i, (name, values) in enumerate(clean.items()):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        shares, color = 100.0 * counts / values.size, SERIES[dark][i % 6]
        median = float(np.median(values))
        digits = 1 if median >= 10 else 3
        text = f"{name}: median {median:.{digits}f} {unit}".rstrip()
        axes.stairs(shares, edges, color=color, linewidth=1.8, label=_plain(text))
        axes.stairs(shares, edges, color=color, alpha=0.13, fill=True)
        axes.axvline(median, color=color, linestyle=(0, (4, 3)), linewidth=1.3)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    _legend(axes, dark)
    return figure


def mean_joint_errors(scored: Sequence[ScoredPerson]) -> dict[str, float]:
    """Joint name → mean error over the persons in which that joint was used, in the order of first appearance."""
    sums: dict[str, list[float]] = {}
    for one in scored:
        for name, error, used in zip(skeletons.get(one.person.skeleton).joints, one.joint_errors, one.joint_used):
            if used:
                sums.setdefault(name, []).append(float(error))
    return {name: float(np.mean(values)) for name, values in sums.items()}


def joint_error_bars(groups: Mapping[str, Mapping[str, float]], unit: str = "", dark: bool = False) -> Figure:
    """Horizontal bars of the mean error per joint, one colour per group, largest joint of the first group on top.

    Args:
        groups: Group name → (joint name → error), see :func:`mean_joint_errors`.
    """
    names = list(dict.fromkeys(joint for errors in groups.values() for joint in errors))
    first = next(iter(groups.values()), {})
    names.sort(key=lambda joint: first.get(joint, 0.0))
    figure, axes = _axes(7.2, max(2.2, 0.9 + 0.33 * len(names)), dark)
    axes.set_xlabel(f"mean error ({unit})" if unit else "mean error")
    thickness = 0.8 / max(len(groups), 1)
    for i, (group, errors) in enumerate(groups.items()):
        rows = np.arange(len(names)) + (0.5 * (len(groups) - 1) - i) * thickness
        widths = [errors.get(joint, 0.0) for joint in names]
        axes.barh(rows, widths, thickness * 0.92, color=SERIES[dark][i % 6], label=_plain(group))
    axes.set_yticks(np.arange(len(names)), [_plain(joint.replace("_", " ")) for joint in names])
    axes.grid(False, axis="y")
    if groups and names:
        _legend(axes, dark, loc="lower right")
    return figure


def error_by_rank(report: ErrorReport, dark: bool = False) -> Figure:
    """Error of each scored person by rank, with the challenging and non-challenging ends shaded."""
    figure, axes = _axes(7.2, 3.2, dark)
    errors = _finite("scored persons", np.array([one.error for one in report.scored]))
    axes.set_xlabel("rank (0 = largest error)")
    axes.set_ylabel("normalised 2D error")
    groups = (("challenging", report.challenging, 5), ("non-challenging", report.non_challenging, 2))
    for name, group, series in groups:
        ids = {one.person.person_id for one in group}
        ranks = [rank for rank, one in enumerate(report.scored) if one.person.person_id in ids]
        if ranks:
            color = SERIES[dark][series]
            axes.axvspan(min(ranks) - 0.5, max(ranks) + 0.5, color=color, alpha=0.18, label=f"{name} ({len(ranks)})")
    marker = "o" if len(errors) <= 60 else None
    axes.plot(np.arange(len(errors)), errors, color=SERIES[dark][0], linewidth=1.8, marker=marker, markersize=3.5)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.5, max(len(errors), 1) - 0.5)
    if report.challenging or report.non_challenging:
        _legend(axes, dark, loc="upper right")
    return figure


# Column of curves.csv → its line's name.
_HEALTH = {
    "gan/usable": "inside the picture",
    "gan/variety": "variety of poses",
    "gan/variety_2d": "variety of 2D poses",
    "gan/views": "spread of views",
    "gan/beyond": "beyond human range",
}


def learning_curves(runs: Mapping[str, str | os.PathLike[str]] | str | os.PathLike[str]) -> Figure:
    """How trainings of ``train_lifter`` and ``train_poseaug`` went: validation error and, of PoseAug, its health.

    Args:
        runs: Folder of a run or its ``curves.csv``; several by name are drawn together. The health is the last one's
            that has it.

    Raises:
        FileError: No curves there, or none with an epoch. InputError: No runs.
    """
    if not isinstance(runs, Mapping):
        runs = {Path(runs).name: runs}
    if not runs:
        raise InputError("learning_curves needs at least one run", where="learning_curves")
    tables = {name: _curves(Path(path)) for name, path in runs.items()}
    healthy = [table for table in tables.values() if any(len(table.get(key, ())) for key in _HEALTH)]
    figure = Figure(figsize=(9.5 if healthy else 5, 3.4), layout="constrained")
    panels = figure.subplots(1, 2 if healthy else 1, squeeze=False)[0]
    for (name, table), colour in zip(tables.items(), SERIES[False] * len(tables)):
        points = table.get("val/mpjpe", np.zeros((0, 2)))
        if not len(points):  # trained without validation
            continue
        # A run of more epochs, such as a baseline of two passes for each of PoseAug's, is drawn over the same width.
        share = points[:, 0] / (points[-1, 0] or 1)
        panels[0].plot(share, points[:, 1], label=name, color=colour)
    panels[0].set(xlabel="share of the training", ylabel="validation MPJPE [mm]")
    if panels[0].lines:
        panels[0].legend(fontsize=8)
    if healthy:
        for (key, label), colour in zip(_HEALTH.items(), SERIES[False]):
            points = healthy[-1].get(key, np.zeros((0, 2)))
            if len(points):
                panels[1].plot(points[:, 0], points[:, 1], label=label, color=colour)
        panels[1].set(xlabel="epoch", ylabel="share")
        panels[1].set_ylim(bottom=0)
        panels[1].legend(fontsize=8)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure


def _curves(path: Path) -> dict[str, np.ndarray]:
    """Column → (epochs, 2): epoch and value, rows without a finite value left out."""
    file = path / "curves.csv" if path.is_dir() else path
    if not file.is_file():
        wanted = "curves.csv of train_lifter or train_poseaug"
        raise FileError("there are no learning curves", where=file, expected=wanted)
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    found: dict[str, list] = {}
    try:
        for row in rows:
            for key, text in row.items():
                if key and text and np.isfinite(value := float(text)):
                    found.setdefault(key, []).append((float(row["epoch"]), value))
    except (KeyError, TypeError, ValueError) as error:
        wanted = "numbers, an epoch in every row"
        raise FileError("learning curves cannot be read", where=file, expected=wanted) from error
    if not found.keys() - {"epoch"}:
        raise FileError("learning curves hold no epoch", where=file, expected="values beside the epochs")
    return {key: np.array(points) for key, points in found.items()}
