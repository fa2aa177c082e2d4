"""Persons, clips and frames as picture cards of a report: plain mappings of text and ``data:`` addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.errors import PosesynError
from posesyn.report.animation import clip_frames, encode_within
from posesyn.report.embedding import data_uri, image_uri
from posesyn.report.overlays import clip_overlay, crop_region, mask_overlay, person_crop_overlay, side_view
from posesyn.storage.clip_store import ClipStore
from posesyn.types import Clip, Person, ScoredPerson
from posesyn.types.looks import short_repr

SHOWN, SHOWN_REJECTED = 9, 4  # clips on the page, spread over the run


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Everything the run report shows. All fields but the title may be empty; empty parts are left out."""

    title: str  #: heading of the report
    subtitle: str = ""  #: one or two sentences below it
    #: The result table: an ordered mapping column → value per row. The first column names the row. Strings are shown as
    #: they are, numbers rounded; a column missing from a row is shown as a dash.
    rows: Sequence[Mapping[str, Any]] = ()
    highlight: str | None = None  #: value of the first column of the row to stress, usually our own
    table_note: str = ""  #: how the numbers were made (split, number of persons, unit), shown below the table
    rounds: Sequence[Mapping[str, Any]] = ()  #: a second table in the same form, a row per round
    funnel: Mapping[str, int] = field(default_factory=dict)  #: what was left after each stage, in order
    error_series: Mapping[str, np.ndarray] = field(default_factory=dict)  #: name → errors on the same persons
    error_unit: str = "mm"  #: of these errors and of those in ``improved``
    improved: Sequence[tuple[ScoredPerson, ScoredPerson]] = ()  #: the same person before and after training
    worst: Sequence[ScoredPerson] = ()  #: persons with the largest (normalised) errors
    best: Sequence[ScoredPerson] = ()  #: persons with the smallest errors
    clips: Sequence[Clip] = ()  #: synthesized clips; frames with ``keep`` False are shown as rejected
    rejected: Sequence[Clip] = ()  #: clips dropped as a whole
    settings: Mapping[str, Any] = field(default_factory=dict)  #: name → value, shown as text
    timings: Mapping[str, float] = field(default_factory=dict)  #: stage → seconds
    notes: Sequence[str] = ()  #: sentences for the end of the report

    __repr__ = short_repr


def clips_to_show(store: ClipStore) -> tuple[list[Clip], list[Clip]]:
    """Some clips with frames that the filter kept, spread evenly over the run, and some with frames that it dropped."""
    flags = [store.labels(row)["keep"] for row in range(len(store))]
    kept = [row for row, keep in enumerate(flags) if keep.any()]
    dropped = [row for row, keep in enumerate(flags) if not keep.all()]
    shown = kept[:: max(1, len(kept) // SHOWN)][:SHOWN]
    return [store[row] for row in shown], [store[row] for row in dropped[:SHOWN_REJECTED]]


PERSON_PX = 288
SIDE_PX = 144
CLIP_PX = 224
FRAME_PX = 160
# Three seconds at 20 frames per second say what a clip shows: our own choice.
CLIP_FRAMES = 60
_CAPTION_LENGTH = 200


def _short(text: str, length: int = _CAPTION_LENGTH) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def format_error(error: float, unit: str = "") -> str:
    """Three digits are enough to compare errors by eye."""
    return f"{error:.{0 if error >= 100 else 1 if error >= 10 else 3}f} {unit}".rstrip()


def worst_joints(scored: ScoredPerson, count: int = 3) -> list[str]:
    """Names of the joints with the largest errors."""
    names = skeletons.get(scored.person.skeleton).joints
    used = np.flatnonzero(scored.joint_used)
    order = used[np.argsort(-np.asarray(scored.joint_errors)[used], kind="stable")]
    return [names[i].replace("_", " ") for i in order[:count]]


def truth_of(person: Person) -> str:
    """Whose 2D joints a picture shows beside the prediction."""
    return "annotated 2D joints" if person.keypoints_by is None else f"2D joints found by {person.keypoints_by}"


def stand_in_note(scored: Sequence[ScoredPerson]) -> str:
    """What a page must say where a detector's keypoints stand in for the 2D truth; nothing where people annotated."""
    names = [one.person.keypoints_by for one in scored if one.person.keypoints_by is not None]
    if not names:
        return ""
    who = "these persons" if len(names) == len(scored) else f"{len(names)} of these {len(scored)} persons"
    return (
        f"Nobody annotated {who}: keypoints that {' and '.join(sorted(set(names)))} found stand in for the 2D truth. "
        "An error says that two networks disagree, not which of them is wrong."
    )


def person_card(
    scored: ScoredPerson, when: str = "", unit: str = "", region: tuple[np.ndarray, float] | None = None
) -> dict[str, Any]:
    """Overlay, side view and numbers of one scored person. ``when`` is appended to the descriptions of the pictures;
    ``region`` is the part of the image to show, see ``person_crop_overlay``."""
    person, when = scored.person, f", {when}" if when else ""
    problem, picture = "", None
    try:
        picture = image_uri(person_crop_overlay(scored, PERSON_PX, region))
    except PosesynError as error:  # one missing image must not stop the whole report
        problem = str(error)
    truth = truth_of(person)
    return {
        "name": person.person_id,
        "truth": truth,
        "rank": scored.rank if scored.rank >= 0 else None,
        "error": format_error(scored.error, unit),
        "joints": worst_joints(scored),
        "caption": _short(person.captions[0]) if person.captions else "",
        "picture": picture,
        "problem": problem,
        "side": image_uri(side_view(scored.prediction.joints_cam[0], scored.prediction.skeleton, SIDE_PX), SIDE_PX),
        "alt": f"{person.person_id} with {truth} (green) and the estimator's prediction (orange){when}",
        "side_alt": f"Prediction for {person.person_id} seen from the side{when}",
    }


def comparison_card(before: ScoredPerson, after: ScoredPerson, unit: str = "") -> dict[str, Any]:
    """The same person as the estimator saw it before and after training."""
    region = crop_region([before, after])
    gain = before.error - after.error
    return {
        "name": before.person.person_id,
        "before": person_card(before, "before training", unit, region),
        "after": person_card(after, "after training", unit, region),
        "change": f"error {format_error(abs(gain), unit)} {'smaller' if gain >= 0 else 'larger'} after training",
    }


def clip_card(clip: Clip, max_bytes: int) -> dict[str, Any]:
    """A clip as an animated picture of at most ``max_bytes``, and a still one for who wants no motion."""
    frames = clip_frames(clip, CLIP_PX, skeleton=False, max_frames=CLIP_FRAMES)
    middle = len(frames) // 2
    return {
        "name": clip.clip_id,
        "caption": _short(clip.caption),
        "person": clip.person_id or "",
        "moving": data_uri(encode_within(frames, clip.fps, max_bytes)),
        "still": image_uri(frames[middle], CLIP_PX),
        "labels": image_uri(clip_overlay(clip, middle), CLIP_PX),
        "mask": image_uri(mask_overlay(clip, middle), CLIP_PX),
        "frames": len(clip),
        "kept": int(np.sum(clip.keep)),
        "fps": f"{clip.fps:g}",
        "alt": f"Synthesized clip {clip.clip_id}: {_short(clip.caption) or 'no caption'}",
    }


def frame_card(clip: Clip, frame: int) -> dict[str, str]:
    """One frame with its labels."""
    return {
        "name": f"{clip.clip_id}, frame {frame}",
        "picture": image_uri(clip_overlay(clip, frame), FRAME_PX),
        "alt": f"Frame {frame} of {clip.clip_id}, {'kept' if clip.keep[frame] else 'rejected'} by the filter",
    }
