"""Genuine pickles load through stubs; malicious ones run nothing."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from posesyn.errors import FileError, UnsafeFileError
from posesyn.storage.unpickling import PickledObject, restricted_load


def _write(tmp_path, data: bytes):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return path


VALUES = {
    "text": "ünï",
    "numbers": [1, -(2**70), 1.5, None, True, 2 + 1j],
    "nested": {"tuple": (1, "a", {3}), 5: collections.OrderedDict(a=1)},
    "bytes": b"\x00\xff",
    "int": np.arange(6, dtype=np.int32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">f8"),
    "bool": np.array([True, False]),
    "unicode": np.array(["a", "bcd"]),
    "empty": np.zeros((0, 4), np.float32),
    "scalar_array": np.array(3.0),
    "scalar": np.float32(2.5),
    "objects": np.array([{"x": np.arange(2)}, None, "s"], dtype=object),
    "csc": sparse.csc_matrix(np.diag([1.0, 2.0, 3.0])),
    "csr": sparse.csr_matrix(np.eye(2)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", VALUES)
def test_equals_pickle_for_plain_data(tmp_path, protocol, name):
    wanted = VALUES[name]
    got = restricted_load(_write(tmp_path, pickle.dumps(wanted, protocol=protocol)))
    if sparse.issparse(wanted):
        assert type(got) is type(wanted)
        np.testing.assert_array_equal(got.toarray(), wanted.toarray())
    elif name == "objects":
        assert got.dtype == object
        np.testing.assert_array_equal(got[0]["x"], [0, 1])
        assert list(got[1:]) == [None, "s"]
    elif isinstance(wanted, (np.ndarray, np.generic)):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted)
    else:
        assert got == wanted and type(got) is type(wanted)


def test_shared_and_cyclic_values_survive(tmp_path):
    array = np.arange(3)
    loop: list = [array, array]
    loop.append(loop)
    got = restricted_load(_write(tmp_path, pickle.dumps(loop)))
    assert got[0] is got[1] and got[2] is got


def test_both_numpy_module_names(tmp_path):
    data = pickle.dumps(np.arange(4.0), protocol=2)
    old, new = data.replace(b"numpy._core", b"numpy.core"), data.replace(b"cnumpy.core", b"cnumpy._core")
    assert b"numpy.core." in old and b"numpy._core." in new
    for variant in (old, new):
        np.testing.assert_array_equal(restricted_load(_write(tmp_path, variant)), np.arange(4.0))


def test_python_2_pickle_of_an_array(tmp_path):
    """Python 2 writes array content as a string; built by hand, as protocol 2 of Python 2 does."""
    raw = np.array([1.5, -2.0]).tobytes()
    data = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )
    assert list(pickletools.genops(data))
    np.testing.assert_array_equal(restricted_load(_write(tmp_path, data))["a"], [1.5, -2.0])


def test_allowed_classes_become_inert_records(tmp_path, monkeypatch):
    module = types.ModuleType("chumpy.ch")
    ran = []

    class Ch:
        def __setstate__(self, state):
            ran.append(state)

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    made = Ch()
    made.__dict__["x"] = np.arange(3.0)
    path = _write(tmp_path, pickle.dumps({"v": made}, protocol=2))
    with pytest.raises(UnsafeFileError, match=r"chumpy\.ch\.Ch"):
        restricted_load(path)
    for allow in (["chumpy.*"], ["chumpy.ch.Ch"]):
        got = restricted_load(path, allow=allow)["v"]
        assert isinstance(got, PickledObject) and got.class_name == "chumpy.ch.Ch"
        np.testing.assert_array_equal(got.state["x"], np.arange(3.0))
    assert ran == []


class _Calls:
    def __init__(self, function, *args):
        self._reduce = function, args

    def __reduce__(self):
        return self._reduce


def _attacks(sentinel) -> dict[str, bytes]:
    command = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w').close()"

    def text(*lines: str) -> bytes:
        return "\n".join(lines).encode()

    attacks = {
        f"{f.__module__}.{f.__name__}": pickle.dumps({"weights": _Calls(f, argument)}, protocol=protocol)
        for protocol in (0, 2, 4)
        for f, argument in ((os.system, command), (eval, code), (exec, code), (subprocess.getoutput, command))
    }
    attacks |= {
        "Popen": pickle.dumps(_Calls(subprocess.Popen, ["touch", str(sentinel)])),
        "import": pickle.dumps(_Calls(__import__, "antigravity")),
        "getattr": pickle.dumps(_Calls(getattr, "x", "upper")),
        "nested": pickle.dumps(_Calls(np.dtype, _Calls(os.system, command))),
        "posix": text("cposix", "system", f"(S'{command}'", "tR."),
        "python 2 builtin": text("c__builtin__", "eval", f"(S{code!r}", "tR."),
        "numpy.testing": text("cnumpy.testing._private.utils", "runstring", f"(S{code!r}", "}tR."),
        "numpy.f2py": text("cnumpy.f2py.capi_maps", "getinit", f"(S'{command}'", "}tR."),
        "numpy.f2py diagnose": text("cnumpy.f2py.diagnose", "run_command", f"(S'{command}'", "tR."),
        "object that is also allowed": text("cchumpy.ch", "__builtins__", f"(S{code!r}", "tR."),
        "INST": text(f"(S'{command}'", "ios", "system", "."),
        "OBJ": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        "dotted name": b"\x80\x04\x8c\x06chumpy\x8c\x09os.system\x93\x8c"
        + bytes([len(command)])
        + command.encode()
        + b"\x85R.",
        "persistent": text("Pabc", "."),
        "operator": text("c_operator", "attrgetter", "(S'system'", "tR."),
        "builtins of our module": text("cposesyn.storage.unpickling", "os.system", f"(S'{command}'", "tR."),
        "load": text("cpickle", "loads", "(S'x'", "tR."),
    }
    return attacks


def test_attacks_are_refused_and_run_nothing(tmp_path):
    sentinel = tmp_path / "ran"
    for name, data in _attacks(sentinel).items():
        allow = [] if name == "object that is also allowed" else ["chumpy.*"]
        with pytest.raises(UnsafeFileError):
            restricted_load(_write(tmp_path, data), allow=allow)
        assert not sentinel.exists(), name


def test_the_message_names_the_function(tmp_path):
    with pytest.raises(UnsafeFileError, match=r"file\.pkl.*system.*get it again"):
        restricted_load(_write(tmp_path, pickle.dumps(_Calls(os.system, "true"))))


def test_state_of_functions_and_classes_cannot_be_set(tmp_path):
    """BUILD on what the table holds must not change it for the next file."""
    for name in (b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n", b"cnumpy\nndarray\n", b"c__builtin__\nset\n"):
        with pytest.raises(FileError):
            restricted_load(_write(tmp_path, b"\x80\x02" + name + b"N}U\x08__call__K\x01s\x86b."))
    assert restricted_load(_write(tmp_path, pickle.dumps({"a": b"\xff", "s": {1}}, 2))) == {"a": b"\xff", "s": {1}}


def test_memory_is_not_reserved_on_the_word_of_the_file(tmp_path):
    slot = b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b"."
    with pytest.raises(UnsafeFileError, match="reserves memory"):
        restricted_load(_write(tmp_path, slot))
    claims = [
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # BYTEARRAY8 of a terabyte
        b"\x80\x02cnumpy\nndarray\n\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85\x85R.",  # ndarray((2**40,))
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R.",
    ]
    shape = pickle.dumps(np.arange(4, dtype=np.uint8), protocol=2).replace(b"K\x04\x85", b"K\x05\x85")
    for data in (*claims, shape):
        with pytest.raises(FileError):
            restricted_load(_write(tmp_path, data))
    with pytest.raises(UnsafeFileError, match="too large"):
        restricted_load(_write(tmp_path, pickle.dumps(b"x" * 100)), max_bytes=50)


def test_sparse_indices_beyond_the_matrix_are_refused(tmp_path):
    matrix = sparse.csc_matrix(np.eye(3))
    matrix.indices[1] = 70000
    with pytest.raises(FileError, match="damaged"):
        restricted_load(_write(tmp_path, pickle.dumps(matrix)))


def test_damaged_files(tmp_path):
    whole = pickle.dumps({"a": np.arange(50.0)}, protocol=2)
    for data in (b"", b"hello", whole[:-20], whole[: len(whole) // 2], b"\x80\x09."):
        with pytest.raises(FileError, match="damaged"):
            restricted_load(_write(tmp_path, data))
    with pytest.raises(FileError, match="could not read"):
        restricted_load(tmp_path / "absent.pkl")
    deep = b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b"."
    with pytest.raises(UnsafeFileError, match="nested"):
        restricted_load(_write(tmp_path, deep))
