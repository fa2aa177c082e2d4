"""Reads pickles of old data sets and body models without running anything they ask for.

A pickle names functions and classes and calls them with arguments of its choice. Here every name is looked up in a
fixed table, nothing is ever imported, and what the table holds are records that only keep their arguments: NumPy's own
unpickling code is not reached either. After loading, the records become arrays, with every size checked against the
bytes that are there. Other classes can be let in as inert :class:`PickledObject` with ``allow``.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from posesyn.errors import FileError, UnsafeFileError

# Our own choice: SMPL with 300 shape components takes 250 MB.
MAX_PICKLE_BYTES = 1 << 30
# Our own choice: SMPL files hold about a thousand instructions, a sequence of 3DPW some tens of thousands.
MAX_INSTRUCTIONS = 5_000_000
_SIMPLE_DTYPE = re.compile(r"[|<>=]?(?:[biufcSU]\d{0,6}|\?|O\d?)")
_SPARSE = tuple(
    f"scipy.sparse.{module}.{name}"
    for name in ("csc_matrix", "csr_matrix", "csc_array", "csr_array")
    for module in (name[:3], f"_{name[:3]}")
)


class PickledObject:
    """An object whose class was not run: its full class name, constructor arguments and state."""

    class_name = ""
    kind = ""  # which method of _Materialiser makes the value of it; none for classes let in by ``allow``
    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any) -> PickledObject:
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *args: Any) -> None:
        """Arguments are kept by ``__new__``, which alone runs for objects of pickle protocol 2."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"PickledObject({self.class_name})"


class _Function:
    """A callable that a pickle can call but, unlike a function, not change (the BUILD instruction sets attributes)."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of a function cannot be set")


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


def _reconstruct_object(cls: type, base: Any, state: Any) -> Any:
    """``copyreg._reconstructor``, for plain objects only."""
    if base is not object or state is not None or not issubclass(cls, PickledObject):
        raise pickle.UnpicklingError(f"cannot rebuild {cls!r}")
    return cls()


def _table() -> dict[str, Any]:
    """Full name → what stands in for it. Made anew for every file, so that no file can leave anything behind."""

    def record(class_name: str, kind: str) -> type:
        return type(kind.title(), (PickledObject,), {"class_name": class_name, "kind": kind})

    names: dict[str, Any] = {
        "numpy.ndarray": record("numpy.ndarray", "array"),
        "numpy.dtype": record("numpy.dtype", "dtype"),
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": _Function(_encode),
        **{name: record(name, "sparse") for name in _SPARSE},
    }
    scalar, buffer = record("numpy.scalar", "scalar"), record("numpy.frombuffer", "buffer")
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = names["numpy.ndarray"]
        names[f"{core}.multiarray.scalar"] = scalar
        names[f"{core}.numeric._frombuffer"] = buffer
    for module in ("builtins", "__builtin__"):
        names |= {f"{module}.{t.__name__}": t for t in (object, set, frozenset, complex, slice)}
        names[f"{module}.bytes"] = _Function(lambda: b"")  # how Python 3 writes no bytes in protocol 2
    for module in ("copyreg", "copy_reg"):
        names[f"{module}._reconstructor"] = _Function(_reconstruct_object)
    return names


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, where: object, allow: Sequence[str], encoding: str) -> None:
        super().__init__(io.BytesIO(data), encoding=encoding)
        self._where, self._allow, self._names = where, tuple(allow), _table()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._names:
            # A dotted name would walk attributes; it is never matched by a pattern.
            allowed = (full.startswith(p[:-1]) if p.endswith(".*") else full == p for p in self._allow)
            if "." in name or not any(allowed):
                raise UnsafeFileError(
                    "the pickle asks for code that a data file has no need of; nothing was run",
                    where=self._where,
                    got=full,
                    fix="do not use this file; get it again from its publisher",
                )
            self._names[full] = type(name, (PickledObject,), {"class_name": full})
        return self._names[full]

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafeFileError("the pickle refers to objects outside of itself", where=self._where, got=repr(pid)[:80])


def restricted_load(
    path: str | os.PathLike[str],
    allow: Sequence[str] = (),
    *,
    encoding: str = "latin1",
    max_bytes: int = MAX_PICKLE_BYTES,
) -> Any:
    """Loads a pickle of plain values, NumPy arrays and SciPy sparse matrices.

    Args:
        path: The file, of any pickle protocol, written by Python 2 or 3.
        allow: Further classes, as full names (``"chumpy.ch.Ch"``) or whole packages (``"chumpy.*"``). They are not
            imported: their objects become :class:`PickledObject` records.
        encoding: For strings written by Python 2.
        max_bytes: Largest file to read.

    Returns:
        The value, with arrays and matrices as such.

    Raises:
        UnsafeFileError: The pickle asks for anything else, or for more memory than the file has data. Nothing was run.
        FileError: Missing or damaged.
    """
    where = Path(path)
    try:
        with open(where, "rb") as handle:
            data = handle.read(max_bytes + 1)
    except OSError as error:
        raise FileError("could not read a pickle", where=where, got=error.strerror or str(error)) from error
    if len(data) > max_bytes:
        raise UnsafeFileError("the pickle is too large", where=where, expected=f"<= {max_bytes} bytes")
    return restricted_loads(data, where, allow, encoding=encoding)


def restricted_loads(data: bytes, where: object, allow: Sequence[str] = (), *, encoding: str = "latin1") -> Any:
    """:func:`restricted_load` for a pickle in memory; ``where`` names it in messages."""
    try:
        _check_instructions(data, where)
        return _Materialiser().convert(_Unpickler(data, where, allow, encoding).load())
    except FileError:
        raise
    except RecursionError as error:
        raise UnsafeFileError("the pickle is nested too deeply", where=where) from error
    except Exception as error:  # a damaged pickle can make the unpickler raise nearly anything
        got = f"{type(error).__name__}: {error}"
        raise FileError("the pickle is damaged", where=where, got=got, fix="get the file again") from error


def _check_instructions(data: bytes, where: object) -> None:
    """Walks the instructions without executing any: memo slots far beyond their count would be allocated."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data), 1):
        if count > MAX_INSTRUCTIONS:
            most = f"<= {MAX_INSTRUCTIONS}"
            raise UnsafeFileError("the pickle has too many instructions", where=where, expected=most)
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(str(argument)) <= count:
            raise UnsafeFileError("the pickle reserves memory it has no use for", where=where, got=f"slot {argument}")


class _Materialiser:
    """Turns records into arrays, once each, through all containers."""

    def __init__(self) -> None:
        # The value itself is kept beside its result: an id is only unique while its object lives.
        self._done: dict[int, tuple[Any, Any]] = {}

    def convert(self, value: Any) -> Any:
        if isinstance(value, (str, bytes, int, float, complex, type(None))):
            return value
        if id(value) in self._done:
            return self._done[id(value)][1]
        if isinstance(value, list):
            self._done[id(value)] = (value, value)
            value[:] = [self.convert(item) for item in value]
            return value
        if isinstance(value, dict):
            self._done[id(value)] = (value, value)
            items = [(self.convert(k), self.convert(v)) for k, v in value.items()]
            value.clear()
            value.update(items)
            return value
        if isinstance(value, tuple):
            made: Any = tuple(self.convert(item) for item in value)
        elif isinstance(value, PickledObject) and value.kind:
            made = getattr(self, f"_{value.kind}")(value)
        elif isinstance(value, PickledObject):
            self._done[id(value)] = (value, value)
            value.args, value.state = self.convert(value.args), self.convert(value.state)
            return value
        else:
            return value
        self._done[id(value)] = (value, made)
        return made

    def _buffer(self, record: PickledObject) -> np.ndarray:
        raw, dtype, shape, order = record.args
        return self._from_bytes(raw, self.convert(dtype), shape, order == "F")

    def _scalar(self, record: PickledObject) -> Any:
        dtype, raw = self.convert(record.args[0]), record.args[1]
        return self.convert(raw) if dtype.hasobject else self._from_bytes(raw, dtype, (), False)[()]

    def _dtype(self, record: PickledObject) -> np.dtype[Any]:
        name = record.args[0]
        if not isinstance(name, str) or not _SIMPLE_DTYPE.fullmatch(name):
            raise ValueError(f"array type {name!r}")
        dtype = np.dtype("O" if "O" in name else name)
        order: Any = record.state[1] if record.state is not None else "|"
        return dtype.newbyteorder(order) if order in ("<", ">") and dtype.itemsize > 1 else dtype

    def _array(self, record: PickledObject) -> np.ndarray:
        if record.state is None:
            raise ValueError("an array without content")
        shape, dtype, fortran, raw = record.state[-4:]
        dtype = self.convert(dtype)
        if not dtype.hasobject:
            return self._from_bytes(raw, dtype, shape, bool(fortran))
        if math.prod(shape) != len(raw):
            raise ValueError(f"{len(raw)} objects for shape {shape}")
        made = np.empty(len(raw), object)
        for index, item in enumerate(raw):
            made[index] = self.convert(item)
        return made.reshape(shape, order="F" if fortran else "C")

    @staticmethod
    def _from_bytes(raw: Any, dtype: np.dtype, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
        data = raw.encode("latin1") if isinstance(raw, str) else raw  # a string of Python 2 is one of bytes
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"array content of type {type(raw).__name__}")
        if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for shape {shape} of {dtype}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy(order="K")

    def _sparse(self, record: PickledObject) -> Any:
        state = self.convert(record.state)
        made = getattr(sparse, record.class_name.rsplit(".", 1)[1])(
            tuple(np.asarray(state[key]) for key in ("data", "indices", "indptr")),
            shape=tuple(int(n) for n in state["_shape"]),
        )
        made.check_format(full_check=True)  # indices beyond the shape would be read from foreign memory
        return made
