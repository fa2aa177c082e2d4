from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.storage.files import npz_bytes, read_npz, write_npz


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
