"""npz files with one row per person, as SPIN, BEDLAM and AGORA publish them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from posesyn.errors import InputError
from posesyn.storage.arrays import read_npz

Shape = tuple[int | None, ...]


class NpzTable:
    """Named arrays of N rows.

    Args:
        path: The file; arrays of strings stored as objects are read without running anything.
        required: Name → shape of one row; None stands for any length.
        optional: The same for arrays that may be absent.
        what: The file that is expected, for messages.

    Raises:
        FileError, UnsafeFileError: As :func:`posesyn.storage.arrays.read_npz`.
        InputError: A missing array, a wrong shape, or arrays of different lengths.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        required: Mapping[str, Shape],
        optional: Mapping[str, Shape],
        what: str,
    ) -> None:
        self.path = Path(path)
        content = read_npz(self.path, objects=True)
        absent = [key for key in required if key not in content]
        if absent:
            raise InputError(
                f"this is not {what}",
                where=self.path,
                expected=f"arrays {', '.join(required)}",
                got=f"{', '.join(sorted(content)) or 'none'}",
            )
        known = {**required, **{key: shape for key, shape in optional.items() if key in content}}
        rows = len(np.atleast_1d(content[next(iter(required))]))
        self._arrays: dict[str, np.ndarray] = {}
        for key, shape in known.items():
            value = np.asarray(content[key])
            if value.dtype.hasobject and shape:
                value = _stacked(value, key, self.path)
            fits = value.ndim == len(shape) + 1 and all(
                wanted in (None, got) for wanted, got in zip(shape, value.shape[1:])
            )
            if not fits or len(value) != rows:
                expected = (rows, *("any" if wanted is None else wanted for wanted in shape))
                raise InputError(f"{key} has the wrong shape", where=self.path, expected=expected, got=value.shape)
            self._arrays[key] = value

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def text(self, key: str, row: int) -> str:
        """One string, whatever type it was stored in."""
        value = self._arrays[key][row]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _stacked(value: np.ndarray, key: str, path: Path) -> np.ndarray:
    try:
        return np.stack([np.asarray(item, np.float32) for item in value])
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} has rows of different shapes", where=path, got=error) from error
