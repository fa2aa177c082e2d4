"""Pictures for the tests of detectors, made by formulas so that every machine gets the same bytes."""

from __future__ import annotations

import numpy as np

# Centre (x, y) and half axes of the parts of a standing figure, in sides of the picture, and their colour.
_PARTS = (
    ((0.50, 0.20), (0.05, 0.07), (205, 160, 130)),
    ((0.50, 0.41), (0.09, 0.16), (40, 70, 160)),
    ((0.39, 0.40), (0.03, 0.15), (205, 160, 130)),
    ((0.61, 0.40), (0.03, 0.15), (205, 160, 130)),
    ((0.46, 0.70), (0.04, 0.20), (50, 50, 60)),
    ((0.54, 0.70), (0.04, 0.20), (50, 50, 60)),
    ((0.48, 0.19), (0.008, 0.008), (20, 20, 20)),
    ((0.52, 0.19), (0.008, 0.008), (20, 20, 20)),
)


def figure(side: int, background: bool = True) -> np.ndarray:
    """(side, side, 3) uint8: a figure of ellipses on waves of colour, or on white."""
    y, x = (np.arange(side) + 0.5)[:, None] / side, (np.arange(side) + 0.5)[None] / side
    waves = np.stack([127 + 60 * np.sin((3 + c) * x + (5 - c) * y + c) for c in range(3)], axis=-1)
    picture = waves if background else np.full((side, side, 3), 235.0)
    for (cx, cy), (rx, ry), colour in _PARTS:
        picture[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1] = colour
    return np.round(picture).astype(np.uint8)


def stripes(side: int) -> np.ndarray:
    """(side, side, 3) uint8: fine waves, nobody there."""
    y, x = np.arange(side)[:, None], np.arange(side)[None]
    return np.stack([np.round(127 + 120 * np.sin(x * y / 97.0 + x * (c + 1) / 5.0)) for c in range(3)], -1).astype(
        np.uint8
    )


def vector_pictures(side: int) -> np.ndarray:
    """(4, side, side, 3): those for which the original network's answers are stored."""
    upright = figure(side)
    return np.stack((upright, figure(side, background=False), upright[::-1], stripes(side)))
