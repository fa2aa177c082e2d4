"""Person boxes: x1 y1 x2 y2 in pixels of the full image."""

from __future__ import annotations

import numpy as np

from posesyn.errors import InputError


def xywh_to_xyxy(box_xywh: np.ndarray) -> np.ndarray:
    """COCO's corner, width, height (..., 4) → corners (..., 4) float32."""
    box = np.asarray(box_xywh, np.float32)
    return np.concatenate((box[..., :2], box[..., :2] + box[..., 2:]), axis=-1)


def box_around(keypoints_px: np.ndarray, visible: np.ndarray, margin: float = 0.1) -> np.ndarray:
    """(4,) float32 box around the visible joints, grown on each side by ``margin`` of the longer side.

    Joints lie inside the body, so the bare extent cuts off hands, feet and head; 0.1 is our own choice.

    Raises:
        InputError: No joint is visible.
    """
    points = np.asarray(keypoints_px, np.float32)[np.asarray(visible, bool)]
    if not len(points):
        raise InputError("no joint is visible, so there is no box around them")
    low, high = points.min(0), points.max(0)
    pad = max(float((high - low).max()) * margin, 1.0)
    return np.concatenate((low - pad, high + pad)).astype(np.float32)


def box_problem(box_xyxy: np.ndarray, size: tuple[int, int] | None = None) -> str | None:
    """What is wrong with a box, in words, or None.

    Args:
        box_xyxy: (4,) pixels.
        size: (width, height) of the image where known; a box without any overlap is a problem.
    """
    box = np.asarray(box_xyxy, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        return f"the box {np.asarray(box_xyxy).tolist()} is not four finite numbers"
    if not (box[2] > box[0] and box[3] > box[1]):
        return f"the box {_words(box)} is empty"
    if size is not None and (box[0] >= size[0] or box[1] >= size[1] or box[2] <= 0 or box[3] <= 0):
        return f"the box {_words(box)} is outside the image of {size[0]} x {size[1]}"
    return None


def _words(box: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box.round(1)) + ")"
