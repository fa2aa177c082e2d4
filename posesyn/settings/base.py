"""What all settings have in common: checks, changes by name, and the part that a resumed run must find unchanged."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from posesyn.errors import InputError
from posesyn.types.looks import default_of

# Of a field that decides how fast a result comes, or what is added to it, and not what it is: a resumed run may bring
# another value.
FREE: Mapping[str, Any] = types.MappingProxyType({"free": True})

S = TypeVar("S")


def check_choices(settings: object) -> None:
    """Every field that is a ``Literal`` has one of its values.

    Raises:
        InputError: It has not.
    """
    hints = typing.get_type_hints(type(settings))
    for one in fields(settings):  # type: ignore[arg-type]
        choices = _choices(hints[one.name])
        value = getattr(settings, one.name)
        if choices and isinstance(value, str) and value not in choices:
            raise InputError(
                f"unknown {one.name}", where=type(settings).__name__, expected=", ".join(map(str, choices)), got=value
            )


def _choices(hint: Any) -> tuple[Any, ...]:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return parts
    # A free text beside choices allows everything.
    if kind not in (typing.Union, types.UnionType) or str in parts:
        return ()
    return tuple(value for part in parts for value in _choices(part))


def check_least(settings: object, **least: float) -> None:
    """Every named field is at least so large, or None.

    Raises:
        InputError: It is smaller, or not a number.
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= bound:
            raise InputError(f"{name} must be at least {bound}", where=type(settings).__name__, got=value)


def with_changes(kind: type[S], settings: S | None, changes: Mapping[str, Any]) -> S:
    """``settings`` (the defaults if None) with some fields changed, so that a stage takes both forms.

    Raises:
        InputError: A name that the settings do not have, or ``settings`` is something else.
    """
    if settings is not None and not isinstance(settings, kind):
        raise InputError(f"settings must be {kind.__name__}", got=type(settings).__name__)
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            near = " or ".join(difflib.get_close_matches(name, known, n=2))
            fix = f"did you mean {near}?" if near else None
            raise InputError(f"{kind.__name__} has no '{name}'", expected=", ".join(known), fix=fix)
    start = kind() if settings is None else settings
    return replace(start, **changes) if changes else start  # type: ignore[type-var]


def identity(settings: object) -> dict[str, Any]:
    """What a continued run must find unchanged: the fields that are not the default's, as JSON values.

    Fields marked :data:`FREE` do not count. A later version may add a field: runs that do not use it go on.
    """
    found = {}
    for one in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, one.name)
        if one.metadata.get("free") or value == default_of(one):
            continue
        said = identity(value) if is_dataclass(value) else plain(value)
        # A part that differs in free fields only says nothing either.
        if said != {} or not is_dataclass(value):
            found[one.name] = said
    return found


def plain(value: Any) -> Any:
    """JSON values of settings: paths become text, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    return str(value) if isinstance(value, Path) else value
