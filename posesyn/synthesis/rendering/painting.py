"""Dresses a body: the colour of every surface sample and how far cloth and hair stand off the skin."""

from __future__ import annotations

import numpy as np

from posesyn.synthesis.rendering.appearance import Appearance, Garment
from posesyn.synthesis.rendering.patterns import noise, pattern_share
from posesyn.synthesis.rendering.surface import SurfacePoints

# The skin scale's swatches are seen on a screen; lit skin is darker and redder than its lightest tones.
SKIN_TINT = np.array([0.9, 0.85, 0.82], np.float32)
# These and the following are our own choices, judged on rendered pictures.
_FOLD_DEPTH = 0.10  # how much creases darken cloth
_HAIR_VOLUME = {"bald": 0.0, "short": 0.010, "medium": 0.018, "long": 0.020, "cap": 0.016}
# Hairline: face_forward against the lowest face_up that is still hair.
_HAIRLINES = {
    "short": ((-2.0, -0.1, 0.25, 0.55, 0.8, 1.1, 2.0), (-0.7, -0.6, 0.1, 0.3, 0.55, 0.6, 0.6)),
    "medium": ((-2.0, 0.1, 0.35, 0.6, 0.8, 1.1, 2.0), (-1.1, -1.0, -0.45, 0.2, 0.5, 0.55, 0.55)),
    "long": ((-2.0, 0.2, 0.4, 0.6, 0.8, 1.1, 2.0), (-9.0, -3.0, -0.8, 0.15, 0.45, 0.55, 0.55)),
    "cap": ((-2.0, -0.3, 0.5, 0.8, 1.1, 2.0), (0.05, 0.05, 0.15, 0.3, 0.4, 0.35)),
}
_LONG_HAIR_END = 0.78  # on SurfacePoints.height: between the shoulder blades


def paint(points: SurfacePoints, appearance: Appearance) -> np.ndarray:
    """Colours of surface samples.

    Returns:
        (N, 3) float32 linear reflectance, 0 to 1 (sRGB colours decoded with gamma 2.2).
    """
    colour = np.empty((len(points), 3), np.float32)
    colour[:] = np.asarray(appearance.skin) * SKIN_TINT
    _blend(colour, 0.03 + 0.06 * noise(points.position, 0.09, appearance.fold_seed), (180, 75, 55))
    _paint_face(colour, points, appearance)
    layers = [(_bottom(points, appearance), appearance.bottom), (_top(points, appearance), appearance.top)]
    if appearance.socks is not None:
        colour[(points.leg_s > 1.75) & (points.leg > 0.5)] = appearance.socks
    if appearance.shoes is not None:
        shoe = _shoes(points)
        colour[shoe] = appearance.shoes
        colour[shoe & (points.sole < 0.018)] = appearance.sole
    for covered, garment in reversed(layers) if appearance.tucked else layers:
        colour[covered] = _cloth(points, covered, garment, appearance.fold_seed)
    hair = _hair(points, appearance.hair_style)
    strands = 1 - 0.25 * noise(points.position * (3, 1, 3), 0.02, appearance.fold_seed + 5)[hair]
    colour[hair] = np.asarray(appearance.hair, np.float32) * strands[:, None]
    if appearance.hair_style == "cap":
        _paint_hair_below_cap(colour, points, hair)
    return (np.clip(colour, 0, 255) / 255) ** 2.2


def thickness(points: SurfacePoints, appearance: Appearance) -> np.ndarray:
    """Distance in metres, (N,) float32, by which each vertex moves outwards for cloth, shoes and hair."""
    out = np.zeros(len(points), np.float32)
    out[_bottom(points, appearance)] = appearance.bottom.thickness
    top = _top(points, appearance)
    out[top] = np.maximum(out[top], appearance.top.thickness)
    if appearance.shoes is not None:
        shoes = _shoes(points)
        out[shoes] = np.maximum(out[shoes], 0.005)
    hair = _hair(points, appearance.hair_style)
    # Hair rises from the hairline to its full volume, so that it meets the skin without a step.
    rise = np.clip((points.face_up - 0.1) / 0.8, 0.3, 1)
    out[hair] = np.maximum(out[hair], (_HAIR_VOLUME[appearance.hair_style] * rise)[hair])
    return out


def _top(points: SurfacePoints, look: Appearance) -> np.ndarray:
    # Near the shoulder the cut follows the arm's own coordinate: skinning weights change in steps of the mesh.
    sleeve = (points.arm_s < look.sleeve) | ((points.arm < 0.5) & (points.height < 0.7))
    body = (points.height > look.hem) & (points.head < 0.5) & (points.hand < 0.7)
    return body & sleeve & ~_neck_opening(points, look.collar) & ((points.leg < 0.5) | (points.height > look.hem))


def _neck_opening(points: SurfacePoints, radius: float) -> np.ndarray:
    # A sphere around the root of the neck, moved forward so that the neckline dips at the throat.
    neck = points.neck_joint
    offset = points.position - (neck + np.array([0, 0.035, 0.03]))
    return (np.linalg.norm(offset * (1, 0.8, 1), axis=1) < radius) | (points.neck + points.head > 0.75)


def _bottom(points: SurfacePoints, look: Appearance) -> np.ndarray:
    waist = 0.22 if look.tucked else 0.15
    leg = np.where(points.leg > 0.5, points.leg_s < look.trouser, True)
    return (points.height < waist) & leg & (points.arm < 0.5)


def _shoes(points: SurfacePoints) -> np.ndarray:
    return (points.foot > 0.5) & (points.leg_s > 1.93)


def _hair(points: SurfacePoints, style: str) -> np.ndarray:
    if style == "bald":
        return np.zeros(len(points), bool)
    forward, up = _HAIRLINES[style]
    hair = (points.face_up > np.interp(points.face_forward, forward, up)) & (points.arm < 0.3)
    if style == "long":
        return hair & (points.height > _LONG_HAIR_END) & (np.abs(points.face_side) < 1.3)
    return hair & (points.head + points.neck > 0.5)


def _paint_face(colour: np.ndarray, points: SurfacePoints, look: Appearance) -> None:
    front = (points.head > 0.5) & (points.face_forward > 0.4)
    hair = np.asarray(look.hair if look.hair_style != "cap" else (60, 44, 34), np.float32)
    side, up = np.abs(points.eye_offset[:, 0]), points.eye_offset[:, 1]
    mouth_side, mouth_up = np.abs(points.mouth_offset[:, 0]), points.mouth_offset[:, 1]
    if look.beard:
        beard = front & (points.face_up < -0.55) & ~((mouth_side < 0.022) & (np.abs(mouth_up) < 0.007))
        colour[beard] += look.beard * (hair - colour[beard])
    lips = front & ((mouth_side / 0.025) ** 2 + (mouth_up / 0.009) ** 2 < 1)
    colour[lips] = colour[lips] * (0.80, 0.55, 0.55)
    socket = front & ((side / 0.021) ** 2 + (up / 0.014) ** 2 < 1)
    colour[socket] *= 0.75
    colour[front & ((side / 0.015) ** 2 + (up / 0.007) ** 2 < 1)] = (225, 220, 215)
    colour[front & ((side / 0.007) ** 2 + (up / 0.007) ** 2 < 1)] = (40, 30, 26)
    brow = front & (side < 0.022) & (np.abs(up - 0.022) < 0.0045)
    colour[brow] = 0.35 * colour[brow] + 0.65 * hair


def _paint_hair_below_cap(colour: np.ndarray, points: SurfacePoints, cap: np.ndarray) -> None:
    colour[_hair(points, "short") & ~cap] = (56, 42, 32)
    # The peak: a darker rim above the forehead.
    colour[cap & (points.face_forward > 0.7) & (points.face_up < 0.55)] *= 0.6


def _cloth(points: SurfacePoints, covered: np.ndarray, garment: Garment, seed: int) -> np.ndarray:
    share = pattern_share(points, garment, seed)[covered, None]
    base, second = np.asarray(garment.colour, np.float32), np.asarray(garment.second, np.float32)
    colour = base + share * (second - base)
    # Creases run across limbs and torso: the noise is stretched around them.
    creases = noise(points.position[covered] * (0.6, 1.4, 0.6), 0.07, seed + 1)
    return colour * (1 - _FOLD_DEPTH * creases)[:, None]


def _blend(colour: np.ndarray, share: np.ndarray, target: tuple[int, int, int]) -> None:
    colour += share[:, None] * (np.asarray(target, np.float32) - colour)
