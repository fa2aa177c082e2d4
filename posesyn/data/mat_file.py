"""MATLAB files of data sets, both kinds: level 5 through SciPy, level 7.3 (HDF5) through h5py. Neither runs code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from posesyn.errors import FileError, InputError, MissingDependencyError, UnsafeFileError

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
