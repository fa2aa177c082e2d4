"""The reader of TensorFlow Lite files, on files that the official FlatBuffers writer makes here."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from posesyn.errors import FileError, UnsafeFileError
from posesyn.storage import tflite
from posesyn.storage.assets import from_tflite
from posesyn.storage.tflite import read_convolutions

flatbuffers = pytest.importorskip("flatbuffers", reason="the FlatBuffers writer is not installed")

CONV, DEPTHWISE, DEQUANTIZE, DENSIFY = 3, 4, 6, 124
FLOAT32, FLOAT16, INT8 = 0, 1, 9


class Writer:
    """Model files with the fields that the reader looks at."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)
        self.tensors: list[tuple] = []
        self.operators: list[tuple] = []

    def tensor(self, shape, data: bytes = b"", kind: int = FLOAT16, sparsity: dict | None = None) -> int:
        self.tensors.append((shape, data, kind, sparsity))
        return len(self.tensors) - 1

    def operator(self, code: int, inputs, outputs) -> None:
        self.operators.append((code, inputs, outputs))

    def table(self, **fields) -> int:
        """``f3=("Int8", 4)`` writes a number, ``f3=offset`` an offset, in field 3."""
        numbers = {int(name[1:]): value for name, value in fields.items()}
        self.builder.StartObject(max(numbers, default=0) + 1)
        for slot, value in numbers.items():
            if isinstance(value, tuple):
                getattr(self.builder, f"Prepend{value[0]}Slot")(slot, value[1], None)
            else:
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return self.builder.EndObject()

    def tables(self, offsets) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def vector(self, values, dtype="<i4") -> int:
        return self.builder.CreateNumpyVector(np.asarray(values, dtype))

    def sparsity(self, order, blocks, levels) -> int:
        made = []
        for level in levels:
            if isinstance(level, int):
                made.append(self.table(f0=("Int8", 0), f1=("Int32", level)))
            else:
                # Segments as uint16, indices as uint8: members 2 and 3 of the union.
                segments = self.table(f0=self.vector(level[0], "<u2"))
                indices = self.table(f0=self.vector(level[1], "<u1"))
                fields = {"f2": ("Uint8", 2), "f3": segments, "f4": ("Uint8", 3), "f5": indices}
                made.append(self.table(f0=("Int8", 1), **fields))
        return self.table(f0=self.vector(order), f1=self.vector(blocks), f2=self.tables(made))

    def bytes(self) -> bytes:
        known = sorted({code for code, _, _ in self.operators})
        codes = self.tables([self.table(f0=("Int8", min(code, 127)), f3=("Int32", code)) for code in known])
        tensors, buffers = [], []
        for number, (shape, data, kind, sparsity) in enumerate(self.tensors):
            fields = {"f0": self.vector(shape), "f1": ("Int8", kind), "f2": ("Uint32", number)}
            if sparsity:
                fields["f6"] = self.sparsity(**sparsity)
            tensors.append(self.table(**fields))
            buffers.append(self.table(f0=self.builder.CreateByteVector(data)))
        operators = [
            self.table(f0=("Uint32", known.index(code)), f1=self.vector(inputs), f2=self.vector(outputs))
            for code, inputs, outputs in self.operators
        ]
        graph = self.table(f0=self.tables(tensors), f3=self.tables(operators))
        model = self.table(f0=("Uint32", 3), f1=codes, f2=self.tables([graph]), f4=self.tables(buffers))
        self.builder.Finish(model, b"TFL3")
        return bytes(self.builder.Output())


def two_layers(sparse_kernel: np.ndarray | None = None) -> tuple[bytes, dict[str, np.ndarray]]:
    """A depthwise layer, half precision behind DEQUANTIZE, then a convolution in full precision."""
    rng = np.random.default_rng(0)
    truth = {
        "depthwise": rng.standard_normal((1, 3, 5, 4)).astype("<f2"),
        "first_bias": rng.standard_normal(4).astype("<f2"),
        "conv": rng.standard_normal((6, 2, 1, 4)).astype("<f4"),
        "second_bias": rng.standard_normal(6).astype("<f4"),
    }
    writer = Writer()
    picture = writer.tensor((1, 8, 8, 4), kind=FLOAT32)
    packed = [writer.tensor(truth[name].shape, truth[name].tobytes()) for name in ("depthwise", "first_bias")]
    loose = [writer.tensor(truth[name].shape, kind=FLOAT32) for name in ("depthwise", "first_bias")]
    full = [writer.tensor(truth[name].shape, truth[name].tobytes(), FLOAT32) for name in ("conv", "second_bias")]
    for source, copy in zip(packed, loose):
        writer.operator(DEQUANTIZE, [source], [copy])
    middle, end = writer.tensor((1, 8, 8, 4), kind=FLOAT32), writer.tensor((1, 8, 8, 6), kind=FLOAT32)
    writer.operator(DEPTHWISE, [picture, *loose], [middle])
    writer.operator(CONV, [middle, *full], [end])
    return writer.bytes(), truth


def test_layers_come_in_the_order_of_running_and_in_the_layout_of_torch():
    data, truth = two_layers()
    first, second = read_convolutions(data)
    assert (first.kind, second.kind) == ("depthwise", "conv")
    np.testing.assert_array_equal(first.weight[:, 0], truth["depthwise"][0].transpose(2, 0, 1))
    np.testing.assert_array_equal(first.bias, truth["first_bias"])
    np.testing.assert_array_equal(second.weight, truth["conv"].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(second.bias, truth["second_bias"])
    named = from_tflite({"x.tflite": data}, {"x.tflite": "net"})
    assert list(named) == ["net.000.weight", "net.000.bias", "net.001.weight", "net.001.bias"]


def test_sparse_kernels_are_filled_up():
    # Blocks of 2 output channels; (out/2, 1, 1, in) walked in this order, the input channels compressed.
    rng = np.random.default_rng(1)
    rows = [[0, 3], [], [1, 2, 3]]
    values = rng.standard_normal((sum(map(len, rows)), 2)).astype("<f2")
    dense = np.zeros((6, 1, 1, 4), "<f2")
    walked = iter(values)
    for row, columns in enumerate(rows):
        for column in columns:
            dense[2 * row : 2 * row + 2, 0, 0, column] = next(walked)
    segments = np.cumsum([0, *map(len, rows)])
    sparsity = {
        "order": [0, 1, 2, 3, 4],
        "blocks": [0],
        "levels": [3, 1, 1, (segments, [column for columns in rows for column in columns]), 2],
    }
    writer = Writer()
    picture = writer.tensor((1, 8, 8, 4), kind=FLOAT32)
    kernel = writer.tensor(dense.shape, values.tobytes(), sparsity=sparsity)
    filled, bias = writer.tensor(dense.shape), writer.tensor((6,), bytes(12))
    writer.operator(DENSIFY, [kernel], [filled])
    writer.operator(CONV, [picture, filled, bias], [writer.tensor((1, 8, 8, 6), kind=FLOAT32)])
    (layer,) = read_convolutions(writer.bytes())
    np.testing.assert_array_equal(layer.weight, dense.transpose(0, 3, 1, 2))


def test_quantised_weights_are_named():
    writer = Writer()
    inputs = [writer.tensor((1, 4, 4, 2)), writer.tensor((1, 1, 1, 2), b"ab", INT8), writer.tensor((1,), bytes(2))]
    writer.operator(CONV, inputs, [writer.tensor((1, 4, 4, 1))])
    with pytest.raises(FileError, match=r"quantised.*tensor type 9"):
        read_convolutions(writer.bytes())


def test_absurd_shapes_are_refused(monkeypatch):
    monkeypatch.setattr(tflite, "MAX_VALUES", 8)
    with pytest.raises(UnsafeFileError, match="absurd size"):
        read_convolutions(two_layers()[0])


def test_other_files_are_refused():
    for data in (b"", b"TFL3", b"PK\x03\x04....", bytes(100)):
        with pytest.raises(FileError, match="no TensorFlow Lite model"):
            read_convolutions(data)


def test_damage_anywhere_is_an_error_or_changes_values_only():
    data, _ = two_layers()
    rng = np.random.default_rng(0)
    for stop in range(8, len(data), 7):
        with pytest.raises(FileError):
            read_convolutions(data[:stop])
    for place in rng.integers(8, len(data), 600):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(FileError):
            read_convolutions(bytes(damaged))
