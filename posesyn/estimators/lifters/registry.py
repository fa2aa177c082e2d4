"""Lifters by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.lifters.graphs import SemGCNLifter, STGCNLifter
from posesyn.estimators.lifters.lifter import Lifter, bare_keys, lifter_of, official_weights, saved_options
from posesyn.estimators.lifters.mlp import MLPLifter, VideoPoseLifter

LIFTERS: dict[str, type[Lifter]] = {kind.name: kind for kind in (MLPLifter, VideoPoseLifter, SemGCNLifter, STGCNLifter)}


def make_lifter(name: str, **options: Any) -> Lifter:
    """A lifter with random weights.

    Raises:
        InputError: Unknown name or options.
    """
    if name not in LIFTERS:
        raise InputError(f"unknown lifter '{name}'", where="make_lifter", expected=f"one of {', '.join(LIFTERS)}")
    known = inspect.signature(LIFTERS[name]).parameters
    if unknown := sorted(options.keys() - known):
        raise InputError(f"'{name}' has no such options", where="make_lifter", expected=list(known), got=unknown)
    return LIFTERS[name](**options)


def load_lifter(path: str | os.PathLike[str], name: str | None = None, **options: Any) -> Lifter:
    """A lifter from a file of :meth:`Lifter.save`, of a fine-tuned ``LifterEstimator`` or of jfzhang95/PoseAug.

    Args:
        path: The file.
        name: The lifter it must hold. None takes whichever it is, which is seen from the weights.
        options: In place of those of the file, e.g. ``dropout=0``; sizes are the weights'.

    Raises:
        InputError: Unknown name or options. FileError, UnsafeFileError: Not readable. CheckpointError: No lifter in it,
            not the one named, or options of another size.
    """
    weights = bare_keys(official_weights(path))
    found = lifter_of(weights)
    if found is None:
        raise CheckpointError(
            "a checkpoint belongs to no known lifter",
            where=path,
            expected=f"weights of {', '.join(LIFTERS)}",
            got=", ".join(sorted(weights)[:5]),
        )
    if name is None or name == found:
        lifter = make_lifter(found, **(_sizes(found, weights) | saved_options(path)[1] | options))
    else:
        lifter = make_lifter(name)  # says whose weights they are when they are put in
    lifter.load_state(weights, where=path)
    return lifter.eval()


def _sizes(name: str, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Width and number of stages, seen from the weights: official files do not say them."""
    if name == "mlp":
        return {"width": weights["w1.weight"].shape[0], "stages": _count(weights, "linear_stages.")}
    if name == "videopose":
        return {"width": weights["expand_conv.weight"].shape[0], "stages": _count(weights, "layers_conv.") // 2}
    if name == "semgcn":
        return {"width": weights["gconv_input.0.gconv.W"].shape[-1], "stages": _count(weights, "gconv_layers.")}
    return {"width": weights["stgcn.st_gcn_networks.0.gcn.conv.weight"].shape[0] // 4}


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)})
