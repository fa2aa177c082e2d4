"""Reads clips from tar shards, whole or frame by frame, without trusting the archives."""

from __future__ import annotations

import os
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.storage.clip_codec import ClipHeader, check_crc, decode_clip, decode_labels, parse_header
from posesyn.storage.files import read_json, sha256_of, write_json
from posesyn.storage.images import decode_image
from posesyn.types import Clip
from posesyn.types.looks import short_repr

# Our own choice: above any member a ClipWriter makes.
_MAX_MEMBER = 1 << 30
_KEEP = "keep.json"


@dataclass(frozen=True, repr=False)
class StoredFrame:
    """One encoded frame inside an uncompressed tar; an ``ImageSource`` that pickles and opens nothing until loaded."""

    path: Path
    offset: int
    size: int
    crc32: int | None
    name: str

    __repr__ = short_repr

    def load(self) -> np.ndarray:
        return decode_image(self.read(), self.name)

    def read(self) -> bytes:
        """The encoded bytes, checked against their CRC-32."""
        return check_crc(_slice(self.path, self.offset, self.size), self.crc32, self.name)


@dataclass(frozen=True)
class _StoredClip:
    path: Path
    members: Mapping[str, tuple[int, int]]  # suffix -> (offset, size)
    header: ClipHeader


class ClipStore(Sequence[Clip]):
    """The clips of a folder, in planned order.

    Args:
        folder: Written by :class:`posesyn.storage.clip_writer.ClipWriter`, or any folder with such tar files.

    Raises:
        FileError: No such folder, no archive in it, or a damaged one.
        UnsafeFileError: An archive with links, devices, absolute names or ``..``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            fix = "name the folder that `posesyn render` wrote"
            raise FileError("there is no clip store", where=self.folder, fix=fix)
        paths = [path for place in ("shards", "parts", ".") for path in sorted((self.folder / place).glob("*.tar"))]
        if not paths:
            raise FileError("a folder holds no clip archives", where=self.folder, expected="shards/*.tar")
        found: dict[str, tuple[str, _StoredClip]] = {}
        for path in paths:
            for key, clip in _scan(path).items():
                # A part left beside its shard by a killed run holds the same clip; the shard comes first.
                found.setdefault(clip.header.clip_id, (key, clip))
        self._clips = [clip for _, clip in sorted(found.values(), key=lambda item: (len(item[0]), item[0]))]
        self.ids = tuple(clip.header.clip_id for clip in self._clips)
        self._index = {name: index for index, name in enumerate(self.ids)}
        self._keep = self._read_keep()
        self._cached_labels = lru_cache(maxsize=64)(self._labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return ClipStore, (self.folder,)

    def __len__(self) -> int:
        return len(self._clips)

    def __repr__(self) -> str:
        return f"ClipStore({str(self.folder)[-200:]!r}, {len(self)} clips)"

    def __iter__(self) -> Iterator[Clip]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int | str) -> Clip:  # type: ignore[override]
        """A whole clip by position or name, every frame decoded."""
        row = self._row(index)
        clip = self._clips[row]
        keep = self.labels(row)["keep"]
        return replace(decode_clip(clip.header, lambda name: self._read(row, name), self._where(row)), keep=keep)

    def header(self, index: int | str) -> ClipHeader:
        """Names, caption, frame size and meta, without decoding anything."""
        return self._clips[self._row(index)].header

    def labels(self, index: int | str) -> dict[str, np.ndarray]:
        """Label arrays of a clip (see ``Clip``), ``boxes_xyxy`` (T, 4) and ``boxes_tight`` (T,), without decoding
        frames; read-only."""
        return self._cached_labels(self._row(index))

    def frame(self, index: int | str, frame: int) -> StoredFrame:
        """One frame as an image that is decoded on demand."""
        row = self._row(index)
        clip = self._clips[row]
        if not 0 <= frame < clip.header.shape[0]:
            raise InputError("no such frame", where=self._where(row), expected=clip.header.shape[0], got=frame)
        name = clip.header.frame_member(frame)
        if name not in clip.members:
            raise FileError("a clip lacks a frame", where=self._where(row), got=name)
        label = f"{clip.header.clip_id}@{frame:04d}"
        return StoredFrame(clip.path, *clip.members[name], clip.header.crc32.get(name), label)

    def set_keep(self, masks: Mapping[str, np.ndarray]) -> None:
        """Records which frames survived a filter, beside the shards, for this and later readers.

        Raises:
            InputError: An unknown clip, or a mask of another length.
        """
        keep = dict(self._keep)
        for name, mask in masks.items():
            frames = self._clips[self._row(name)].header.shape[0]
            if np.shape(mask) != (frames,):
                raise InputError("a keep mask has the wrong length", where=name, expected=frames, got=np.shape(mask))
            keep[name] = np.asarray(mask, bool)
        write_json(self.folder / _KEEP, {name: mask.astype(int) for name, mask in sorted(keep.items())})
        self._keep = keep
        self._cached_labels.cache_clear()

    def reset_keep(self) -> None:
        """Forgets what :meth:`set_keep` recorded: frames are kept as their archive says."""
        (self.folder / _KEEP).unlink(missing_ok=True)
        self._keep = {}
        self._cached_labels.cache_clear()

    def verify(self) -> None:
        """Compares every archive with the checksum in the ledger, and every member with its CRC-32.

        Raises:
            FileError: One differs; it is named.
        """
        for name, expected in self._checksums().items():
            path = self.folder / name
            if path.exists() and sha256_of(path) != expected:
                raise FileError("an archive is damaged", where=path, expected=expected, got="another checksum")
        for row, clip in enumerate(self._clips):
            for name in clip.header.crc32:
                self._read(row, name)

    def _checksums(self) -> dict[str, str]:
        path = self.folder / "ledger.sqlite"
        if not path.exists():
            return {}
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
                query = "SELECT file, sha256 FROM done WHERE stage = 'shards' OR file LIKE 'parts/%'"
                return dict(database.execute(query).fetchall())
        except sqlite3.DatabaseError as error:
            raise FileError("the store's ledger is damaged", where=path, got=error) from error

    def _row(self, index: int | str) -> int:
        if isinstance(index, str):
            if index not in self._index:
                raise InputError("the store has no such clip", where=self.folder, got=index)
            return self._index[index]
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends iteration over a Sequence
        return index % len(self)

    def _where(self, row: int) -> str:
        return f"clip '{self.ids[row]}' of {self._clips[row].path}"

    def _read(self, row: int, name: str) -> bytes:
        clip = self._clips[row]
        if name not in clip.members:
            raise FileError("a clip lacks a member", where=self._where(row), got=name)
        return check_crc(_slice(clip.path, *clip.members[name]), clip.header.crc32.get(name), self._where(row))

    def _labels(self, row: int) -> dict[str, np.ndarray]:
        labels = decode_labels(self._read(row, "labels.npz"), self._clips[row].header, self._where(row))
        labels["keep"] = self._keep.get(self.ids[row], labels["keep"].astype(bool))
        for value in labels.values():
            value.flags.writeable = False
        return labels

    def _read_keep(self) -> dict[str, np.ndarray]:
        path = self.folder / _KEEP
        if not path.exists():
            return {}
        content = read_json(path)
        keep = {}
        for name, mask in content.items() if isinstance(content, dict) else ():
            if name in self._index and isinstance(mask, list):
                keep[name] = np.array([value == 1 for value in mask], bool)
                if len(mask) != self._clips[self._index[name]].header.shape[0]:
                    raise FileError("a keep mask has the wrong length", where=path, got=f"{len(mask)} for '{name}'")
        return keep


def _slice(path: Path, offset: int, size: int) -> bytes:
    try:
        with open(path, "rb") as handle:
            handle.seek(offset)
            data = handle.read(size)
    except OSError as error:
        raise FileError("could not read a clip archive", where=path, got=error.strerror or str(error)) from error
    if len(data) != size:
        raise FileError("a clip archive is truncated", where=path)
    return data


def _scan(path: Path) -> dict[str, _StoredClip]:
    """Finds the members of each clip from the tar headers; nothing is extracted."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    length = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for item in archive:
                _check_member(item, path)
                if item.offset_data + item.size > length:
                    raise FileError("a clip archive is truncated", where=path, got=f"member '{item.name}'")
                key, _, suffix = item.name.partition(".")
                members.setdefault(key, {})[suffix] = (item.offset_data, item.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise FileError("a clip archive is damaged", where=path, got=error) from error
    clips = {}
    for key, found in members.items():
        if "clip.json" in found:  # other samples of a mixed webdataset are none of ours
            header = parse_header(_slice(path, *found["clip.json"]), f"{path}, clip {key}")
            clips[key] = _StoredClip(path, found, header)
    return clips


def _check_member(item: tarfile.TarInfo, path: Path) -> None:
    parts = item.name.replace("\\", "/").split("/")
    if item.name.startswith("/") or ".." in parts:
        raise UnsafeFileError("an archive member leaves its folder", where=path, got=item.name)
    if not item.isreg():
        raise UnsafeFileError("an archive holds something that is no plain file", where=path, got=f"'{item.name}'")
    if item.size > _MAX_MEMBER:
        raise UnsafeFileError("an archive member is too large", where=path, expected=f"<= {_MAX_MEMBER}", got=item.size)
