"""Light on a body: smooth normals, a lamp, and soft light from all around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from posesyn.synthesis.rendering.appearance import check_style

# Irradiance as a quadratic form of the normal: Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance
# Environment Maps", SIGGRAPH 2001, equation 13.
_C1, _C2, _C3, _C4, _C5 = 0.429043, 0.511664, 0.743125, 0.886227, 0.247708
# Real spherical harmonics of order 0, 1 and 2 (same paper, equation 3).
_Y = (0.282095, 0.488603, 1.092548, 0.315392, 0.546274)


class VertexNormals:
    """Area-weighted vertex normals of a mesh with fixed faces.

    The faces around each vertex are looked up in a table and added in a fixed order, so that the result does not
    depend on threads or batches.
    """

    def __init__(self, faces: np.ndarray, vertices: int) -> None:
        faces = np.asarray(faces, np.int64)
        owner = faces.reshape(-1)
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=vertices)
        starts = np.cumsum(counts) - counts
        table = np.full((vertices, int(counts.max())), len(faces), np.int64)
        slot = np.arange(len(owner)) - starts[owner[order]]
        table[owner[order], slot] = order // 3
        self._faces, self._table = torch.from_numpy(faces), torch.from_numpy(table)

    def __call__(self, vertices: Float[torch.Tensor, "B V 3"]) -> Float[torch.Tensor, "B V 3"]:
        """Unit normals that point outwards for faces counter-clockwise from outside."""
        x, y, z = (vertices[..., i].contiguous() for i in range(3))
        a, b, c = self._faces.T
        ax, ay, az = x[:, a], y[:, a], z[:, a]
        ux, uy, uz = x[:, b] - ax, y[:, b] - ay, z[:, b] - az
        vx, vy, vz = x[:, c] - ax, y[:, c] - ay, z[:, c] - az
        face_normals = (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
        sums = []
        for normal in face_normals:
            padded = torch.nn.functional.pad(normal, (0, 1))  # the row behind the last face fills the table
            total = padded[:, self._table[:, 0]]
            for column in range(1, self._table.shape[1]):
                total += padded[:, self._table[:, column]]
            sums.append(total)
        length = torch.sqrt(sums[0] ** 2 + sums[1] ** 2 + sums[2] ** 2).clamp_min(1e-12)
        return torch.stack([total / length for total in sums], -1)


@dataclass(frozen=True)
class Lighting:
    """Light of a scene, world frame.

    Attributes:
        lamp_direction: (3,) unit vector towards the lamp (sun, ceiling lamp).
        lamp: (3,) RGB strength of the lamp.
        surround: (9, 3) coefficients of (1, x, y, z, xx − yy, zz, xy, xz, yz) of the soft light's irradiance.
        shadow: How much of the floor's light the lamp's shadow takes away, 0 to 1.
    """

    lamp_direction: np.ndarray
    lamp: np.ndarray
    surround: np.ndarray
    shadow: float

    def irradiance(self, normals: Float[torch.Tensor, "N 3"]) -> Float[torch.Tensor, "N 3"]:
        """Light received by surfaces with the given unit normals; 1 shows a white surface as white."""
        x, y, z = (normals[:, i].contiguous() for i in range(3))
        terms = (x, y, z, x * x - y * y, z * z, x * y, x * z, y * z)
        towards = self.lamp_direction
        lamp = (x * float(towards[0]) + y * float(towards[1]) + z * float(towards[2])).clamp_min(0)
        out = torch.empty(len(normals), 3)
        for channel in range(3):
            soft = torch.full_like(x, float(self.surround[0, channel]))
            for term, weight in zip(terms, self.surround[1:, channel]):
                soft += term * float(weight)
            out[:, channel] = soft.clamp_min(0.02) + lamp * float(self.lamp[channel])
        return out


def sample_lighting(
    rng: np.random.Generator, style: str = "wild", yaw: float = 0.0, tint: np.ndarray | None = None
) -> Lighting:
    """Draws the light of a scene.

    Args:
        rng: Source of randomness.
        style: ``"lab"`` is even light from above, ``"wild"`` anything from overcast to low sun.
        yaw: Where the camera stands (see ``CameraPath``); a part of the soft light comes from there, so that the seen
            side is never black.
        tint: (3,) RGB around 1 that the soft light takes over, e.g. the mean colour of the background photo.
    """
    check_style(style)
    lab = style == "lab"
    tint = np.ones(3) if tint is None else np.asarray(tint, float)
    height = np.deg2rad(rng.uniform(55, 75) if lab else rng.uniform(25, 80))
    side = yaw + np.deg2rad(rng.uniform(-50, 50) if lab else rng.uniform(-130, 130))
    strength = rng.uniform(0.35, 0.5) if lab else rng.uniform(0.1, 0.95)
    warmth = 0.0 if lab else rng.normal(0, 0.06)
    warm = np.array([1 + warmth, 1.0, 1 - warmth])
    soft = [
        (_towards(0, np.pi / 2), 0.40 * tint * (2 - warm)),  # the sky is as cold as the sun is warm
        (_towards(0, -np.pi / 2), 0.14 * tint),
        (_towards(yaw, 0.3), np.full(3, 0.28)),
    ]
    if not lab:
        for _ in range(int(rng.integers(0, 3))):  # windows, screens, bright walls
            colour = 1 + rng.normal(0, 0.12, 3)
            soft.append((_towards(rng.uniform(-np.pi, np.pi), rng.uniform(-0.2, 0.9)), rng.uniform(0.05, 0.3) * colour))
    surround = _surround(soft)
    lamp = strength * warm
    # What a white surface turned to lamp and camera receives on average, scaled to a well exposed picture.
    level = surround[0].mean() + 0.5 * strength
    gain = (0.75 if lab else rng.uniform(0.55, 0.95)) / level
    return Lighting(_towards(side, height), lamp * gain, surround * gain, float(0.25 + 0.55 * min(strength, 0.9)))


def _towards(yaw: float, elevation: float) -> np.ndarray:
    return np.array([np.sin(yaw) * np.cos(elevation), np.sin(elevation), np.cos(yaw) * np.cos(elevation)])


def _surround(lights: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(9, 3) irradiance coefficients of soft lights (direction, RGB), each spread over the harmonics up to order 2."""
    total = np.zeros((9, 3))
    for (x, y, z), colour in lights:
        harmonics = [_Y[0], _Y[1] * y, _Y[1] * z, _Y[1] * x]  # 00, 1-1, 10, 11
        harmonics += [_Y[2] * x * y, _Y[2] * y * z, _Y[3] * (3 * z * z - 1), _Y[2] * x * z, _Y[4] * (x * x - y * y)]
        l00, l1m1, l10, l11, l2m2, l2m1, l20, l21, l22 = harmonics
        rows = [_C4 * l00 - _C5 * l20, 2 * _C2 * l11, 2 * _C2 * l1m1, 2 * _C2 * l10]
        rows += [_C1 * l22, _C3 * l20, 2 * _C1 * l2m2, 2 * _C1 * l21, 2 * _C1 * l2m1]
        total += np.array(rows)[:, None] * colour
    return total
