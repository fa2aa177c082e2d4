"""Cutting a small picture out of a large one without the false patterns of skipped pixels (aliasing)."""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy.special import ive

from posesyn.errors import InputError
from posesyn.geometry.cameras import apply_affine, invert_affine
from posesyn.interfaces import Antialias

# Square pixels of blur that are not worth a pass over the picture: a grey value changes by 1 % of its difference to the
# next pixels. Our own choice.
_LEAST_VARIANCE = 0.01


def warp(
    image: np.ndarray, affine: np.ndarray, size: tuple[int, int], antialias: Antialias | None = None
) -> np.ndarray:
    """The picture that a similarity cuts out of an image; bilinear, black outside the image.

    Bilinear sampling looks at four pixels. Where the crop is smaller than its region it passes over the others, and
    what the network sees changes with the place of the grid. The blur against that is done on the region alone, after
    halving it where it is much larger than the crop: two to four pixels per crop pixel are left (eight for the weaker
    blur). Blocks of pixels are counted from the corner of the image, so they do not move with the crop.

    Args:
        image: (H, W, 3) uint8.
        affine: (2, 3) map from its pixels to the crop's: rotation, one scale, shift, a reflection too.
        size: (height, width) of the crop.
        antialias: See :class:`posesyn.interfaces.EstimatorSpec`; nothing happens where the crop is not smaller than
            its region.

    Returns:
        (height, width, 3) uint8.

    Raises:
        InputError: ``affine`` has no inverse.
    """
    (a, b), (c, d) = np.asarray(affine, np.float64)[:, :2].tolist()
    determinant = a * d - b * c
    if not (math.isfinite(determinant) and determinant != 0):
        raise InputError("the crop has no size", where="resampling.warp", got=np.asarray(affine).tolist())
    shrink = 1 / math.sqrt(abs(determinant))
    variance = blur_variance(shrink, antialias)
    # Of an image that is smaller than one pixel of the crop nothing can be seen.
    if variance >= _LEAST_VARIANCE and shrink < max(image.shape[:2]):
        image, affine = _smoothed(image, affine, size, shrink, variance)
    return cv2.warpAffine(image, affine, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def blur_variance(shrink: float, antialias: Antialias | None) -> float:
    """Variance, in square pixels of the image, of the blur before bilinear sampling.

    Args:
        shrink: Pixels of the image per pixel of the crop.
        antialias: ``"average"``: a triangle of half width ``shrink``, the filter of Pillow's bilinear resize, has the
            variance ``shrink² / 6``, of which bilinear sampling itself brings 1/6. ``"gaussian"``:
            ``((shrink / 2 - 1) / 2)²`` from ``shrink / 2`` = 1.1 on (shubham-goel/4D-Humans, ViTDetDataset).
    """
    if antialias == "average":
        return max(shrink**2 - 1, 0.0) / 6
    if antialias == "gaussian":
        return ((shrink / 2 - 1) / 2) ** 2 if shrink / 2 > 1.1 else 0.0
    return 0.0


def _smoothed(
    image: np.ndarray, affine: np.ndarray, size: tuple[int, int], shrink: float, variance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The blurred, reduced part of the image that the crop shows, and the map from its pixels to the crop's."""
    # Halving with SIMD is three times as fast as OpenCV's mean over other blocks.
    halvings = max(0, math.floor(math.log2(min(shrink / 2, 2 * math.sqrt(variance)))))
    block = 2**halvings
    # A mean over blocks has the variance (b² - 1) / 12, and sampling between blocks b²/6 in place of 1/6.
    rest = (variance - (block**2 - 1) / 4) / block**2
    kernel = _kernel(rest)
    reach = len(kernel) // 2

    height, width = size
    ends = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [-0.5, height - 0.5], [width - 0.5, height - 0.5]])
    ends = apply_affine(invert_affine(affine), ends)
    sides = np.array(image.shape[1::-1])
    # Blocks first and last, with what the kernel and the sampling reach; beyond the image only as far as the blur.
    first = np.maximum(np.floor(ends.min(0) / block).astype(int) - reach - 1, -reach)
    last = np.minimum(np.ceil(ends.max(0) / block).astype(int) + reach + 1, -(-sides // block) + reach)
    low, high = np.clip(first * block, 0, sides), np.clip(last * block, 0, sides)
    if not (low < high).all():
        return image, affine

    part = image[low[1] : high[1], low[0] : high[0]]
    right, bottom = (int(side) for side in -(high - low) % block)
    if right or bottom:
        part = cv2.copyMakeBorder(part, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    for _ in range(halvings):
        part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    before = np.maximum(-first, 0)
    after = last - first - before - part.shape[1::-1]
    if before.any() or after.any():
        part = cv2.copyMakeBorder(part, before[1], after[1], before[0], after[0], cv2.BORDER_CONSTANT)
    part = cv2.sepFilter2D(part, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    linear = np.asarray(affine, np.float64)[:, :2]
    offset = linear @ (first * block + (block - 1) / 2) + np.asarray(affine, np.float64)[:, 2]
    return part, np.column_stack((linear * block, offset))


def _kernel(variance: float) -> np.ndarray:
    """Weights of the discrete Gaussian (Lindeberg, PAMI 1990), which has the variance asked for however small it is."""
    reach = math.ceil(3 * math.sqrt(variance)) + 1
    weights = ive(np.abs(np.arange(-reach, reach + 1)), variance)
    return weights / weights.sum()
