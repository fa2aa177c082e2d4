"""Annotation tables in npz and MATLAB files, read without running code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from posesyn.errors import FileError, InputError, MissingDependencyError, UnsafeFileError
from posesyn.storage.files import read_npz

Shape = tuple[int | None, ...]


class NpzTable:
    """Named arrays of N rows.

    Args:
        path: The file; arrays of strings stored as objects are read without running anything.
        required: Name → shape of one row; None stands for any length.
        optional: The same for arrays that may be absent.
        what: The file that is expected, for messages.

    Raises:
        FileError, UnsafeFileError: As :func:`posesyn.storage.files.read_npz`.
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


# Our own choice: 3DHP's largest file has 500 MB.
MAX_MAT_BYTES = 2 << 30
_HDF5 = b"\x89HDF\r\n\x1a\n"

# What tells the files apart when someone passes the wrong one.
_KNOWN = {
    "RELEASE": "MPII's annotations",
    "univ_annot3": "an annotation of MPI-INF-3DHP",
    "valid_frame": "the 3DHP test set",
    "pos_img": "joint positions of JHMDB",
    "joints": "joints of LSP or LSPET",
}


def read_mat(path: str | os.PathLike[str], keys: Sequence[str], what: str) -> dict[str, Any]:
    """Reads some variables.

    Args:
        path: The file.
        keys: Variables that must be there.
        what: The file that is expected, for messages.

    Returns:
        The variables; arrays of level 7.3 files have their axes in h5py's order, which is MATLAB's reversed. Structures
        become ``scipy.io.matlab.mat_struct``, squeezed.

    Raises:
        FileError: Missing or damaged.
        UnsafeFileError: Too large.
        InputError: A file of another data set.
        MissingDependencyError: A level 7.3 file without h5py.
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            head = handle.read(520)
            size = os.fstat(handle.fileno()).st_size
    except OSError as error:
        raise FileError("could not read a mat file", where=path, got=error.strerror or str(error)) from error
    if size > MAX_MAT_BYTES:
        raise UnsafeFileError("a mat file is too large", where=path, expected=f"<= {MAX_MAT_BYTES} bytes", got=size)
    # MATLAB puts 512 bytes of its own before the HDF5 signature, other writers none.
    content = _read_hdf5(path, keys) if _HDF5 in (head[:8], head[512:520]) else _read_level5(path)
    absent = [key for key in keys if key not in content]
    if absent:
        names = sorted(key for key in content if not key.startswith("__"))
        guess = next((text for key, text in _KNOWN.items() if key in names), None)
        raise InputError(
            f"this is not {what}",
            where=path,
            expected=f"variables {', '.join(keys)}",
            got=f"{', '.join(names) or 'none'}{f' ({guess})' if guess else ''}",
        )
    return content


def _read_level5(path: Path) -> dict[str, Any]:
    try:
        return loadmat(path, struct_as_record=False, squeeze_me=True)
    except MemoryError as error:
        raise UnsafeFileError("a mat file claims more data than fits", where=path) from error
    except Exception as error:  # damaged files make SciPy raise nearly anything
        raise FileError("a mat file is damaged", where=path, got=f"{type(error).__name__}: {error}") from error


def _read_hdf5(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("MATLAB 7.3 files need h5py", where=path, fix="pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, Any] = dict.fromkeys(file)
            for key in found:
                if isinstance(file[key], h5py.Dataset) and (key in keys or file[key].size < 1_000_000):
                    found[key] = np.asarray(file[key])
            return found
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise FileError("a mat file is damaged", where=path, got=f"{type(error).__name__}: {error}") from error
