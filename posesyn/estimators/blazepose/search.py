"""Where a person with a box is looked at first: which detection is theirs, and when its answer is doubted.

The published graphs take detections from 0.5 on, because in a whole picture weaker ones are mostly nobody. Where a box
says that somebody is there, weaker ones are mostly that person: that, and a look at the box where the answer is
doubtful, is worth 3 points of PCKh on photographs of sports (docs/howto/blazepose.md). All constants are our own
choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posesyn.data.surroundings import SCALE
from posesyn.estimators.blazepose.regions import MIN_SCORE, Detection, Region

# Least probability of a detection inside a person's box.
LEAST = 0.1
# The box is looked at too where the detection was less sure than this, or where the box around the landmarks overlaps
# the person's by less (intersection over union).
_SURE, _FITS = 0.7, 0.5


def surroundings(box_xyxy: np.ndarray) -> np.ndarray:
    """(4,) the part of the picture in which the detector looks for the person of a box."""
    low, high = box_xyxy[:2], box_xyxy[2:]
    reach = (high - low) * (SCALE - 1) / 2
    return np.concatenate((low - reach, high + reach))


def first_region(box_xyxy: np.ndarray, found: Sequence[Detection]) -> tuple[Region, float]:
    """What to look at first, and the detector's probability.

    Args:
        box_xyxy: (4,) around the person's body, pixels.
        found: Detections in its surroundings, best first. Of those with their hips inside the box the one nearest to
            its middle is taken; the surest, where it is sure of none.

    Returns:
        The upright box and probability 1 where there is none: beside it there is no other to be looked at.
    """
    low, high = box_xyxy[:2], box_xyxy[2:]
    inside = [one for one in found if (one.points[0] > low).all() and (one.points[0] < high).all()]
    if not inside:
        return Region.of_box(box_xyxy), 1.0
    middle, known = (low + high) / 2, [one for one in inside if one.score >= MIN_SCORE] or inside[:1]
    taken = min(known, key=lambda one: float(np.linalg.norm(one.points[0] - middle)))
    return taken.region, taken.score


def is_doubtful(probability: float, fit: float) -> bool:
    """Whether the upright box is to be looked at too.

    Args:
        probability: The detector's.
        fit: Overlap of the box around the landmarks with the person's (:func:`.people.fits_box`).
    """
    return probability < _SURE or fit < _FITS
