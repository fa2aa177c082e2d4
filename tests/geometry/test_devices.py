"""Devices by name, and batches that fill a device's memory."""

import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.geometry.devices import device_of, halving, is_out_of_memory, on_cpu, resolve_device

FULL = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    torch.OutOfMemoryError("HIP out of memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


def _pretend(monkeypatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_takes_the_best(monkeypatch, cuda, mps, expected):
    _pretend(monkeypatch, cuda, mps)
    assert resolve_device("auto").type == resolve_device(None).type == resolve_device().type == expected


def test_a_name_or_a_device_is_taken(monkeypatch):
    _pretend(monkeypatch, cuda=2, mps=True)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert resolve_device("mps").type == "mps"
    assert resolve_device("cpu") == torch.device("cpu")


def test_absent_and_unknown_devices_are_named(monkeypatch):
    _pretend(monkeypatch, cuda=1)
    with pytest.raises(InputError, match=r"'cuda:1'.*got 1 CUDA devices.*[Uu]se device='auto'"):
        resolve_device("cuda:1")
    with pytest.raises(InputError, match="no such device in device 'mps'"):
        resolve_device("mps")
    with pytest.raises(InputError, match=r"unknown device.*got gpu"):
        resolve_device("gpu")
    with pytest.raises(InputError, match="unknown device"):
        resolve_device(["cpu"])


def test_device_of_modules_and_other_things():
    assert device_of(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(torch.nn.BatchNorm1d(2, affine=False)) == torch.device("cpu")
    assert device_of(object()) == torch.device("cpu")
    assert device_of(torch.nn.Identity()) == torch.device("cpu")


@pytest.mark.parametrize("error", FULL)
@pytest.mark.filterwarnings("ignore:the device's memory is full")
def test_full_memory_halves_the_batch(error):
    sizes = []

    def square(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return np.array(batch) ** 2

    assert is_out_of_memory(error)
    assert np.concatenate(halving(square, range(14), size=10)).tolist() == [i * i for i in range(14)]
    # 10 and 5 fail, 3 is kept for the rest.
    assert sizes == [10, 5, 3, 3, 3, 3, 2]


def test_other_errors_are_not_taken_for_full_memory():
    for error in (RuntimeError("shape mismatch"), ValueError("out of memory"), MemoryError("out of memory")):
        calls = []

        def fails(batch, error=error, calls=calls):
            calls.append(len(batch))
            raise error

        with pytest.raises(type(error)):
            halving(fails, range(4), size=4)
        assert calls == [4]
    assert not is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory"))


@pytest.mark.filterwarnings("ignore:the device's memory is full")
def test_the_last_item_goes_to_the_way_out_or_raises():
    def fails_on_two(batch):
        if 2 in batch:
            raise torch.OutOfMemoryError("full")
        return [("here", item) for item in batch]

    with pytest.warns(UserWarning, match="done on the CPU"):
        parts = halving(fails_on_two, range(5), size=4, last=lambda batch: [("cpu", item) for item in batch])
    flat = [pair for part in parts for pair in part]
    assert flat == [("here", 0), ("here", 1), ("cpu", 2), ("here", 3), ("here", 4)]
    with pytest.raises(torch.OutOfMemoryError):
        halving(fails_on_two, range(5), size=4)


def test_nothing_is_asked_for_no_items():
    assert halving(lambda batch: 1 / 0, [], size=3) == []


def test_the_tensors_of_a_failed_batch_are_gone_before_the_next_try():
    import weakref

    kept = []

    def work(batch):
        assert not kept or kept[-1]() is None
        big = torch.zeros(10)
        kept.append(weakref.ref(big))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("full")
        return big.sum().item()

    with pytest.warns(UserWarning):
        assert halving(work, [1, 2], size=2) == [0.0, 0.0]


def test_a_module_is_on_the_cpu_for_the_call_only(monkeypatch):
    module, places = torch.nn.Linear(2, 2), []
    assert on_cpu(module, len) is None
    assert on_cpu(object(), len) is None
    moves = []
    monkeypatch.setattr("posesyn.geometry.devices.device_of", lambda _: torch.device(moves[-1] if moves else "meta"))
    monkeypatch.setattr(module, "to", lambda device: moves.append(device))
    assert on_cpu(module, lambda batch: places.append(list(moves)) or len(batch))([1, 2]) == 2
    assert places == [["cpu"]] and moves == ["cpu", torch.device("meta")]
