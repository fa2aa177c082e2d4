from __future__ import annotations

import json

import numpy as np
import pytest

from posesyn.errors import FileError
from posesyn.storage.tfjs import read_graph_weights

HALF = {"dtype": "float16", "original_dtype": "float32"}


def files(**changes):
    """A model of three arrays: halves, floats, integers."""
    half, full, whole = np.arange(6.0).reshape(2, 3), np.linspace(-1, 1, 4), np.array(7)
    entries = [
        {"name": "half", "shape": [2, 3], "dtype": "float32", "quantization": HALF},
        {"name": "full", "shape": [4], "dtype": "float32"},
        {"name": "whole", "shape": [], "dtype": "int32"},
    ]
    model = {"format": "graph-model", "weightsManifest": [{"paths": ["w.bin"], "weights": entries}], **changes}
    data = half.astype("<f2").tobytes() + full.astype("<f4").tobytes() + whole.astype("<i4").tobytes()
    return json.dumps(model).encode(), data


def test_arrays_come_back():
    found = read_graph_weights(*files())
    assert list(found) == ["half", "full", "whole"]
    np.testing.assert_array_equal(found["half"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_allclose(found["full"], np.linspace(-1, 1, 4), atol=1e-7)
    assert found["half"].dtype == np.float16 and found["full"].dtype == np.float32
    assert found["whole"] == 7 and found["whole"].dtype == np.int32


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"", "JSONDecodeError"),
        (b"\xff\xfe", "UnicodeDecodeError|JSONDecodeError"),
        (b"[1, 2]", "TypeError"),
        (b"{}", "KeyError: 'format'"),
        (files(format="layers-model")[0], "format 'layers-model'"),
        (files(weightsManifest=[])[0], "0 groups"),
        (files(weightsManifest=[{"paths": ["a", "b"], "weights": []}])[0], "more than one file"),
        (files(weightsManifest=[{"paths": ["a"], "weights": [{"name": "n"}]}])[0], "KeyError"),
        (files(weightsManifest=[{"paths": ["a"], "weights": [
            {"name": "n", "shape": [4], "dtype": "float32", "quantization": {"dtype": "uint8"}}]}])[0], "type uint8"),
        (files(weightsManifest=[{"paths": ["a"], "weights": [
            {"name": "n", "shape": [-4], "dtype": "float32"}]}])[0], r"shape \(-4,\)"),
    ],
)  # fmt: skip
def test_other_files_are_refused(model, message):
    with pytest.raises(FileError, match=rf"no TensorFlow.js graph model that can be read in m.json: .*({message})"):
        read_graph_weights(model, files()[1], "m.json")


@pytest.mark.parametrize("data", [b"", files()[1][:-1], files()[1] + b"\0", files()[1][:10]])
def test_weights_of_another_size_are_refused(data):
    with pytest.raises(FileError, match=r"incomplete or of another model.*expected 32 bytes"):
        read_graph_weights(files()[0], data)


def test_absurd_sizes_take_no_memory():
    entry = {"name": "n", "shape": [10**9, 10**9], "dtype": "float32"}
    with pytest.raises(FileError, match="incomplete"):
        read_graph_weights(files(weightsManifest=[{"paths": ["a"], "weights": [entry]}])[0], b"1234")
