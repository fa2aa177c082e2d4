from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from posesyn.errors import FileError, InputError
from posesyn.storage import files as atomic


def test_a_file_is_complete_or_absent(tmp_path):
    with pytest.raises(RuntimeError), atomic.atomic_file(tmp_path / "a") as handle:
        handle.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    atomic.write_bytes(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_old_file_survives_a_failed_replacement(tmp_path):
    atomic.write_bytes(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError), atomic.atomic_file(tmp_path / "a") as handle:
        handle.write(b"new")
        raise RuntimeError
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(FileError, match=r"No space left.*Free some space"):
        atomic.write_bytes(tmp_path / "a", b"data")
    assert list(tmp_path.iterdir()) == []


def test_names_of_250_bytes(tmp_path):
    atomic.write_bytes(tmp_path / ("ü" * 125), b"x")
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [1]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileError, match="could not write"):
        atomic.write_bytes(tmp_path / "absent" / "a", b"x")


def test_json_takes_numpy_and_refuses_what_it_cannot_hold(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"b": np.float32(0.5), "a": np.arange(3), "p": tmp_path})
    assert atomic.read_json(tmp_path / "a.json") == {"a": [0, 1, 2], "b": 0.5, "p": str(tmp_path)}
    for value in (float("nan"), object(), {"x": np.inf}):
        with pytest.raises(InputError):
            atomic.dump_json(value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FileError, match="not valid JSON"):
        atomic.read_json(tmp_path / "a.json")
    with pytest.raises(FileError, match="too large"):
        (tmp_path / "b.json").write_bytes(b" " * 100)
        atomic.read_json(tmp_path / "b.json", max_bytes=10)
    with pytest.raises(FileError, match="could not read"):
        atomic.read_json(tmp_path / "absent.json")
