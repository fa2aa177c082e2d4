"""How values show themselves: arrays by their shape, so that a person or a clip fits into one line of a notebook."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import numpy as np

_MOST = 290  # characters of a repr; a value in a list of values should still fit on a screen
_TEXT, _FEW = 40, 6  # characters of a text, and numbers of a tuple, that are written out


def short_repr(value: Any, /, **parts: Any) -> str:
    """``repr`` in less than 300 characters; set it as ``__repr__`` in a dataclass.

    Arrays are shown as their shape, collections as their length unless they are a few numbers, other values by their
    name; what is None, empty or the default of its field is left out.

    Args:
        value: A dataclass or named tuple, or anything else with ``parts``.
        parts: What is shown in place of the fields.

    Example:
        >>> from posesyn.types import ArrayImage
        >>> ArrayImage(np.zeros((48, 64, 3), np.uint8), "photo")
        ArrayImage(pixels=(48, 64, 3), name='photo')
    """
    named = parts or (changes_of(value) if is_dataclass(value) else value._asdict())
    named = {name: one for name, one in named.items() if one is not None or not parts}
    shown = [f"{name}={text}" for name, one in named.items() if (text := _shown(one))]
    text = f"{type(value).__name__}({', '.join(shown)})"
    return text if len(text) <= _MOST else f"{text[: _MOST - 4]}...)"


def changes_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not their default's, by name."""
    found = {}
    for one in fields(value):
        got, default = getattr(value, one.name), default_of(one)
        if type(got) is not type(default) or got != default:
            found[one.name] = got
    return found


def default_of(field: Field[Any]) -> Any:
    """What a field of a dataclass is unless it is told; ``dataclasses.MISSING`` where it must be told."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _TEXT else f"{value[: _TEXT - 3]}...") if value else ""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if value is None or isinstance(value, bool | int | np.generic):
        return str(value)
    if isinstance(value, os.PathLike):
        return _shown(os.fspath(value)[-_TEXT:])
    if hasattr(value, "shape"):
        return str(tuple(value.shape))
    if isinstance(value, Collection):
        if isinstance(value, list | tuple) and 0 < len(value) <= _FEW and {*map(type, value)} <= {int, float}:
            return repr(value)
        kind = "entries" if isinstance(value, Mapping) else "items"
        return f"<{len(value)} {kind}>" if len(value) else ""
    # What is compared by its values is small: settings, a view. What holds arrays is compared by identity.
    if is_dataclass(value) and type(value).__eq__ is not object.__eq__:
        return repr(value)
    name = getattr(value, "person_id", None) or getattr(value, "name", None)
    return f"{type(value).__name__}({_shown(str(name))})" if name else type(value).__name__
