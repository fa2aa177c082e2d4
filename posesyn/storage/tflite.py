"""Weights out of TensorFlow Lite files: a reader of the flatbuffer, as far as convolutions need it. Nothing runs.

A reader of our own, because TensorFlow is a gigabyte and the packages ``flatbuffers`` and ``tflite`` would be installed
for everybody for a file that is read once, when it is fetched. Field numbers are those of TensorFlow's public schema
(tensorflow/lite/schema/schema.fbs); the layout of tables and vectors is that of the FlatBuffers binary format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from posesyn.errors import FileError, UnsafeFileError

# BuiltinOperator, TensorType of the schema, as far as they are used.
_CONVOLUTIONS = {3: "conv", 4: "depthwise"}
_COPIES = {6: "DEQUANTIZE", 124: "DENSIFY"}
_TYPES: dict[int, str] = {0: "<f4", 1: "<f2"}
# Our own choice: the largest layer of the networks in use has 0.7 million weights.
MAX_VALUES = 1 << 26


@dataclass(frozen=True, eq=False)
class Convolution:
    """One layer.

    Attributes:
        kind: ``conv`` or ``depthwise``.
        weight: (out, in, h, w), for depthwise (out, 1, h, w); float16 or float32 as in the file.
        bias: (out,).
    """

    kind: str
    weight: np.ndarray
    bias: np.ndarray


def read_convolutions(data: bytes, name: str = "a tflite file") -> list[Convolution]:
    """The convolutions of a file with one graph, in the order in which they are run.

    Args:
        data: Content of the file.
        name: For messages.

    Raises:
        FileError: No such file, a damaged one, or one with quantised weights.
        UnsafeFileError: Tensors of absurd size.
    """
    if data[4:8] != b"TFL3":
        raise FileError("a file is no TensorFlow Lite model", where=name, got=f"{len(data)} bytes")
    try:
        model = _Table(data, _u32(data, 0))
        codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.tables(1)]
        graphs = model.tables(2)
        if len(graphs) != 1:
            raise FileError(
                "a TensorFlow Lite model has another number of graphs", where=name, expected=1, got=len(graphs)
            )
        return _layers(model, graphs[0], codes, name)
    except FileError:
        raise
    except (struct.error, ValueError, IndexError, KeyError, RecursionError, UnicodeDecodeError) as error:
        raise FileError("a TensorFlow Lite file is damaged", where=name, got=error, fix="fetch it again") from error


def _layers(model: _Table, graph: _Table, codes: list[int], name: str) -> list[Convolution]:
    tensors, buffers, operators = graph.tables(0), model.tables(4), graph.tables(3)
    sources = {}  # a dequantised or densified tensor → the one that it is a copy of
    found = []
    for operator in operators:
        code = codes[operator.number(0, "I")]
        inputs = operator.vector(1, "<i4")
        if code in _COPIES:
            sources[int(operator.vector(2, "<i4")[0])] = int(inputs[0])
        elif code in _CONVOLUTIONS:
            weight, bias = (_constant(tensors, buffers, _origin(int(index), sources), name) for index in inputs[1:3])
            # (out, h, w, in), and (1, h, w, out) for depthwise ones.
            weight = weight.transpose(0, 3, 1, 2) if code == 3 else weight.transpose(3, 0, 1, 2)
            found.append(Convolution(_CONVOLUTIONS[code], np.ascontiguousarray(weight), bias))
    return found


def _origin(index: int, sources: dict[int, int]) -> int:
    for _ in range(len(sources) + 1):
        if index not in sources:
            return index
        index = sources[index]
    raise ValueError("tensors are copies of each other")


def _constant(tensors: list[_Table], buffers: list[_Table], index: int, name: str) -> np.ndarray:
    tensor = tensors[index]
    shape = tuple(int(size) for size in tensor.vector(0, "<i4"))
    kind = tensor.number(1, "b")
    if kind not in _TYPES:
        raise FileError("a TensorFlow Lite model has quantised weights", where=name, expected="float16 or float32",
                        got=f"tensor type {kind}")  # fmt: skip
    if min(shape, default=1) < 1 or int(np.prod(shape, dtype=object)) > MAX_VALUES:
        raise UnsafeFileError("a tensor has an absurd size", where=name, got=shape)
    values = buffers[tensor.number(2, "I")].vector(0, "<u1")
    flat: np.ndarray = np.frombuffer(values.tobytes(), _TYPES[kind])
    if tensor.has(6):
        return _dense(tensor.table(6), flat, shape)
    return flat.reshape(shape)


def _dense(sparsity: _Table, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of which the file holds the non-zero blocks.

    Dimensions are walked in ``traversal_order``, the ones from ``len(shape)`` on are those inside a block of the
    dimension that ``block_map`` names; each is either dense or a list of the indices that occur (compressed rows).
    """
    order, blocks = sparsity.vector(0, "<i4").tolist(), sparsity.vector(1, "<i4").tolist()
    levels = [_Level(table) for table in sparsity.tables(2)]
    if sorted(order) != list(range(len(levels))) or len(levels) != len(shape) + len(blocks):
        raise ValueError("a sparse tensor's dimensions do not fit")
    places = _walk(levels)
    if len(places) != len(values):
        raise ValueError(f"a sparse tensor has {len(values)} values for {len(places)} places")
    index = np.zeros((len(places), len(levels)), np.int64)
    index[:, order] = places
    sizes = {order[level]: levels[level].size for level in range(len(levels))}
    full = index[:, : len(shape)]
    for number, dimension in enumerate(blocks):
        inner = len(shape) + number
        full[:, dimension] = full[:, dimension] * sizes[inner] + index[:, inner]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(full.T)] = values
    return dense


class _Level:
    """One dimension of a sparse tensor."""

    def __init__(self, table: _Table) -> None:
        self.sparse = table.number(0, "b") == 1
        self.size = table.number(1, "i")  # of a dense one
        self.segments = self._integers(table, 2)
        self.indices = self._integers(table, 4)

    @staticmethod
    def _integers(table: _Table, field: int) -> np.ndarray:
        kinds = {1: "<i4", 2: "<u2", 3: "<u1"}  # members of the union SparseIndexVector
        kind = table.number(field, "B")
        return table.table(field + 1).vector(0, kinds[kind]).astype(np.int64) if kind else np.zeros(0, np.int64)


def _walk(levels: list[_Level]) -> np.ndarray:
    """(N, L) index of every stored value along every level, in the order of the values."""
    rows = np.zeros((1, 0), np.int64)
    for level in levels:
        if level.sparse:
            counts = np.diff(level.segments)
            if len(counts) != len(rows) or (counts < 0).any() or counts.sum() != len(level.indices):
                raise ValueError("a sparse tensor's segments do not fit")
            rows = np.concatenate((rows.repeat(counts, axis=0), level.indices[:, None]), axis=1)
        else:
            if len(rows) * max(level.size, 1) > MAX_VALUES:
                raise ValueError("a sparse tensor is absurdly large")
            inner = np.tile(np.arange(level.size), len(rows))
            rows = np.concatenate((rows.repeat(level.size, axis=0), inner[:, None]), axis=1)
    return rows


def _u32(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


class _Table:
    """A table of a flatbuffer. Fields are numbered as in the schema; every read is checked against the file's end."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        self._offsets = place - struct.unpack_from("<i", data, place)[0]
        if not 0 <= self._offsets < len(data):
            raise ValueError("an offset leads out of the file")
        self._size = struct.unpack_from("<H", data, self._offsets)[0]

    def _field(self, number: int) -> int | None:
        entry = 4 + 2 * number
        if entry + 2 > self._size:
            return None
        offset = struct.unpack_from("<H", self._data, self._offsets + entry)[0]
        return self._place + offset if offset else None

    def has(self, number: int) -> bool:
        """Whether the field is there."""
        return self._field(number) is not None

    def number(self, number: int, form: str) -> int:
        """A scalar; 0 where it is left out."""
        place = self._field(number)
        return 0 if place is None else int(struct.unpack_from(f"<{form}", self._data, place)[0])

    def _target(self, number: int) -> int | None:
        place = self._field(number)
        return None if place is None else place + _u32(self._data, place)

    def table(self, number: int) -> _Table:
        """A table that must be there."""
        place = self._target(number)
        if place is None:
            raise ValueError(f"field {number} is missing")
        return _Table(self._data, place)

    def tables(self, number: int) -> list[_Table]:
        """A vector of tables; empty where it is left out."""
        place = self._target(number)
        if place is None:
            return []
        starts = range(place + 4, place + 4 + 4 * self._count(place, 4), 4)
        return [_Table(self._data, start + _u32(self._data, start)) for start in starts]

    def vector(self, number: int, dtype: str) -> np.ndarray:
        """A vector of numbers; empty where it is left out."""
        place = self._target(number)
        if place is None:
            return np.zeros(0, dtype)
        return np.frombuffer(self._data, dtype, self._count(place, np.dtype(dtype).itemsize), place + 4)

    def _count(self, place: int, size: int) -> int:
        count = _u32(self._data, place)
        if place + 4 + count * size > len(self._data):
            raise ValueError("a vector leads out of the file")
        return count
