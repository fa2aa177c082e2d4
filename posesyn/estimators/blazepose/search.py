"""Where a person with a box is looked at first: which detection is theirs, and when the box answers in its place.

The published graphs take detections from 0.5 on, because in a whole picture weaker ones are mostly nobody. Where a box
says that somebody is there, weaker ones may be that person; where the detector is sure it may be of somebody else.
There the box is looked at too, and the two answers are compared (docs/howto/blazepose.md has the figures). All
constants are our own choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posesyn.data.surroundings import SCALE
from posesyn.estimators.blazepose.regions import MIN_SCORE, Detection, Region

# Least probability of a detection inside a person's box, where no sure one is.
LEAST = 0.1
# The box is looked at too where the detection was less sure than this, or where the box around the landmarks overlaps
# the person's by less (intersection over union).
_SURE, _FITS = 0.7, 0.5
# An answer that overlaps the box by less is of somebody else, who may well be seen better.
_ELSEWHERE = 0.3


def searched_part(box_xyxy: np.ndarray) -> np.ndarray:
    """(4,) the part of the picture in which the detector looks for the person of a box."""
    low, high = box_xyxy[:2], box_xyxy[2:]
    reach = (high - low) * (SCALE - 1) / 2
    return np.concatenate((low - reach, high + reach))


def first_region(box_xyxy: np.ndarray, found: Sequence[Detection]) -> tuple[Region, float] | None:
    """What to look at first, and the detector's probability; None where no detection has its hips inside the box.

    Args:
        box_xyxy: (4,) around the person's body, pixels.
        found: Detections in its surroundings, best first. The sure one nearest to the middle of the box is taken, the
            surest where none is sure.
    """
    low, high = box_xyxy[:2], box_xyxy[2:]
    inside = [one for one in found if (one.points[0] > low).all() and (one.points[0] < high).all()]
    if not inside:
        return None
    middle, sure = (low + high) / 2, [one for one in inside if one.score >= MIN_SCORE]
    taken = min(sure or inside[:1], key=lambda one: float(np.linalg.norm(one.points[0] - middle)))
    return taken.region, taken.score


def is_doubtful(score: float, fit: float) -> bool:
    """Whether the upright box is to be looked at too.

    Args:
        score: The detector's probability.
        fit: Overlap of the box around the landmarks with the person's (:func:`.people.fits_box`).
    """
    return score < _SURE or fit < _FITS


def box_answers(score: float, detected: tuple[float, float], boxed: tuple[float, float]) -> bool:
    """Whether what was seen in the upright box is taken, not what was seen where the detector pointed.

    A sure detection has to be beaten in both measures, in overlap alone where it is of somebody else; one that is not
    sure has to beat the box in both.

    Args:
        score: The detector's probability.
        detected, boxed: Overlap with the person's box and probability of a person, of the two answers.
    """
    if score < MIN_SCORE:
        return not (detected[0] > boxed[0] and detected[1] > boxed[1])
    return boxed[0] > detected[0] and (boxed[1] > detected[1] or detected[0] < _ELSEWHERE)
