"""How far several estimators differ on a person, for which no annotation is needed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from posesyn import metrics, skeletons
from posesyn.errors import InputError
from posesyn.types import PoseBatch

# The joints that nearly every estimator has.
_COMMON = "lsp14"
_LEAST = 4


def disagreement_mm(predictions: Sequence[PoseBatch]) -> np.ndarray:
    """(B,) mean distance in mm between the poses of each pair of estimators, after the best similarity of the pair.

    Size and orientation of the whole body are aligned away, since estimators assume different cameras. Our own measure.

    Args:
        predictions: At least two, for the same persons in the same order.

    Raises:
        InputError: One prediction, other persons, or fewer than four joints in common.
    """
    if len(predictions) < 2:
        raise InputError("disagreement needs at least two estimators", got=len(predictions))
    ids = predictions[0].person_ids
    if any(batch.person_ids != ids for batch in predictions):
        raise InputError("the estimators answered for different persons", where="disagreement_mm")
    pairs = [skeletons.convert(np.asarray(b.joints_cam, np.float64), b.skeleton, _COMMON) for b in predictions]
    common = np.logical_and.reduce([present for _, present in pairs])[0]
    if common.sum() < _LEAST:
        raise InputError(
            "the estimators have too few joints in common",
            expected=f"at least {_LEAST} of '{_COMMON}'",
            got=int(common.sum()),
        )
    poses = [points[:, common] for points, _ in pairs]
    # A similarity fits one pose onto the other; both directions make the measure symmetric.
    values = [metrics.pa_mpjpe(a, b, reduce="none") for x, y in combinations(poses, 2) for a, b in ((x, y), (y, x))]
    return np.mean(values, axis=0)
