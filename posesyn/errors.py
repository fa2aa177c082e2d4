"""Errors that say what is wrong, where, what was expected, what was found and how to go on."""

from __future__ import annotations

from typing import Any


class PosesynError(Exception):
    """Base of every error that posesyn raises on purpose.

    Args:
        what: The rule that was broken, e.g. ``"Person.keypoints_px has the wrong shape"``.
        where: The file, person, stage or argument concerned.
        expected: What would have been right.
        got: What was found.
        fix: What the user can do, as an instruction.

    Example:
        >>> print(PosesynError("a box needs four numbers", where="person 'a'", got=3, fix="give x0, y0, x1, y1"))
        a box needs four numbers in person 'a': got 3. Give x0, y0, x1, y1
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.got, self.fix = what, where, expected, got, fix
        message = what if where is None else f"{what} in {where}"
        details = [f"{name} {value}" for name, value in (("expected", expected), ("got", got)) if value is not None]
        if details:
            message += ": " + ", ".join(details)
        if fix:
            message += f". {fix[0].upper()}{fix[1:]}"
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default pickling, and worker processes send errors back.
        return _rebuild, (type(self), self.what, self.where, self.expected, self.got, self.fix)


def _rebuild(
    cls: type[PosesynError], what: str, where: object, expected: object, got: object, fix: str | None
) -> PosesynError:
    return cls(what, where=where, expected=expected, got=got, fix=fix)


class InputError(PosesynError, ValueError):
    """A value, array or annotation that breaks its contract."""


class FileError(PosesynError, OSError):
    """A file that is missing, damaged or not of the format it claims."""

    def __str__(self) -> str:  # OSError would print the arguments as a tuple.
        return str(self.args[0])


class UnsafeFileError(FileError):
    """A file that would run code, escape its folder or exhaust memory if it were read."""


class CheckpointError(PosesynError):
    """Weights that do not belong to the model: missing, unexpected or wrongly shaped keys."""


class RunError(PosesynError):
    """An output folder or ledger that cannot be continued with the given settings."""


class DivergenceError(PosesynError):
    """A training whose loss or gradient is no longer finite."""


class MissingDependencyError(PosesynError, ImportError):
    """An optional package that the requested feature needs."""
