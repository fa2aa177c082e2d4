"""Everybody in a picture: where the detector is asked, which of its answers are the same person, and which are none.

The detector takes a picture of 224 pixels and was made for one person who fills it: in a whole photograph it misses who
is small. So it also sees overlapping parts. Parts bring false answers (a hand, a lighthouse); the landmark network,
which says whether its crop shows a person, is asked about every answer. The limits are our own choice, tried on 62
pictures without people and 63 of sports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from posesyn.estimators.blazepose.detector import SIZE
from posesyn.estimators.blazepose.regions import Detection, Region

Detect = Callable[[np.ndarray, "np.ndarray | None"], list[Detection]]

# Least product of the three probabilities: detector, landmarks at the first look, landmarks at the second.
MIN_PERSON = 0.55
# Two regions whose middles are nearer than this share of a side, and whose sides differ by less than this factor, show
# the same person: only the surer one is looked at.
_NEAR, _ALIKE = 0.1, 1.4
# More answers than this, surest first, are not looked at; a network without sense may give thousands.
_MOST = 60
# Two boxes that overlap more than this (intersection over union) are one person.
_SAME = 0.5
# A box that lies in another one to this share is a part of that person, unless it is this sure; surer where it is small
# (less than this share of the other's side), as hands and gloves are.
_INSIDE, _SURE, _SMALL, _VERY_SURE = 0.8, 0.7, 0.5, 0.9
# Landmarks lie inside the body: the box around them grows by this share of its longer side, as tight boxes do.
_MARGIN = 0.1
# A part is shrunk to this many times the detector's input before it is sampled: fewer pixels would be skipped.
_OVERSAMPLED = 2


def parts(width: int, height: int, depth: int) -> list[list[np.ndarray]]:
    """Boxes (4,) xyxy that the detector looks at, level by level: the whole picture, then squares of half its longer
    side, then of a quarter and so on, each overlapping the next one by half."""
    levels = [[np.array([-0.5, -0.5, width - 0.5, height - 0.5])]]
    for level in range(1, depth + 1):
        side = max(width, height) / 2**level
        columns, rows = _starts(width, side), _starts(height, side)
        levels.append([np.array([x, y, x + side, y + side]) - 0.5 for y in rows for x in columns])
    return levels


def _starts(length: int, side: float) -> np.ndarray:
    """Where squares begin along one side of the picture; one in the middle where it is shorter than they are."""
    if side >= length:
        return np.array([(length - side) / 2])
    return np.linspace(0, length - side, 1 + int(np.ceil((length - side) / (side / 2) - 1e-6)))


def candidates(image: np.ndarray, detect: Detect, depth: int) -> list[tuple[float, Region]]:
    """Score and region of whatever the detector takes for a person, surest first, hardly any two the same.

    Args:
        image: (H, W, 3) uint8.
        detect: Looks at a part of a picture.
        depth: Levels of parts beside the whole picture.
    """
    height, width = image.shape[:2]
    found: list[tuple[float, Region]] = []
    for level, boxes in enumerate(parts(width, height, depth)):
        shrink = min(1.0, _OVERSAMPLED * SIZE * 2**level / max(width, height))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        small = image if shrink == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        # Pixel centres are integers, so that a picture begins at -0.5 in every size.
        factor = np.array([size[0] / width, size[1] / height])
        for box in boxes:
            seen = ((box.reshape(2, 2) + 0.5) * factor - 0.5).ravel()
            for one in detect(small, seen):
                points = (one.points[:2] + 0.5) / factor - 0.5
                found.append((one.score, Region.of_points(points[0], points[1])))
    found.sort(key=lambda one: -one[0])
    kept: list[tuple[float, Region]] = []
    for score, region in found:
        if len(kept) == _MOST:
            break
        if not any(_alike(region, other) for _, other in kept):
            kept.append((score, region))
    return kept


def _alike(one: Region, other: Region) -> bool:
    small, large = sorted((one.side, other.side))
    return bool(np.hypot(one.x - other.x, one.y - other.y) < _NEAR * small and large < _ALIKE * small)


def people(
    image: np.ndarray, landmarks: Sequence[np.ndarray], scores: np.ndarray, min_score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) float32 around whole persons, inside the picture, and scores (N,), from left to right.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (J, 2) pixels of each candidate.
        scores: (C,) product of the probabilities.
        min_score: Least score.
    """
    kept: list[tuple[float, np.ndarray]] = []
    for row in np.argsort(-scores, kind="stable"):
        box = _body_box(landmarks[row], image)
        if scores[row] < min_score or not (box[2:] - box[:2] > 1).all():
            continue
        if not any(_same_person(box, float(scores[row]), other) for _, other in kept):
            kept.append((float(scores[row]), box))
    kept.sort(key=lambda one: float(one[1][0] + one[1][2]))
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    return boxes, np.array([score for score, _ in kept], np.float32)


def _body_box(landmarks: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(4,) pixels around the body that has these landmarks, as far as it is in the picture; may be empty."""
    low, high = landmarks.min(0), landmarks.max(0)
    margin = _MARGIN * float((high - low).max())
    border = np.array(image.shape[1::-1]) - 0.5
    return np.concatenate((np.maximum(low - margin, -0.5), np.minimum(high + margin, border)))


def fits_box(landmarks: np.ndarray, box: np.ndarray, image: np.ndarray) -> float:
    """Intersection over union of a person's box and the box around landmarks (J, 2), both inside the picture."""
    border = np.array(image.shape[1::-1]) - 0.5
    inside = np.concatenate((np.maximum(box[:2], -0.5), np.minimum(box[2:], border)))
    return _overlap(_body_box(landmarks, image), inside)[0]


def _overlap(box: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """What two boxes share, divided by what they cover together, and by the smaller of them; 0 where one is empty."""
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    areas = [np.clip(one[2:] - one[:2], 0, None).prod() for one in (box, other)]
    if not min(areas) > 0:
        return 0.0, 0.0
    return float(shared / (sum(areas) - shared)), float(shared / min(areas))


def _same_person(box: np.ndarray, score: float, surer: np.ndarray) -> bool:
    """Whether a box shows the person, or a part of the person, of a surer one."""
    union, inside = _overlap(box, surer)
    if union > _SAME:
        return True
    small = (box[2:] - box[:2]).max() < _SMALL * (surer[2:] - surer[:2]).max()
    return bool(inside > _INSIDE and score < (_VERY_SURE if small else _SURE))
