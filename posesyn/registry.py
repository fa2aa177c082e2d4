"""Things by name: what posesyn brings, what a program registers, and what other packages announce as entry points."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from posesyn.errors import InputError, PosesynError

T = TypeVar("T")


class Registry(Generic[T]):
    """One kind of thing by name: estimators, detectors, lifters, render backends, data formats, protocols.

    A thing is looked for among the built-in and registered ones first, then in the entry point group, so that no
    package can replace what posesyn brings.

    Args:
        kind: What the things are, for messages: ``"estimator"``.
        built_in: Name → the thing, or where it is (``"package.module:attribute"``), which is imported on first use.
        group: Entry point group in which other packages announce things of this kind; None has none.
        fix: What a user can do who asks for an unknown name.
    """

    def __init__(
        self, kind: str, built_in: Mapping[str, T | str] | None = None, group: str | None = None, fix: str | None = None
    ) -> None:
        self.kind, self.group, self.fix = kind, group, fix
        self._things: dict[str, T | str] = dict(built_in or {})
        self._built_in = frozenset(self._things)

    def register(self, name: str, thing: T) -> None:
        """Adds a thing.

        Raises:
            InputError: The name is taken by another one.
        """
        if name in self._things and self._things[name] is not thing:
            where = f"register('{name}')"
            raise InputError(f"a {self.kind} of this name exists", where=where, fix="choose another name")
        self._things[name] = thing

    def names(self) -> list[str]:
        """All names, sorted, those of other packages included."""
        return sorted({*self._things, *self._announced()})

    def __contains__(self, name: object) -> bool:
        return name in self._things or name in self._announced()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}, {len(self)} names)"

    def __len__(self) -> int:
        return len(self.names())

    def __getitem__(self, name: str) -> T:
        """The thing of that name.

        Raises:
            InputError: Unknown name (the message lists the known ones and the nearest), or the package that announces
                it cannot be imported.
        """
        if name in self._things:
            thing = self._things[name]
            if isinstance(thing, str):
                module, _, attribute = thing.partition(":")
                thing = self._things[name] = cast(T, getattr(import_module(module), attribute))
            return thing
        announced = self._announced()
        if name not in announced:
            raise self._unknown(name)
        point = announced[name]
        try:
            return cast(T, point.load())
        except PosesynError:
            raise
        except Exception as error:
            what, got = f"{self.kind} '{name}' could not be loaded", f"{type(error).__name__}: {error}"
            fix = "report it to the package that announces it"
            raise InputError(what, where=f"entry point {point.value}", got=got, fix=fix) from error

    def make(self, name: str, *arguments: Any, where: str) -> Any:
        """What the maker of that name, or the function ``"my_module:make"`` of a file in the current folder or of an
        installed package, returns.

        Args:
            name: In the registry, or with a colon.
            arguments: For the maker.
            where: For messages.

        Raises:
            InputError: Unknown name, or a maker that posesyn does not bring failed.
            PosesynError: As the maker raises it.
        """
        if name in self._built_in:
            return cast(Callable[..., Any], self[name])(*arguments)
        try:
            maker = _function(name) if ":" in name else cast(Callable[..., Any], self[name])
            return maker(*arguments)
        except PosesynError:
            raise
        except Exception as error:
            got, fix = (
                f"{type(error).__name__}: {error}",
                "repair the module, or report it to the package that announces it",
            )
            raise InputError(f"{self.kind} '{name}' could not be built", where=where, got=got, fix=fix) from error

    def _announced(self) -> dict[str, EntryPoint]:
        return {} if self.group is None else {point.name: point for point in entry_points(group=self.group)}

    def _unknown(self, name: object) -> InputError:
        names = self.names()
        near = difflib.get_close_matches(str(name), names, n=3)
        guess = f"did you mean {' or '.join(repr(one) for one in near)}? " if near else ""
        return InputError(
            f"unknown {self.kind} '{name}'",
            expected=f"one of {', '.join(names)}",
            fix=(guess + (self.fix or "")).strip() or None,
        )


def _function(name: str) -> Callable[..., Any]:
    """``my_module:make``. A command that was installed does not look for modules where it was called, so it is told to,
    for this import only."""
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        invalidate_caches()
        return cast(Callable[..., Any], getattr(import_module(module), attribute))
    finally:
        sys.path.remove(here)
