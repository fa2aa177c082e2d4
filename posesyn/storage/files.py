"""Files that are either whole or absent, and npz files from elsewhere that cannot run code."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.storage.unpickling import restricted_loads

PARTIAL_SUFFIX = ".partial"


@contextmanager
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
        with suppress(OSError):  # gone after the rename; the folder itself may be missing
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
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as csv (UTF-8, comma, header line). Text that a spreadsheet would take for a formula gets an apostrophe
    in front, as OWASP advises; numbers are passed as numbers or as text that is one."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str) or cell[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


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


# Our own choice: far above any label file of posesyn, far below the memory of a small machine.
MAX_NPZ_BYTES = 2 << 30


def npz_bytes(arrays: Mapping[str, np.ndarray], compress: bool = True) -> bytes:
    """Encodes named arrays; equal arrays give equal bytes.

    Raises:
        InputError: An array of Python objects, which only pickle could store.
    """
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype.hasobject:
            raise InputError("an array of objects cannot be stored", where=f"array '{name}'", got=value.dtype)
    buffer = BytesIO()
    save: Callable[..., None] = np.savez_compressed if compress else np.savez
    save(buffer, **plain)
    return buffer.getvalue()


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> str:
    """Writes an npz atomically and returns its SHA-256."""
    return write_bytes(path, npz_bytes(arrays))


def read_npz(
    source: str | os.PathLike[str] | bytes,
    *,
    max_bytes: int = MAX_NPZ_BYTES,
    name: str | None = None,
    objects: bool = False,
    only: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """Reads the arrays of an npz file (or of its bytes).

    Args:
        source: Path or content.
        max_bytes: Limit for the sum of the inflated members, checked before anything is inflated.
        name: Name for messages where ``source`` is bytes.
        objects: Read arrays of Python objects too, by the restricted unpickler: published data sets hold dictionaries.
        only: Names of the arrays to read, as far as they are there; the others are not looked at. None reads all.

    Raises:
        FileError: Missing or damaged.
        UnsafeFileError: Object arrays (pickle) unless ``objects``, a pickle that asks to run code, or more data than
            ``max_bytes``.
    """
    where = name or (f"{len(source)} bytes" if isinstance(source, bytes) else Path(source))
    with _opened(BytesIO(source) if isinstance(source, bytes) else source, where) as archive:
        total = sum(member.file_size for member in archive.infolist())
        if total > max_bytes:
            raise UnsafeFileError("an npz file inflates too far", where=where, expected=f"<= {max_bytes}", got=total)
        members = {_key(member.filename): member for member in archive.infolist()}
        wanted = [key for key in members if only is None or key in only]
        return {key: _read_member(archive, members[key], where, objects) for key in wanted}


def npz_names(path: str | os.PathLike[str]) -> list[str]:
    """Names of the arrays in an npz file; none of them is read. Raises FileError: missing or damaged."""
    with _opened(path, path) as archive:
        return [_key(name) for name in archive.namelist()]


@contextmanager
def _opened(source: str | os.PathLike[str] | BytesIO, where: object) -> Iterator[zipfile.ZipFile]:
    """The archive; what fails inside the block, as damage shows only when a member is read, becomes a FileError."""
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except FileError:
        raise
    except OSError as error:
        raise FileError("could not read an npz file", where=where, got=error.strerror or str(error)) from error
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise FileError("an npz file is damaged", where=where, got=error) from error


def _key(filename: str) -> str:
    return filename.removesuffix(".npy")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: object, objects: bool) -> np.ndarray:
    with archive.open(member) as handle:
        # The header may claim more than the member holds: read_array allocates from the header.
        version = np.lib.format.read_magic(handle)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(handle)
        name = f"array '{_key(member.filename)}'"
        if dtype.hasobject and objects:
            value: np.ndarray = restricted_loads(handle.read(), f"{where}, {name}")
            return value
        if dtype.hasobject:
            raise UnsafeFileError("an npz file holds Python objects", where=where, got=name)
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > member.file_size:
            raise FileError("an npz file is damaged", where=where, got=f"{name} claims {shape}")
    with archive.open(member) as handle:
        return np.lib.format.read_array(handle, allow_pickle=False)
