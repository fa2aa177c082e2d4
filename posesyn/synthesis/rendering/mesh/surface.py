"""Dresses a body: the colour of every surface sample and how far cloth and hair stand off the skin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from posesyn.geometry.devices import device_of
from posesyn.interfaces import BodyModel
from posesyn.synthesis.rendering.appearance.appearance import Appearance, Garment

TARGET_SAMPLES = 120_000  # own choice: 5 mm between samples on the small body, and painted in about 20 ms

# SMPL joints (skeleton 'smpl24') whose skinning weights make up a part.
_PARTS = {
    "arm": (16, 17, 18, 19, 20, 21, 22, 23),
    "hand": (20, 21, 22, 23),
    "leg": (1, 2, 4, 5, 7, 8, 10, 11),
    "foot": (7, 8, 10, 11),
    "head": (15,),
    "neck": (12,),
}


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Where points lie on the human. All arrays have length N; parts are shares of the skinning weight, 0 to 1."""

    position: np.ndarray  #: (N, 3) metres, rest pose of the mean shape: x to the person's left, y up, z forward
    arm: np.ndarray
    hand: np.ndarray
    leg: np.ndarray
    foot: np.ndarray
    head: np.ndarray
    neck: np.ndarray
    arm_s: np.ndarray  #: 0 at the shoulder, 1 at the elbow, 2 at the wrist; negative towards the chest
    leg_s: np.ndarray  #: 0 at the hip, 1 at the knee, 2 at the ankle
    height: np.ndarray  #: 0 at the pelvis, 1 at the neck
    face_forward: np.ndarray  #: as face_side, in units of the distance from ears to eyes; 0 between the ears
    face_up: np.ndarray  #: 0 at the height of the eyes, 1 at the crown; the chin lies near -1
    face_side: np.ndarray
    eye_offset: np.ndarray  #: (N, 3) metres from the eye of the same side
    mouth_offset: np.ndarray  #: (N, 3) metres from the middle of the mouth
    sole: np.ndarray  #: metres above the lowest point of the body
    neck_joint: np.ndarray  #: (3,) metres, the SMPL joint 12; the same for all points

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def along(self) -> np.ndarray:
        """(N,) metres along the limb or down the torso: the direction in which horizontal stripes change."""
        return np.where(self.arm > 0.5, -0.27 * self.arm_s, self.position[:, 1]).astype(np.float32)

    @cached_property
    def around(self) -> np.ndarray:
        """(N,) metres around the limb or torso."""
        return np.where(self.arm > 0.5, self.position[:, 1], self.position[:, 0]).astype(np.float32)


class BodySurface:
    """Sampled skin of one body.

    Args:
        body: A SMPL-format body with ``faces``, ``weights`` (V, 24) and the 45 joints of smplx.
        device: Where :meth:`sample_index` is asked.

    Attributes:
        faces: (F, 3) int64.
        rest_joints, rest_vertices: (45, 3) and (V, 3) metres, mean shape.
        weights: (V, 24) skinning weights.
        points: The samples, face after face.
        vertex_points: The same for the vertices.
    """

    def __init__(self, body: BodyModel, device: str | torch.device = "cpu") -> None:
        self.faces = np.asarray(body.faces, np.int64)
        weights = torch.as_tensor(body.weights).detach().cpu().float().numpy()
        with torch.no_grad():
            place = device_of(body)
            rest = body(torch.eye(3, device=place).expand(1, 24, 3, 3), torch.zeros(1, 10, device=place))
        vertices = rest.vertices[0].cpu().float().numpy()
        joints = rest.joints[0].cpu().float().numpy()
        self.rest_joints, self.rest_vertices, self.weights = joints, vertices, weights
        self.steps = int(np.clip(np.sqrt(2 * TARGET_SAMPLES / len(self.faces)) - 1.5, 1, 12))
        lattice = [(i, j) for i in range(self.steps + 1) for j in range(self.steps + 1 - i)]
        self.samples_per_face = len(lattice)
        share = np.array([(i, j, self.steps - i - j) for i, j in lattice], np.float32) / self.steps
        # Rounded coordinates may leave the triangle by one step: they fall back along the diagonal.
        table = np.zeros((self.steps + 1, self.steps + 1), np.int64)
        for i in range(self.steps + 1):
            for j in range(self.steps + 1):
                excess = max(i + j - self.steps, 0)
                table[i, j] = lattice.index((i - (excess + 1) // 2, j - excess // 2))
        self._table = torch.from_numpy(table).to(device)
        skin, parts = (np.einsum("kc,fcx->fkx", share, values[self.faces]) for values in (vertices, weights))
        self.points = _locate(skin.reshape(-1, 3), parts.reshape(-1, 24), joints, vertices)
        self.vertex_points = _locate(vertices, weights, joints, vertices)

    def sample_index(self, face: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Faces (N,) and barycentric weights (N, 3) → rows (N,) of the nearest samples in :attr:`points`."""
        steps = torch.round(weights[:, :2] * self.steps).long()
        return face * self.samples_per_face + self._table[steps[:, 0], steps[:, 1]]


def _locate(position: np.ndarray, weights: np.ndarray, joints: np.ndarray, vertices: np.ndarray) -> SurfacePoints:
    left = position[:, 0] >= 0  # the person's left is +x in the rest pose of SMPL
    arm_s = np.where(left, _chain(position, joints[[16, 18, 20]]), _chain(position, joints[[17, 19, 21]]))
    leg_s = np.where(left, _chain(position, joints[[1, 4, 7]]), _chain(position, joints[[2, 5, 8]]))
    pelvis, neck = joints[0], joints[12]
    ears, eyes, nose = joints[[27, 28]].mean(0), joints[[25, 26]].mean(0), joints[24]
    unit = float(eyes[2] - ears[2])
    centre = np.array([0, eyes[1], ears[2]])
    crown = float(vertices[:, 1].max() - eyes[1])
    on_face = (position - centre) / (unit, crown, unit)
    # The mouth lies below the nose by about as much as the nose below the eyes.
    mouth = nose + (nose - eyes) * np.array([0, 0.8, 0])
    eye = np.where(left[:, None], joints[26], joints[25])
    return SurfacePoints(
        position=position.astype(np.float32),
        **{part: weights[:, members].sum(1) for part, members in _PARTS.items()},
        arm_s=arm_s,
        leg_s=leg_s,
        height=(position[:, 1] - pelvis[1]) / (neck[1] - pelvis[1]),
        face_forward=on_face[:, 2],
        face_up=on_face[:, 1],
        face_side=on_face[:, 0],
        eye_offset=position - eye,
        mouth_offset=position - mouth,
        sole=position[:, 1] - vertices[:, 1].min(),
        neck_joint=neck,
    )


def _chain(position: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Coordinate along a limb of two bones: 0, 1 and 2 at its joints."""
    start, middle, end = joints
    first, second = middle - start, end - middle
    upper = (position - start) @ first / (first @ first)
    lower = (position - middle) @ second / (second @ second)
    return np.clip(upper, -1, 1) + np.clip(lower, 0, 2)


_WAVES = 10  # own choice: enough plane waves that no direction stands out


def noise(position: np.ndarray, size: float, seed: int) -> np.ndarray:
    """Smooth random values over space: a sum of plane waves with random directions and phases, by the seed.

    Positions (..., D) with bumps of ``size``, in their units → (...,) float32 between 0 and 1, mean about 0.5.
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
    scale, along, around, position = garment.scale, points.along, points.around, points.position
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
    """(N, 3) float32 linear reflectance of surface samples, 0 to 1 (sRGB colours decoded with gamma 2.2)."""
    colour = np.empty((len(points), 3), np.float32)
    colour[:] = np.asarray(appearance.skin) * SKIN_TINT
    blush = 0.03 + 0.06 * noise(points.position, 0.09, appearance.fold_seed)
    colour += blush[:, None] * (np.float32([180, 75, 55]) - colour)
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
        colour[_hair(points, "short") & ~hair] = (56, 42, 32)
        # The peak: a darker rim above the forehead.
        colour[hair & (points.face_forward > 0.7) & (points.face_up < 0.55)] *= 0.6
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


def _cloth(points: SurfacePoints, covered: np.ndarray, garment: Garment, seed: int) -> np.ndarray:
    share = pattern_share(points, garment, seed)[covered, None]
    base, second = np.asarray(garment.colour, np.float32), np.asarray(garment.second, np.float32)
    colour = base + share * (second - base)
    # Creases run across limbs and torso: the noise is stretched around them.
    creases = noise(points.position[covered] * (0.6, 1.4, 0.6), 0.07, seed + 1)
    return colour * (1 - _FOLD_DEPTH * creases)[:, None]
