"""Weights of TensorFlow.js files: a JSON that names them and one binary file, read without a runtime.

Source of the format: tensorflow/tfjs, ``tfjs-core/src/io/types.ts`` (``WeightsManifestEntry``).
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from posesyn.errors import FileError

# Little-endian, as tfjs-core/src/io/io_utils.ts reads them.
_TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}


def read_graph_weights(model: bytes, weights: bytes, where: object = None) -> dict[str, np.ndarray]:
    """Named arrays of a graph model, in its order, layout and precision.

    Args:
        model: Content of the JSON file.
        weights: Content of its one binary file.
        where: File name for messages.

    Raises:
        FileError: Not such a pair of files, a damaged one, or weights quantised to integers.
    """
    try:
        described = json.loads(model)
        if described["format"] != "graph-model":
            raise _wrong(where, f"format '{described['format']}'")
        groups = described["weightsManifest"]
        if len(groups) != 1 or len(groups[0]["paths"]) != 1:
            raise _wrong(where, f"{len(groups)} groups of weights in more than one file")
        entries = [_entry(entry, where) for entry in groups[0]["weights"]]
    except FileError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _wrong(where, f"{type(error).__name__}: {error}") from error
    found: dict[str, np.ndarray] = {}
    start = 0
    for name, kind, shape in entries:
        count = math.prod(shape)
        stop = start + count * np.dtype(kind).itemsize
        if stop > len(weights):
            break
        values = np.frombuffer(weights, kind, count, start).reshape(shape)
        found[name] = values.astype(np.dtype(kind).newbyteorder("="))
        start = stop
    if len(found) != len(entries) or start != len(weights):
        expected = sum(math.prod(shape) * np.dtype(kind).itemsize for _, kind, shape in entries)
        raise FileError("the weights of a TensorFlow.js model are incomplete or of another model", where=where,
                        expected=f"{expected} bytes, {len(entries)} names", got=f"{len(weights)} bytes")  # fmt: skip
    return found


def _entry(entry: dict[str, Any], where: object) -> tuple[str, str, tuple[int, ...]]:
    name, shape = str(entry["name"]), tuple(int(size) for size in entry["shape"])
    kind = entry.get("quantization", {}).get("dtype", entry["dtype"])
    if kind not in _TYPES or any(size < 0 for size in shape):
        raise _wrong(where, f"'{name}' of type {kind} and shape {shape}")
    return name, _TYPES[kind], shape


def _wrong(where: object, got: str) -> FileError:
    return FileError(
        "a file is no TensorFlow.js graph model that can be read", where=where,
        expected=f"a graph-model with one binary file of {', '.join(_TYPES)}", got=got[:200],
    )  # fmt: skip
