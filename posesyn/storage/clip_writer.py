"""Clips in tar shards: written so that a kill at any moment loses at most one clip, checked when read."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posesyn.errors import InputError
from posesyn.storage.clip_codec import END_OF_ARCHIVE, ClipCodec, tar_payload
from posesyn.storage.files import atomic_file, write_bytes
from posesyn.storage.ledger import Finished, RunLedger
from posesyn.types import Clip

STAGE, SHARDS = "clips", "shards"


class ClipWriter:
    """Writes clips into a folder that :class:`posesyn.storage.clip_store.ClipStore` and webdataset read.

    Every clip first becomes an archive of its own (``parts/000012.tar``) and is then committed in the ledger. Once all
    clips of a group are settled, their parts are joined to ``shards/000000.tar``. Resume = plan minus ledger; the bytes
    of a shard do not depend on the order of writing nor on interruptions. Threads may share a writer.

    Args:
        folder: Output folder, empty or holding the same run.
        plan: Names of all clips, in order. None: clips are kept in the order they come.
        config: Settings that decide the clips (JSON values); a folder made with other settings is refused.
        codec: How frames are stored.
        clips_per_shard: Size of a group.
        error_budget: See :class:`RunLedger`.

    Raises:
        RunError: See :class:`RunLedger`.

    Example:
        >>> import tempfile
        >>> from posesyn.storage import ClipStore
        >>> standing = ps.Motion("stand", np.zeros((2, 24, 3)), np.zeros((2, 3)), np.zeros(10), fps=20.0)
        >>> clip = ps.AnimationRenderer(image_size=64).render([standing], progress=False)[0]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ClipWriter(folder, plan=[clip.clip_id], config={"seed": 0}) as writer:
        ...         for clip_id in writer.pending():
        ...             writer.write(clip)
        ...     print(len(ClipStore(folder)))
        1
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        plan: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        codec: ClipCodec | None = None,
        clips_per_shard: int = 32,
        error_budget: float | int = 0.1,
    ) -> None:
        if clips_per_shard < 1:
            raise InputError("clips_per_shard must be at least 1", got=clips_per_shard)
        self.folder = Path(folder)
        self.codec = codec or ClipCodec()
        self._size = clips_per_shard
        self._planned = plan is not None
        self._mutex = threading.Lock()
        store = {**asdict(self.codec), "clips_per_shard": clips_per_shard, "planned": self._planned}
        self.ledger = RunLedger(self.folder, {**(config or {}), "store": store}, error_budget)
        try:
            for name in ("parts", "shards"):
                (self.folder / name).mkdir(exist_ok=True)
            if plan is not None:
                self.ledger.plan(STAGE, plan)
            self._positions = self.ledger.positions(STAGE)
            self._next = -(-(max(self._positions.values(), default=-1) + 1) // self._size) * self._size
            self._recover()
        except BaseException:
            self.ledger.close()
            raise

    def __repr__(self) -> str:
        return f"ClipWriter({str(self.folder)[-200:]!r}, {len(self._positions)} clips placed)"

    def pending(self) -> list[str]:
        """Planned clips that are neither written nor quarantined, in order."""
        return self.ledger.pending(STAGE)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self.ledger.finished(STAGE)

    def write(self, clip: Clip) -> None:
        """Stores one clip; when this returns it survives a power cut.

        Raises:
            InputError: The clip is not in the plan or was written before.
            FileError: The disk is full or not writable; the clip is then not committed.
        """
        members = self.codec.encode(clip)
        with self._mutex:
            position = self._position(clip.clip_id)
        name = f"parts/{position:06d}.tar"
        digest = write_bytes(self.folder / name, tar_payload(f"{position:06d}", members) + END_OF_ARCHIVE)
        with self._mutex:
            self.ledger.commit(STAGE, [Finished(clip.clip_id, name, digest)])
            self._seal(position // self._size)

    def quarantine(self, clip_id: str, reason: str) -> None:
        """Sets a clip that cannot be made aside. Raises RunError past the error budget, InputError if unplanned."""
        with self._mutex:
            position = self._position(clip_id)
            try:
                self.ledger.quarantine(STAGE, clip_id, reason)
            finally:
                self._seal(position // self._size)

    def close(self) -> None:
        """Ends writing. Without a plan, the last group is joined as it is; with one, it waits for the rest."""
        with self._mutex:
            if not self._planned:
                for group in {position // self._size for position in self._positions.values()}:
                    self._join(group)
            self.ledger.close()

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        if kind is None:
            self.close()
        else:
            self.ledger.close()

    def _position(self, clip_id: str) -> int:
        if clip_id in self.ledger.finished(STAGE):
            raise InputError("a clip is already stored", where=self.folder, got=clip_id, fix="give clips unique names")
        if clip_id not in self._positions:
            if self._planned:
                raise InputError("a clip is not part of the plan", where=self.folder, got=clip_id)
            self.ledger.append(STAGE, clip_id, self._next)
            self._positions[clip_id] = self._next
            self._next += 1
        return self._positions[clip_id]

    def _recover(self) -> None:
        """Finishes what a killed run had begun: joins complete groups, removes parts nobody refers to."""
        for group in {position // self._size for position in self._positions.values()}:
            self._seal(group)
        wanted = {item.file for item in self.ledger.finished(STAGE).values()}
        for part in (self.folder / "parts").glob("*.tar"):
            if f"parts/{part.name}" not in wanted:
                part.unlink()

    def _group(self, group: int) -> list[str]:
        low, high = group * self._size, (group + 1) * self._size
        return [name for name, position in self._positions.items() if low <= position < high]

    def _seal(self, group: int) -> None:
        """Joins the group if all of it is settled (without a plan: if it is full)."""
        names = self._group(group)
        settled = self.ledger.finished(STAGE).keys() | self.ledger.quarantined(STAGE).keys()
        if all(name in settled for name in names) and (self._planned or len(names) == self._size):
            self._join(group)

    def _join(self, group: int) -> None:
        finished = self.ledger.finished(STAGE)
        items = [finished[name] for name in self._group(group) if name in finished]
        target = f"shards/{group:06d}.tar"
        parts = [item for item in items if item.file != target]
        if not parts:
            return
        digest = hashlib.sha256()
        with atomic_file(self.folder / target) as handle:
            for item in items:
                data = (self.folder / item.file).read_bytes().removesuffix(END_OF_ARCHIVE)
                digest.update(data)
                handle.write(data)
            digest.update(END_OF_ARCHIVE)
            handle.write(END_OF_ARCHIVE)
        self.ledger.commit(SHARDS, [Finished(f"{group:06d}", target, digest.hexdigest())])
        self.ledger.commit(STAGE, [Finished(item.sample, target, item.sha256) for item in items])
        for item in parts:
            (self.folder / item.file).unlink()
