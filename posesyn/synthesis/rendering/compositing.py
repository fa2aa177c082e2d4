"""Joins the drawn body and what lies behind it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float


def place_background(
    picture: np.ndarray,
    box: tuple[float, float, float, float] | None,
    keypoints: np.ndarray,
    image_size: tuple[int, int],
) -> np.ndarray:
    """Cuts a picture so that the place where a person stood comes behind the rendered person.

    Args:
        picture: (H, W, 3) uint8.
        box: Where the person stood, pixels of the picture, or None for the middle.
        keypoints: (T, J, 2) pixels of the rendered person.
        image_size: (height, width) of the result.

    Returns:
        (height, width, 3) uint8; the cut-out is shrunk and moved as needed to stay inside the picture.
    """
    height, width = image_size
    tall, wide = picture.shape[:2]
    low, high = keypoints.min((0, 1)), keypoints.max((0, 1))
    left, top, right, bottom = box if box is not None else (0.3 * wide, 0.1 * tall, 0.7 * wide, 0.95 * tall)
    scale = (bottom - top) / max(high[1] - low[1], 1.0)  # picture pixels per rendered pixel
    scale = float(np.clip(scale, 0.15, min(tall / height, wide / width)))
    # Feet on feet, middle on middle.
    x = (left + right) / 2 - (low[0] + high[0]) / 2 * scale
    y = bottom - high[1] * scale
    x, y = np.clip(x, 0, wide - width * scale), np.clip(y, 0, tall - height * scale)
    columns = max(1, min(int(width * scale), wide - int(x)))
    lines = max(1, min(int(height * scale), tall - int(y)))
    part = np.ascontiguousarray(picture[int(y) : int(y) + lines, int(x) : int(x) + columns])
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR)


def halved(layer: Float[torch.Tensor, "T H2 W2 4"]) -> Float[torch.Tensor, "T H W 4"]:
    """(T, 2H, 2W, 4) → (T, H, W, 4): mean of four samples."""
    return 0.25 * (layer[:, ::2, ::2] + layer[:, 1::2, ::2] + layer[:, ::2, 1::2] + layer[:, 1::2, 1::2])


def feathered(layer: Float[torch.Tensor, "T H W 4"]) -> Float[torch.Tensor, "T H W 4"]:
    """Softens the silhouette by one pixel; the inside stays sharp.

    Args:
        layer: (T, H, W, 4) colours and coverage, 0 outside. Changed in place.
    """
    width = layer.shape[2]
    padded = torch.nn.functional.pad(layer[..., 3].to(torch.uint8), (1, 1, 1, 1))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    count = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    rim = (count > 0) & (count < 9)
    rim[:, [0, -1]] = False
    rim[:, :, [0, -1]] = False
    index = torch.nonzero(rim.view(-1))[:, 0]
    flat = layer.view(-1, 4)
    soft = torch.zeros(len(index), 4)
    weights = (0.2, 0.6, 0.2)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            soft += weights[down + 1] * weights[right + 1] * flat[index + down * width + right]
    flat[index] = soft
    return layer
