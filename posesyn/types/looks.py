"""How values show themselves: arrays by their shape, so that a person or a clip fits into one line of a notebook."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

_MOST = 290  # characters of a repr; a value in a list of values should still fit on a screen
_TEXT = 40


def short_repr(value: Any) -> str:
    """``repr`` of a dataclass in less than 300 characters; set it as ``__repr__`` in the class.

    Arrays are shown as their shape, collections as their length, other values by their name; what is None or empty is
    left out.

    Example:
        >>> from posesyn.types import ArrayImage
        >>> ArrayImage(np.zeros((48, 64, 3), np.uint8), "photo")
        ArrayImage(pixels=(48, 64, 3), name='photo')
    """
    parts = []
    for one in fields(value):
        shown = _shown(getattr(value, one.name))
        if shown:
            parts.append(f"{one.name}={shown}")
    text = f"{type(value).__name__}({', '.join(parts)})"
    return text if len(text) <= _MOST else f"{text[: _MOST - 4]}...)"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _TEXT else f"{value[: _TEXT - 3]}...") if value else ""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if value is None or isinstance(value, bool | int | np.generic):
        return "" if value is None else str(value)
    if isinstance(value, os.PathLike):
        return _shown(os.fspath(value)[-_TEXT:])
    if hasattr(value, "shape"):
        return str(tuple(value.shape))
    if isinstance(value, Collection):
        kind = "entries" if isinstance(value, Mapping) else "items"
        return f"<{len(value)} {kind}>" if len(value) else ""
    name = getattr(value, "person_id", None) or getattr(value, "name", None)
    return f"{type(value).__name__}({_shown(str(name))})" if name else type(value).__name__
