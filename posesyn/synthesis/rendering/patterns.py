"""Procedural patterns of cloth and smooth noise in three dimensions."""

from __future__ import annotations

import numpy as np

from posesyn.synthesis.rendering.appearance import Garment
from posesyn.synthesis.rendering.surface import SurfacePoints

_WAVES = 10  # own choice: enough plane waves that no direction stands out


def noise(position: np.ndarray, size: float, seed: int) -> np.ndarray:
    """Smooth random values over space: a sum of plane waves with random directions and phases.

    Args:
        position: (..., D) coordinates.
        size: Typical extent of a bump, in the units of ``position``.
        seed: Same seed, same field.

    Returns:
        (...,) float32 between 0 and 1, mean about 0.5.
    """
    rng = np.random.default_rng(seed)
    waves = rng.normal(0, 1, (_WAVES, position.shape[-1])) * (2 / size)
    phases = rng.uniform(0, 2 * np.pi, _WAVES)
    total = np.zeros(position.shape[:-1], np.float32)
    for wave, phase in zip(waves, phases):
        total += np.sin((position @ wave + phase).astype(np.float32))
    return np.clip(0.5 + total / (2.5 * np.sqrt(_WAVES)), 0, 1)


def pattern_share(points: SurfacePoints, garment: Garment, seed: int) -> np.ndarray:
    """(N,) share of the second colour, 0 to 1, of each surface sample."""
    scale, along, around = garment.scale, points.along, points.around
    position = points.position
    match garment.pattern:
        case "stripes":
            share = _wave(along, scale) > 0
        case "pinstripes":
            share = _wave(around, 0.4 * scale) > 0.75
        case "checks":
            across, down = _wave(around, scale) > 0, _wave(along, scale) > 0
            return (0.5 * across + 0.5 * down).astype(np.float32)
        case "dots":
            share = _wave(around, 0.8 * scale) * _wave(along, 0.8 * scale) > 0.45
        case "camouflage":
            share = noise(position, 1.2 * scale, seed + 2) > 0.55
        case "block":
            share = points.height > 0.55
        case "logo":
            radius = 0.5 + 8 * scale  # 0.8 to 1.5: a chest print, larger for coarse patterns
            print_ = ((position[:, 0] / 0.09) ** 2 + ((points.height - 0.72) / 0.16) ** 2) < radius**2
            share = print_ & (position[:, 2] > 0.02) & (noise(position, 0.04, seed + 3) > 0.45)
        case "raglan":
            share = points.arm > 0.35
        case _:
            share = np.zeros(len(points))
    return np.asarray(share, np.float32)


def _wave(coordinate: np.ndarray, period: float) -> np.ndarray:
    return np.sin(2 * np.pi / period * coordinate)
