"""What notebooks show of a value as the last line of a cell: motions and clips move, reports and data sets are grids.

:func:`posesyn.report.register` tells IPython; the values themselves know nothing of pictures. Importing this loads
nothing that draws: that comes when a cell asks.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from posesyn.errors import FileError, InputError
from posesyn.types import Clip, ErrorReport, Motion, Person, ScoredPerson

# Module and class; a subclass of one of them (a reader of a data format) is shown the same way.
_SHOWN = (
    ("posesyn.types.motion", "Motion"),
    ("posesyn.types.clip", "Clip"),
    ("posesyn.types.person", "Person"),
    ("posesyn.types.scores", "ScoredPerson"),
    ("posesyn.types.scores", "ErrorReport"),
    ("posesyn.data.persons.base", "AnnotatedPersons"),
    ("posesyn.data.persons.rendered", "RenderedClips"),
    ("posesyn.detectors.persons", "FoundPersons"),
)


def register(formatter: Any = None) -> bool:
    """Makes notebooks show motions, clips, persons, reports and data sets as pictures.

    ``import posesyn`` calls it where IPython runs already, and so does ``import posesyn.report``.

    Args:
        formatter: IPython's formatter of ``text/html``; None takes that of the running shell.

    Returns:
        Whether there was one to tell.
    """
    if formatter is None:
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else getattr(ipython, "get_ipython", lambda: None)()
        formatter = None if shell is None else shell.display_formatter.formatters["text/html"]
    if formatter is None:
        return False
    for module, name in _SHOWN:
        formatter.for_type_by_name(module, name, value_html)
    return True


# Our own choice: small enough to keep a notebook with dozens of values light.
_MAX_BYTES = 150_000
_SIZE = 200
_MAX_FRAMES = 200
_GRID = 8  # persons shown of a report or a data set
_CROP = 1.3  # longer sides of the box that are shown of an annotated person


def _figure(uri: str, title: str, facts: str, size: int, caption: str = "") -> str:
    title, below = html.escape(title), f"<br>{html.escape(caption[:200])}" if caption else ""
    return (
        f'<figure style="display:inline-block;margin:4px;max-width:{size}px;font:12px sans-serif">'
        f'<img src="{uri}" alt="{title}"><figcaption><b>{title}</b><br>{html.escape(facts)}{below}</figcaption>'
        "</figure>"
    )


def _moving(value: Motion | Clip, size: int) -> str:
    from posesyn.report.animation import animation_uri

    return animation_uri(value, max_size=size, max_bytes=_MAX_BYTES)


def motion_html(motion: Motion, size: int = _SIZE) -> str:
    """A moving stick figure with its caption as one HTML element without scripts and without outside files.

    Longer motions than 200 frames are shown with every n-th frame, in their true time.
    """
    shown = motion.take(range(0, len(motion), -(-len(motion) // _MAX_FRAMES)))
    uri = _moving(shown, size)
    facts = f"{len(motion)} frames at {motion.fps:g} fps ({len(motion) / motion.fps:.1f} s)"
    if motion.reprojection_error is not None:
        facts += f", reprojection error {motion.reprojection_error:.3f}"
    return _figure(uri, motion.motion_id, facts, size, motion.caption)


def clip_html(clip: Clip, size: int = _SIZE) -> str:
    """The clip, moving; frames that the filter dropped have a red rim. No scripts, no outside files."""
    uri = _moving(clip, size)
    height, width = clip.frames.shape[1:3]
    facts = f"{len(clip)} frames of {width} x {height} at {clip.fps:g} fps, {int(np.sum(clip.keep))} kept"
    return _figure(uri, clip.clip_id, facts, size, clip.caption)


def person_html(person: Person | ScoredPerson, size: int = _SIZE) -> str:
    """One person, cut out, with the annotated joints, and the prediction where there is one.

    An image that cannot be read is said in words, so that the others are seen.
    """
    from posesyn.report.cards import worst_joints
    from posesyn.report.embedding import as_rgb, image_uri
    from posesyn.report.overlays import crop_square, draw_persons, person_crop_overlay

    scored = person if isinstance(person, ScoredPerson) else None
    one = person.person if isinstance(person, ScoredPerson) else person
    facts = f"{int(one.visible.sum())} joints of {one.skeleton}"
    try:
        if scored is not None:
            picture = person_crop_overlay(scored, size)
            facts = f"rank {scored.rank}, error {scored.error:.3g}; worst: {', '.join(worst_joints(scored))}"
        else:
            box = np.asarray(one.body_box_xyxy, np.float64).reshape(2, 2)
            side = max(_CROP * float((box[1] - box[0]).max()), 8.0)
            drawn = draw_persons(as_rgb(one.image.load(), one.person_id), [one])
            picture, _ = crop_square(drawn, box.mean(0), side, size)
    except FileError as error:
        picture, facts = np.full((size, size, 3), 128, np.uint8), str(error)
    return _figure(image_uri(picture, size), one.person_id, facts, size, one.captions[0] if one.captions else "")


def report_html(report: ErrorReport, size: int = _SIZE) -> str:
    """The persons with the largest errors, and how many there are of each kind."""
    from posesyn.report.cards import stand_in_note

    head = (
        f"{len(report)} persons scored: {len(report.challenging)} challenging, {len(report.non_challenging)} "
        f"non-challenging; {len(report.skipped)} skipped"
    )
    note = stand_in_note(report.scored)
    head += f". {note}" if note else ""
    return _grid(f"ErrorReport, {head}", (report.challenging or report.scored)[:_GRID], size)


def persons_html(persons: Sequence[Person], size: int = _SIZE) -> str:
    """Some persons of a data set, evenly spread over it."""
    rows = np.unique(np.linspace(0, len(persons) - 1, min(_GRID, len(persons))).round().astype(int))
    skipped = len(getattr(persons, "skipped", ()))
    head = f"{type(persons).__name__}, {len(persons)} persons" + (f", {skipped} skipped" if skipped else "")
    return _grid(head, [persons[int(row)] for row in rows], size)


def _grid(head: str, persons: Sequence[Person | ScoredPerson], size: int) -> str:
    return f"<div><p>{html.escape(head)}</p>{''.join(person_html(person, size) for person in persons)}</div>"


def value_html(value: Any, size: int = _SIZE) -> str:
    """Any of the values above as HTML; several of them side by side.

    Raises:
        InputError: Something else.
    """
    from posesyn.data.persons.base import AnnotatedPersons
    from posesyn.data.persons.rendered import RenderedClips
    from posesyn.detectors.persons import FoundPersons

    drawn: dict[Any, Callable[..., str]] = {Motion: motion_html, Clip: clip_html, Person: person_html}
    drawn |= {ScoredPerson: person_html, ErrorReport: report_html}
    drawn |= dict.fromkeys((AnnotatedPersons, RenderedClips, FoundPersons), persons_html)
    for kind, draw in drawn.items():
        if isinstance(value, kind):
            return draw(value, size)
    if isinstance(value, list | tuple):
        return "".join(value_html(one, size) for one in value)
    problem = "only motions, clips, persons, reports, data sets and lists of them can be shown"
    raise InputError(problem, where="report.show", got=type(value).__name__)


class _Picture:
    """Something that a notebook shows."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text


def show(values: Any, size: int = _SIZE) -> _Picture:
    """One or several values as the last line of a notebook cell; ``size`` in pixels of each picture.

    Raises:
        InputError: Something that has no picture.
    """
    return _Picture(value_html(values, size))
