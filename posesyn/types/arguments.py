"""One check of what the stages are called with: several values of a kind, as a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from posesyn.errors import InputError


def check_several(values: Any, kind: type | tuple[type, ...], call: str, fix: str | None = None) -> None:
    """Refuses one value where a list of them is meant, and lists of something else.

    Data sets and generators are not gone through: only lists and tuples are looked into.

    Args:
        values: The argument as it was given.
        kind: What it must hold; a tuple means either.
        call: The function as the user writes it, ``"estimator.predict"``.
        fix: The way out where ``values`` is neither a list nor one value.

    Raises:
        InputError: One value instead of several, no collection at all, or a member of another kind.

    Example:
        >>> from posesyn.types import Motion
        >>> check_several([], Motion, "renderer.render")
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    wanted, got = f"a list of {' or '.join(one.__name__ for one in kinds)}", type(values).__name__
    if isinstance(values, kinds):
        fix = f"write {call}([...]) around it"
        raise InputError(f"{call} takes several values", expected=wanted, got=f"one {got}", fix=fix)
    listed = isinstance(values, Iterable) or hasattr(values, "__getitem__")
    if isinstance(values, str | bytes) or not listed:
        raise InputError(f"{call} got something else", expected=wanted, got=got, fix=fix)
    if isinstance(values, list | tuple):
        wrong = next((one for one in values if not isinstance(one, kinds)), None)
        if wrong is not None:
            raise InputError(f"{call} got a list of something else", expected=wanted, got=type(wrong).__name__, fix=fix)
