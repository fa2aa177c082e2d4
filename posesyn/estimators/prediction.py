"""The frame around every network's prediction: chunks, eval mode, no gradients, one PoseBatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from posesyn.errors import InputError
from posesyn.protocols import EstimatorSpec
from posesyn.types import Person, PoseBatch, batched


def predict_in_chunks(
    module: torch.nn.Module,
    spec: EstimatorSpec,
    persons: Sequence[Person],
    predict: Callable[[list[Person]], dict[str, np.ndarray]],
    size: int,
) -> PoseBatch:
    """Calls ``predict`` on at most ``size`` persons at a time; ``module`` is left in the mode it was in.

    Args:
        predict: Persons → arrays by field name of :class:`PoseBatch`, one row per person.

    Raises:
        InputError: No persons.
    """
    if not len(persons):
        raise InputError("predict needs at least one person", where=f"estimator '{spec.name}'")
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            parts = [predict(list(chunk)) for chunk in batched(persons, size)]
    finally:
        module.train(was_training)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return PoseBatch(tuple(person.person_id for person in persons), spec.skeleton, **arrays)
