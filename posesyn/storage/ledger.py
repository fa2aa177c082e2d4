"""What a run has planned and what it has finished, so that an interrupted run continues where it stopped.

Folder of a run: ``config.json`` (the settings), ``ledger.sqlite`` (plan, finished and quarantined samples per stage),
``plan.jsonl`` and ``quarantine.jsonl`` (the same for people to read), and whatever the stages write beside them.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posesyn.errors import FileError, InputError, RunError
from posesyn.storage.files import PARTIAL_SUFFIX, dump_json, read_json, write_bytes, write_json

_OWN_FILES = frozenset({"config.json", "ledger.sqlite", "ledger.sqlite-journal", ".lock"})
_SCHEMA = """
CREATE TABLE IF NOT EXISTS plan (stage TEXT, position INTEGER, id TEXT, PRIMARY KEY (stage, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS done (stage TEXT, id TEXT, file TEXT, sha256 TEXT, PRIMARY KEY (stage, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (stage TEXT, id TEXT, reason TEXT, PRIMARY KEY (stage, id)) WITHOUT ROWID;
"""


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two configurations differ, with both values."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} ({_short(before)} -> {_short(after)})")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Finished:
    """A committed sample: the file that holds it (relative to the run's folder) and that content's SHA-256."""

    sample: str
    file: str
    sha256: str


class RunLedger:
    """The ledger of one run folder, locked for one process.

    Use it as a context manager. Threads may share it.

    Args:
        folder: The run's folder; made if absent.
        config: Settings that decide the content of the run (JSON values). A later run must bring the same.
        error_budget: Quarantined samples tolerated per stage: a fraction of the plan (float, at least one sample) or a
            number (int).

    Raises:
        RunError: The folder holds something else, holds a run with other settings (the changed keys are named), or
            another process works in it.
    """

    def __init__(
        self, folder: str | os.PathLike[str], config: Mapping[str, Any], error_budget: float | int = 0.1
    ) -> None:
        self.folder = Path(folder)
        self.error_budget = error_budget
        self._mutex = threading.RLock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError("could not make the run's folder", where=self.folder, got=error.strerror) from error
        self._refuse_foreign()
        self._lock = self._take_lock()
        try:
            self._check_config(config)
            for path in self.folder.rglob(f".*{PARTIAL_SUFFIX}"):
                path.unlink(missing_ok=True)
            self._db = self._open_database()
        except BaseException:
            os.close(self._lock)
            raise

    def __repr__(self) -> str:
        return f"RunLedger({str(self.folder)[-200:]!r})"

    def _refuse_foreign(self) -> None:
        names = {path.name for path in self.folder.iterdir() if not path.name.endswith(PARTIAL_SUFFIX)}
        if "config.json" not in names and names - _OWN_FILES:
            raise RunError(
                "the output folder already holds other files",
                where=self.folder,
                got=sorted(names - _OWN_FILES)[:5],
                fix="name a new or an empty folder",
            )

    def _take_lock(self) -> int:
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            fix = "wait for it, or name another folder"
            raise RunError("another process works in the output folder", where=self.folder, fix=fix) from error
        return descriptor

    def _check_config(self, config: Mapping[str, Any]) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            write_json(path, config)
        self.config = read_json(path)
        if not isinstance(self.config, Mapping):
            raise RunError("the output folder holds something that is no run", where=path)
        # Compared as JSON, so that tuples and lists or NumPy and Python numbers count as equal.
        wanted: dict[str, Any] = json.loads(dump_json(config))
        if self.config.get("layout") != wanted.get("layout"):
            raise RunError(
                "the output folder was made by a version of posesyn that this one cannot continue",
                where=self.folder,
                expected=f"layout {wanted.get('layout')}",
                got=f"layout {self.config.get('layout')}",
                fix="name another folder, or go on with the version that made it",
            )
        changed = changed_keys(self.config, wanted)
        if changed:
            raise RunError(
                "the output folder holds a run with other settings",
                where=self.folder,
                got="changed " + ", ".join(changed[:8]),
                fix="name another folder, or go back to the settings of that run",
            )

    def _open_database(self) -> sqlite3.Connection:
        path = self.folder / "ledger.sqlite"
        try:
            database = sqlite3.connect(path, check_same_thread=False)
            database.executescript("PRAGMA synchronous=FULL;" + _SCHEMA)
        except sqlite3.DatabaseError as error:
            raise RunError("the run's ledger is damaged", where=path, got=error, fix="name another folder") from error
        return database

    # -- plan ---------------------------------------------------------------------------------------------------

    def plan(self, stage: str, ids: Sequence[str]) -> None:
        """Fixes the samples of a stage, in order. Calling it again with the same names changes nothing.

        Raises:
            InputError: A name occurs twice.
            RunError: The stage was planned with other names.
        """
        if len(set(ids)) != len(ids):
            raise InputError("a plan names a sample twice", where=f"stage '{stage}'")
        with self._mutex, self._transaction("could not store the plan"):
            before = self.planned(stage)
            if not before:
                rows = [(stage, position, name) for position, name in enumerate(ids)]
                self._db.executemany("INSERT INTO plan VALUES (?, ?, ?)", rows)
            elif before != list(ids):
                where = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b), min(len(before), len(ids)))
                raise RunError(
                    f"stage '{stage}' was planned with other samples",
                    where=self.folder,
                    expected=f"{len(before)} samples",
                    got=f"{len(ids)}, different from position {where} on",
                    fix="name another folder, or go back to the input of that run",
                )
        if not before:
            self._export("plan.jsonl", "SELECT stage, id FROM plan ORDER BY stage, position", ("stage", "id"))

    def append(self, stage: str, sample: str, position: int) -> None:
        """Adds one sample to a plan that grows while it is worked on."""
        with self._mutex, self._transaction("could not extend the plan"):
            self._db.execute("INSERT OR IGNORE INTO plan VALUES (?, ?, ?)", (stage, position, sample))

    def positions(self, stage: str) -> dict[str, int]:
        """Planned position by name."""
        return dict(self._rows("SELECT id, position FROM plan WHERE stage = ? ORDER BY position", stage))

    def planned(self, stage: str) -> list[str]:
        """Names of a stage in planned order."""
        return [row[0] for row in self._rows("SELECT id FROM plan WHERE stage = ? ORDER BY position", stage)]

    def pending(self, stage: str) -> list[str]:
        """Plan minus finished minus quarantined, in planned order."""
        settled = self.finished(stage).keys() | self.quarantined(stage).keys()
        return [name for name in self.planned(stage) if name not in settled]

    # -- results ------------------------------------------------------------------------------------------------

    def finished(self, stage: str) -> dict[str, Finished]:
        """Committed samples by name."""
        rows = self._rows("SELECT id, file, sha256 FROM done WHERE stage = ?", stage)
        return {row[0]: Finished(*row) for row in rows}

    def quarantined(self, stage: str) -> dict[str, str]:
        """Reason by name."""
        return dict(self._rows("SELECT id, reason FROM quarantine WHERE stage = ? ORDER BY id", stage))

    def commit(self, stage: str, samples: Iterable[Finished]) -> None:
        """Marks samples as finished; their files must be complete under their final names. All or none."""
        rows = [(stage, item.sample, item.file, item.sha256) for item in samples]
        with self._mutex, self._transaction("could not note finished samples"):
            self._db.executemany("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?)", rows)

    def quarantine(self, stage: str, sample: str, reason: str) -> None:
        """Sets a damaged sample aside with its reason.

        Raises:
            RunError: More samples than the error budget allows are set aside.
        """
        with self._mutex:
            with self._transaction("could not note a damaged sample"):
                self._db.execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", (stage, sample, reason))
            query = "SELECT stage, id, reason FROM quarantine ORDER BY stage, id"
            self._export("quarantine.jsonl", query, ("stage", "id", "reason"))
            bad, planned = len(self.quarantined(stage)), len(self.planned(stage))
        check_budget(bad, planned, self.error_budget, f"stage '{stage}' of {self.folder}", reason)

    def close(self) -> None:
        """Releases the folder."""
        with self._mutex:
            if self._lock >= 0:
                self._db.close()
                os.close(self._lock)
                self._lock = -1

    def __enter__(self) -> RunLedger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._mutex:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        try:
            try:
                yield
                self._db.commit()
            except BaseException:
                self._db.rollback()
                raise
        except sqlite3.Error as error:
            fix = "free some space and run the same command again"
            raise FileError(what, where=self.folder, got=error, fix=fix) from error

    def _export(self, name: str, query: str, keys: tuple[str, ...]) -> None:
        lines = (dump_json(dict(zip(keys, row))) + "\n" for row in self._rows(query))
        write_bytes(self.folder / name, "".join(lines).encode())


def check_budget(bad: int, total: int, budget: float | int, where: str, reason: str) -> None:
    """Raises RunError once more than ``budget`` of ``total`` samples were set aside (float: fraction, at least one)."""
    allowed = budget if isinstance(budget, int) else max(1, math.floor(budget * total))
    if bad > allowed:
        raise RunError(
            "too many samples are damaged",
            where=where,
            expected=f"at most {allowed} of {total}",
            got=f"{bad}, the last one: {reason}",
            fix="repair the input, or raise error_budget",
        )
