"""The part of a picture that the landmark network sees: a square around the person, turned so that they stand up.

Sources: MediaPipe's pose graphs (google-ai-edge/mediapipe, mediapipe/modules/pose_detection and pose_landmark): the
rectangle from two points, factor 1.25; decoding of anchors, suppression at an overlap of 0.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from posesyn.estimators.blazepose.detector import SIZE as DETECTOR_SIZE
from posesyn.estimators.blazepose.landmarks import SIZE
from posesyn.geometry.cameras import apply_affine, crop_affine, invert_affine

GROWTH = 1.25
# Anchors below this probability are no persons; two whose boxes overlap more than this are the same one.
MIN_SCORE, SAME = 0.5, 0.3
# Our own choice: a region needs some size, whatever the network says about the points that span it.
_SMALLEST = 4.0


@dataclass(frozen=True)
class Region:
    """A square in the picture.

    Attributes:
        x, y: Its middle, pixels of the full image (integer pixel = pixel centre).
        side: Pixels.
        angle: Radians by which it is turned clockwise as seen; the person stands up in the crop.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    @classmethod
    def of_box(cls, box_xyxy: np.ndarray, growth: float = GROWTH) -> Region:
        """Upright around the middle of a box, ``growth`` times its longer side."""
        x0, y0, x1, y1 = (float(value) for value in box_xyxy)
        return cls((x0 + x1) / 2, (y0 + y1) / 2, growth * max(x1 - x0, y1 - y0))

    @classmethod
    def of_points(cls, middle: np.ndarray, rim: np.ndarray) -> Region:
        """Around the middle of the hips, through a point above the head that gives size and direction.

        Args:
            middle, rim: (2,) pixels of the full image.
        """
        x, y = (float(value) for value in rim - middle)
        side = max(2 * GROWTH * math.hypot(x, y), _SMALLEST)
        return cls(float(middle[0]), float(middle[1]), side, math.atan2(x, -y))

    @property
    def affine(self) -> np.ndarray:
        """(2, 3) full-image pixels → crop pixels, both with the integer pixel as the pixel's centre."""
        half = self.side / 2
        box = (self.x - half, self.y - half, self.x + half, self.y + half)
        return crop_affine(box, SIZE, scale=1.0, rotation=-self.angle)

    def crop(self, image: np.ndarray) -> np.ndarray:
        """(256, 256, 3) uint8; black outside the picture, as in all crops of posesyn."""
        return cv2.warpAffine(image, self.affine, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) crop pixels → full-image pixels, both with the integer pixel as the pixel's centre."""
        return apply_affine(invert_affine(self.affine), np.asarray(points, np.float64))

    def world_to_camera(self, joints: np.ndarray) -> np.ndarray:
        """Turns (..., 3) from the frame of the crop into that of the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.asarray(joints, np.float64) @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class Detection:
    """A person that the detector found.

    Attributes:
        score: Probability.
        box_xyxy: (4,) face and shoulders, not the body: pixels of the full image.
        points: (4, 2) pixels; 0 the middle of the hips, 1 on the circle around the person.
    """

    score: float
    box_xyxy: np.ndarray
    points: np.ndarray

    @property
    def region(self) -> Region:
        """What the landmark network is to see."""
        return Region.of_points(self.points[0], self.points[1])


def letterbox(image: np.ndarray, box_xyxy: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A part of a picture in the middle of a square of 224 pixels, black where there is no picture; and the affine map.

    Args:
        image: (H, W, 3) uint8.
        box_xyxy: What fills the square along its longer side; None shows the whole picture.
    """
    height, width = image.shape[:2]
    whole = np.array([-0.5, -0.5, width - 0.5, height - 0.5])
    affine = crop_affine(whole if box_xyxy is None else box_xyxy, DETECTOR_SIZE, scale=1.0)
    size = (DETECTOR_SIZE, DETECTOR_SIZE)
    square = cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return square, affine


def detections(
    scores: np.ndarray, boxes: np.ndarray, affine: np.ndarray, min_score: float = MIN_SCORE
) -> list[Detection]:
    """Persons out of the detector's answer for one picture, best first.

    Overlapping anchors are averaged by their probability, as MediaPipe does.

    Args:
        scores: (2254,) before the sigmoid.
        boxes: (2254, 6, 2) as :class:`posesyn.estimators.blazepose.detector.DetectorNetwork` gives them.
        affine: Full-image pixels → pixels of the square.
        min_score: Smallest probability.
    """
    chances = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -100, 100)))
    kept = np.flatnonzero(chances >= min_score)
    kept = kept[np.argsort(-chances[kept], kind="stable")]
    found = []
    while len(kept):
        same = _overlaps(boxes[kept[0]], boxes[kept]) > SAME
        same[0] = True
        weights = chances[kept[same]]
        mean = (boxes[kept[same]] * weights[:, None, None]).sum(0) / weights.sum()
        corners = np.stack((mean[0] - mean[1] / 2, mean[0] + mean[1] / 2))
        # The network's corner of the square is 0, an affine map's the centre of the first pixel.
        placed = apply_affine(invert_affine(affine), np.concatenate((corners, mean[2:])) - 0.5)
        found.append(Detection(float(chances[kept[0]]), placed[:2].ravel(), placed[2:]))
        kept = kept[~same]
    return found


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box and (N, 6, 2) others, given by middle and size."""
    low = np.maximum(box[0] - box[1] / 2, boxes[:, 0] - boxes[:, 1] / 2)
    high = np.minimum(box[0] + box[1] / 2, boxes[:, 0] + boxes[:, 1] / 2)
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / np.maximum(box[1].prod() + boxes[:, 1].prod(1) - shared, 1e-9)
