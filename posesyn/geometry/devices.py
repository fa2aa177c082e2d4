"""Where tensors live: devices by name, and batches that do not fit into a device's memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from posesyn.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What drivers say beside torch.OutOfMemoryError. The CPU's allocator says "not enough memory": that is no case for
# smaller batches on another device.
_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def resolve_device(name: str | torch.device | None = "auto") -> torch.device:
    """A device by name.

    Args:
        name: ``"auto"`` or None (an NVIDIA or AMD GPU, else Apple's, else the CPU), ``"cpu"``, ``"cuda"``,
            ``"cuda:1"``, ``"mps"``, any other name that torch knows, or a device.

    Raises:
        InputError: No such name, or this machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name is None or (isinstance(name, str) and name == "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError("unknown device", expected="'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'", got=name) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise _absent(device, f"{count} CUDA devices")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise _absent(device, "no Apple GPU that torch can use")
    return device


def _absent(device: torch.device, got: str) -> InputError:
    fix = "use device='auto' or 'cpu', or install the torch that fits your GPU (pytorch.org/get-started)"
    return InputError("this machine has no such device", where=f"device '{device}'", got=got, fix=fix)


def device_of(thing: object) -> torch.device:
    """Where a module's first parameter or buffer is; the CPU for one without any, and for what is no module.

    Example:
        >>> device_of(torch.nn.Linear(2, 3))
        device(type='cpu')
    """
    if isinstance(thing, torch.nn.Module):
        for tensor in (*thing.parameters(), *thing.buffers()):
            return tensor.device
    return torch.device("cpu")


def moved(thing: Item, device: str | torch.device | None) -> Item:
    """``thing`` itself, on a device if it is a ``torch.nn.Module``; errors as of :func:`resolve_device`."""
    place = resolve_device(device)
    return thing.to(place) if isinstance(thing, torch.nn.Module) else thing


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed for a device: on itself, but for Apple's GPUs, which have none, on the CPU.

    Example:
        >>> exact_device(torch.device("mps"))
        device(type='cpu')
    """
    return torch.device("cpu") if device.type == "mps" else device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an accelerator's memory is full: CUDA, ROCm, MPS, cuBLAS and cuDNN."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text.lower() in str(error).lower() for text in _FULL)


def halving(
    work: Callable[[list[Item]], Result],
    items: Sequence[Item],
    size: int,
    last: Callable[[list[Item]], Result] | None = None,
) -> list[Result]:
    """Calls ``work`` on batches of items, in order; a batch that does not fit into the device's memory is halved.

    Returns the results, one per batch. A size that turned out to fit is kept for the batches that follow. Nothing that
    was done is done again, except for the batch that failed: ``work`` must give the same for it a second time, so that
    its randomness may come from the items only.

    Args:
        work: One batch → its result.
        items: All items.
        size: Items per batch to begin with.
        last: The way out for a single item that does not fit, such as :func:`on_cpu`; None raises the device's error.

    Example:
        >>> halving(sum, [1, 2, 3, 4, 5], size=2)
        [3, 7, 5]
    """
    results: list[Result] = []
    start = 0
    while start < len(items):
        batch = [items[row] for row in range(start, min(start + size, len(items)))]
        full = False
        try:
            results.append(work(batch))
        except RuntimeError as error:
            if not is_out_of_memory(error) or (len(batch) == 1 and last is None):
                raise
            full = True
        # Outside of the except clause, since the error holds on to the tensors of the batch that failed.
        if full:
            _release()
            if len(batch) > 1:
                size = (len(batch) + 1) // 2
                warnings.warn(f"the device's memory is full: on with batches of {size}", stacklevel=2)
                continue
            warnings.warn("one item fills the device's memory: it is done on the CPU", stacklevel=2)
            assert last is not None  # noqa: S101 - without it the except clause has raised
            results.append(last(batch))
        start += len(batch)
    return results


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def on_cpu(module: object, work: Callable[[list[Item]], Result]) -> Callable[[list[Item]], Result] | None:
    """``work`` while ``module`` is on the CPU, to which it is moved for the call, for the end of :func:`halving`; None
    for what is no module or stands on the CPU already: then there is no way out."""
    if not isinstance(module, torch.nn.Module) or device_of(module).type == "cpu":
        return None

    def work_on_cpu(batch: list[Item]) -> Result:
        home = device_of(module)
        # Weights that are moved in inference mode could not be trained afterwards.
        with torch.inference_mode(False):
            module.to("cpu")
        try:
            return work(batch)
        finally:
            with torch.inference_mode(False):
                module.to(home)

    return work_on_cpu
