"""Figures for reports. Each function returns a Matplotlib figure and shows nothing, so no window system is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posesyn import skeletons
from posesyn.errors import InputError
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
    if values.size and not np.isfinite(values).all():
        raise InputError(
            "errors to be plotted must be finite", where=f"series '{name}'", got=f"{(~np.isfinite(values)).sum()} bad"
        )
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
    for i, (name, group) in enumerate(
        {"challenging": report.challenging, "non-challenging": report.non_challenging}.items()
    ):
        ids = {one.person.person_id for one in group}
        ranks = [rank for rank, one in enumerate(report.scored) if one.person.person_id in ids]
        if ranks:
            color = (SERIES[dark][5], SERIES[dark][2])[i]
            axes.axvspan(min(ranks) - 0.5, max(ranks) + 0.5, color=color, alpha=0.18, label=f"{name} ({len(ranks)})")
    marker = "o" if len(errors) <= 60 else None
    axes.plot(np.arange(len(errors)), errors, color=SERIES[dark][0], linewidth=1.8, marker=marker, markersize=3.5)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.5, max(len(errors), 1) - 0.5)
    if report.challenging or report.non_challenging:
        _legend(axes, dark, loc="upper right")
    return figure
