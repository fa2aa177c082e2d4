"""What notebooks show of a motion: ``motion`` as the last line of a cell, or :func:`show` for several."""

from __future__ import annotations

import html
from collections.abc import Sequence

from posesyn.errors import InputError
from posesyn.report.animation import animation_uri
from posesyn.types import Motion

# Our own choice: small enough to keep a notebook with dozens of motions light.
_MAX_BYTES = 150_000
_SIZE = 200
_MAX_FRAMES = 200


def motion_html(motion: Motion, size: int = _SIZE) -> str:
    """A moving stick figure with its caption as one HTML element without scripts and without outside files.

    Longer motions than 200 frames are shown with every n-th frame, in their true time.
    """
    shown = motion.take(range(0, len(motion), -(-len(motion) // _MAX_FRAMES)))
    uri = animation_uri(shown, max_size=size, max_bytes=_MAX_BYTES)
    title = html.escape(motion.motion_id)
    facts = f"{len(motion)} frames at {motion.fps:g} fps ({len(motion) / motion.fps:.1f} s)"
    if motion.reprojection_error is not None:
        facts += f", reprojection error {motion.reprojection_error:.3f}"
    caption = f"<br>{html.escape(motion.caption[:200])}" if motion.caption else ""
    return (
        f'<figure style="display:inline-block;margin:4px;max-width:{size}px;font:12px sans-serif">'
        f'<img src="{uri}" alt="{title}"><figcaption><b>{title}</b><br>{facts}{caption}</figcaption></figure>'
    )


def motions_html(motions: Sequence[Motion], size: int = _SIZE) -> str:
    """Several motions side by side.

    Raises:
        InputError: Something other than motions.
    """
    motions = [motions] if isinstance(motions, Motion) else list(motions)
    if not all(isinstance(motion, Motion) for motion in motions):
        raise InputError("only motions can be shown", where="report.show", got=[type(m).__name__ for m in motions][:5])
    return "".join(motion_html(motion, size) for motion in motions)


class _Picture:
    """Something that a notebook shows."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text


def show(motions: Motion | Sequence[Motion], size: int = _SIZE) -> _Picture:
    """One or several motions as the last line of a notebook cell; ``size`` in pixels."""
    return _Picture(motions_html(motions, size))
