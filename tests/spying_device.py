"""A second device that does not exist, to find tensors that are made on the wrong one without an accelerator.

Tensors sent to it are marked and stay where they are, so that results are the CPU's to the last bit. As on a real
accelerator, a marked tensor must not meet one of the CPU in an operation, and must come back before NumPy reads it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

# A name that torch takes and whose kernels are never reached.
SPY = torch.device("meta")
_MARK = "_is_on_the_spying_device"
_TO_NUMPY = {"numpy", "__array__", "__dlpack__"}
# Real devices allow these across devices.
_ACROSS = {"copy_", "type_as", "_has_compatible_shallow_copy_type"}


class WrongDevice(AssertionError):
    """An operation that a real accelerator would refuse."""


class SpyingDevice(TorchFunctionMode):
    """While it is entered, :data:`SPY` can be used as a device.

    Example:
        >>> with SpyingDevice():
        ...     network.to(SPY).predict(persons)
    """

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        owner = getattr(getattr(func, "__self__", None), "__name__", "")  # of a property's getter or setter
        if name == "__get__" and owner in ("device", "is_cpu"):
            spied = is_spied(args[0])
            return (SPY if spied else args[0].device) if owner == "device" else not spied
        if name == "__set__" and owner == "data":
            func(*args)
            _set_mark(args[0], is_spied(args[1]))
            return None
        if name == "cpu":
            return _elsewhere(args[0], args[0], False)
        if name == "to":
            return _to(func, args, kwargs)
        tensors = list(_tensors((args, kwargs)))
        spied = any(map(is_spied, tensors))
        if spied and name in _TO_NUMPY:
            raise WrongDevice(f"Tensor.{name} of a tensor on the device: it needs .cpu() first")
        if spied and name not in _ACROSS:
            # Positions may lie on the CPU; what is written there, and what is read from, may not.
            parts = {"__setitem__": (args[0], args[2:]), "__getitem__": args[0]}.get(name, tensors)
            checked = list(_tensors(parts))
            if any(not is_spied(tensor) and (tensor.ndim or name == "__getitem__") for tensor in checked):
                shapes = [(tuple(t.shape), "device" if is_spied(t) else "cpu") for t in checked]
                raise WrongDevice(f"{resolve_name(func) or name}: tensors of two devices meet: {shapes}")
        if kwargs.get("device") is not None:
            spied = torch.device(kwargs["device"]) == SPY
            if spied:
                kwargs["device"] = "cpu"
        result = func(*args, **kwargs)
        if spied:
            for tensor in _tensors(result):
                _set_mark(tensor, True)
        return result


def is_spied(tensor: torch.Tensor) -> bool:
    """Whether a tensor is on :data:`SPY`."""
    return getattr(tensor, _MARK, False)


def _set_mark(tensor: torch.Tensor, value: bool) -> None:
    setattr(tensor, _MARK, value)


def _elsewhere(source: torch.Tensor, result: torch.Tensor, spied: bool) -> torch.Tensor:
    """``result`` with a mark, as another object where the mark of ``source`` is a different one."""
    if is_spied(source) != spied and result is source:
        result = result.clone()
    if is_spied(result) != spied:
        _set_mark(result, spied)
    return result


def _to(func, args, kwargs) -> torch.Tensor:
    source, *rest = args
    other = kwargs.pop("other", None)
    if rest and isinstance(rest[0], torch.Tensor):
        other = rest.pop(0)
    if other is not None:
        return _elsewhere(source, func(source, other.dtype, *rest, **kwargs), is_spied(other))
    places = [value for value in (*rest, kwargs.get("device")) if isinstance(value, str | torch.device)]
    spied = torch.device(places[0]) == SPY if places else is_spied(source)
    rest = ["cpu" if value in places else value for value in rest]
    if "device" in kwargs:
        kwargs["device"] = "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _elsewhere(source, func(source, *rest, **kwargs), spied)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
