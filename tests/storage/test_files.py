from __future__ import annotations

import errno
import io
import os
import zipfile

import numpy as np
import pytest

from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.storage import files as atomic
from posesyn.storage.files import npz_bytes, read_npz, write_npz


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


def test_round_trip_and_determinism(tmp_path, rng):
    arrays = {"a": rng.normal(size=(3, 4)).astype(np.float32), "b": np.arange(5) > 2, "empty": np.zeros((0, 3))}
    write_npz(tmp_path / "a.npz", arrays)
    for loaded in (read_npz(tmp_path / "a.npz"), read_npz(npz_bytes(arrays)), dict(np.load(tmp_path / "a.npz"))):
        assert loaded.keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(loaded[name], value)
    assert npz_bytes(arrays) == npz_bytes(dict(arrays))


def test_objects_are_refused_both_ways(tmp_path):
    with pytest.raises(InputError, match="objects"):
        npz_bytes({"a": np.array([{}], object)})
    np.savez(tmp_path / "a.npz", a=np.array([print], object))
    with pytest.raises(UnsafeFileError, match="Python objects"):
        read_npz(tmp_path / "a.npz")


def test_zip_bomb_is_refused_before_inflating(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10_000_000, np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    with pytest.raises(UnsafeFileError, match="inflates"):
        read_npz(tmp_path / "a.npz", max_bytes=1_000_000)


def test_a_header_that_claims_more_than_there_is():
    buffer = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(8))
    with pytest.raises(FileError, match="damaged"):
        read_npz(buffer.getvalue())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"text"])
def test_damaged(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FileError):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(FileError):
        read_npz(tmp_path / "absent.npz")


def test_a_table_runs_nothing_in_a_spreadsheet_and_keeps_its_numbers():
    rows = [["=cmd|' /C calc'!A0", -1.5, "-1.50"], ["-x, y", None, "+1"], ["@a", 'say "hi"', "\t=1"]]
    text = atomic.csv_bytes(["name", "a", "b"], rows).decode()
    assert text.splitlines() == [
        "name,a,b", "'=cmd|' /C calc'!A0,-1.5,-1.50", "\"'-x, y\",,+1", "'@a,\"say \"\"hi\"\"\",'\t=1"
    ]  # fmt: skip
