"""What a finished run says about itself: the input of the run report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posesyn.storage.clip_store import ClipStore
from posesyn.types import Clip, ScoredPerson

SHOWN, SHOWN_REJECTED = 9, 4  # clips on the page, spread over the run


@dataclass(frozen=True)
class RunSummary:
    """Everything the run report shows. All fields but the title may be empty; empty parts are left out.

    Attributes:
        title: Heading of the report.
        subtitle: One or two sentences below it.
        rows: The result table: one ordered mapping column → value per row. The first column names the row. Strings are
            shown as they are, numbers rounded; a column missing from a row is shown as a dash.
        highlight: Value of the first column of the row to stress, usually our own.
        table_note: How the numbers were made (split, number of persons, unit), shown below the table.
        funnel: What was left after each stage, in order: ``{"persons": 900, "challenging": 100, ...}``.
        error_series: Name → errors on the same persons (before, control, ours), for the histogram.
        error_unit: Unit of these errors and of those in ``improved``.
        improved: Pairs (before, after) of the same person, predicted by the estimator before and after training.
        worst: Persons with the largest (normalised) errors.
        best: Persons with the smallest errors.
        clips: Synthesized clips. Frames with ``keep`` False are shown as rejected.
        rejected: Clips dropped as a whole.
        settings: Name → value, shown as text.
        timings: Stage → seconds.
        notes: Sentences for the end of the report.
    """

    title: str
    subtitle: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    highlight: str | None = None
    table_note: str = ""
    funnel: Mapping[str, int] = field(default_factory=dict)
    error_series: Mapping[str, np.ndarray] = field(default_factory=dict)
    error_unit: str = "mm"
    improved: Sequence[tuple[ScoredPerson, ScoredPerson]] = ()
    worst: Sequence[ScoredPerson] = ()
    best: Sequence[ScoredPerson] = ()
    clips: Sequence[Clip] = ()
    rejected: Sequence[Clip] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()


def clips_to_show(store: ClipStore) -> tuple[list[Clip], list[Clip]]:
    """Some clips with frames that the filter kept, spread evenly over the run, and some with frames that it dropped."""
    flags = [store.labels(row)["keep"] for row in range(len(store))]
    kept = [row for row, keep in enumerate(flags) if keep.any()]
    dropped = [row for row, keep in enumerate(flags) if not keep.all()]
    shown = kept[:: max(1, len(kept) // SHOWN)][:SHOWN]
    return [store[row] for row in shown], [store[row] for row in dropped[:SHOWN_REJECTED]]
