"""Lifters by name."""

from __future__ import annotations

import os
from typing import Any

from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.lifters.lifter import Lifter, lifter_of, official_weights, saved_options
from posesyn.estimators.lifters.mlp import MLPLifter
from posesyn.estimators.lifters.semgcn import SemGCNLifter
from posesyn.estimators.lifters.stgcn import STGCNLifter
from posesyn.estimators.lifters.videopose import VideoPoseLifter

LIFTERS: dict[str, type[Lifter]] = {kind.name: kind for kind in (MLPLifter, VideoPoseLifter, SemGCNLifter, STGCNLifter)}


def make_lifter(name: str, **options: Any) -> Lifter:
    """A lifter with random weights.

    Raises:
        InputError: Unknown name or options.
    """
    if name not in LIFTERS:
        raise InputError(f"unknown lifter '{name}'", where="make_lifter", expected=f"one of {', '.join(LIFTERS)}")
    return LIFTERS[name](**options)


def load_lifter(path: str | os.PathLike[str]) -> Lifter:
    """A lifter from a file of :meth:`Lifter.save` or of jfzhang95/PoseAug; which one is seen from the weights.

    Raises:
        FileError, UnsafeFileError: Not readable. CheckpointError: No lifter in it.
    """
    weights = official_weights(path)
    _, options = saved_options(path)
    name = lifter_of({key.removeprefix("module."): None for key in weights})
    if name is None:
        raise CheckpointError(
            "a checkpoint belongs to no known lifter",
            where=path,
            expected=f"weights of {', '.join(LIFTERS)}",
            got=", ".join(sorted(weights)[:5]),
        )
    lifter = make_lifter(name, **options)
    lifter.load_state(weights, where=path)
    return lifter.eval()
