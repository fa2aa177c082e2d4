"""Files that are either complete or absent: side file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from posesyn.errors import FileError, InputError

PARTIAL_SUFFIX = ".partial"


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a side file for writing that takes the name ``path`` only when the block ends without an exception.

    Raises:
        FileError: The folder is missing, not writable or full; nothing is left at ``path`` then.
    """
    path = Path(path)
    # A name of its own: names of up to 250 bytes must not overflow the file system's limit with a suffix.
    side = path.parent / f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
    try:
        with open(side, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(side, path)
        sync_folder(path.parent)
    except FileError:
        raise
    except OSError as error:
        fix = "free some space and run the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise FileError("could not write a file", where=path, got=error.strerror or str(error), fix=fix) from error
    finally:
        with contextlib.suppress(OSError):  # gone after the rename; the folder itself may be missing
            side.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> str:
    """Writes ``data`` atomically and returns its SHA-256."""
    with atomic_file(path) as handle:
        handle.write(data)
    return hashlib.sha256(data).hexdigest()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes readable, deterministic JSON atomically."""
    write_bytes(path, (dump_json(value, indent=2) + "\n").encode())


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON with sorted keys; NumPy values and tuples become plain numbers and lists, paths become strings.

    Raises:
        InputError: A value that JSON cannot hold (NaN included).
    """
    try:
        return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise InputError("a value cannot be stored as JSON", got=error, fix="use numbers, strings and lists") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(path: str | os.PathLike[str], max_bytes: int = 2 << 30) -> Any:
    """Reads a JSON file.

    Raises:
        FileError: Missing, larger than ``max_bytes`` or not JSON.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise FileError("a JSON file is too large", where=path, expected=f"at most {max_bytes} bytes", got=size)
        return json.loads(path.read_bytes())
    except FileError:
        raise
    except OSError as error:
        raise FileError("could not read a file", where=path, got=error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise FileError("a file is not valid JSON", where=path, got=error) from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
