"""Light: on the body, and the shadow that it throws on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from posesyn.settings.stages import check_style
from posesyn.synthesis.rendering.view import CameraPath, direction

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

    def __init__(self, faces: np.ndarray, vertices: int, device: str | torch.device = "cpu") -> None:
        faces = np.asarray(faces, np.int64)
        owner = faces.reshape(-1)
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=vertices)
        starts = np.cumsum(counts) - counts
        table = np.full((vertices, int(counts.max())), len(faces), np.int64)
        slot = np.arange(len(owner)) - starts[owner[order]]
        table[owner[order], slot] = order // 3
        self._faces, self._table = torch.from_numpy(faces).to(device), torch.from_numpy(table).to(device)

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


@dataclass(frozen=True, eq=False)
class Lighting:
    """Light of a scene, world frame."""

    lamp_direction: np.ndarray  #: (3,) unit vector towards the lamp (sun, ceiling lamp)
    lamp: np.ndarray  #: (3,) RGB strength of the lamp
    surround: np.ndarray  #: (9, 3) of (1, x, y, z, xx − yy, zz, xy, xz, yz) of the soft light's irradiance
    shadow: float  #: how much of the floor's light the lamp's shadow takes away, 0 to 1

    def irradiance(self, normals: Float[torch.Tensor, "N 3"]) -> Float[torch.Tensor, "N 3"]:
        """Light received by surfaces with the given unit normals; 1 shows a white surface as white."""
        x, y, z = (normals[:, i].contiguous() for i in range(3))
        terms = (x, y, z, x * x - y * y, z * z, x * y, x * z, y * z)
        towards = self.lamp_direction
        lamp = (x * float(towards[0]) + y * float(towards[1]) + z * float(towards[2])).clamp_min(0)
        out = normals.new_empty(len(normals), 3)
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
        (direction(0, np.pi / 2), 0.40 * tint * (2 - warm)),  # the sky is as cold as the sun is warm
        (direction(0, -np.pi / 2), 0.14 * tint),
        (direction(yaw, 0.3), np.full(3, 0.28)),
    ]
    if not lab:
        for _ in range(int(rng.integers(0, 3))):  # windows, screens, bright walls
            colour = 1 + rng.normal(0, 0.12, 3)
            soft.append(
                (direction(rng.uniform(-np.pi, np.pi), rng.uniform(-0.2, 0.9)), rng.uniform(0.05, 0.3) * colour)
            )
    surround = _surround(soft)
    lamp = strength * warm
    # What a white surface turned to lamp and camera receives on average, scaled to a well exposed picture.
    level = surround[0].mean() + 0.5 * strength
    gain = (0.75 if lab else rng.uniform(0.55, 0.95)) / level
    return Lighting(direction(side, height), lamp * gain, surround * gain, float(0.25 + 0.55 * min(strength, 0.9)))


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


# Own choices.
_CELLS = 72
_CELL = 0.05  # metres
_UNIT = 1e7  # areas are added as whole numbers: sums that do not depend on the order
_CONTACT_HEIGHT = 0.18  # metres over which contact darkness fades
_CONTACT = 0.55  # darkness of the floor below a touching foot
_MAX_SLANT = 1.5  # longest shadow per height
_BLUR = (0.06, 0.24, 0.4, 0.24, 0.06)


class GroundShadow:
    """Darkness of the floor seen by a camera.

    Args:
        vertices, faces: (V, 3) rest pose and (F, 3): give every vertex its share of the skin's area.
        camera: The camera of the clip.
        floor: Height of the floor, metres.
        image_size: (height, width).
        lamp_direction: (3,) towards the lamp.
        strength: Share of light that the lamp's shadow takes away.
        visible: (H, W) bool, pixels where the floor may be seen; default: all below the horizon.
        device: Where the vertices are.
    """

    def __init__(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        camera: CameraPath,
        floor: float,
        image_size: tuple[int, int],
        lamp_direction: np.ndarray,
        strength: float,
        visible: np.ndarray | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        corners = np.asarray(vertices)[faces]
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        share = np.zeros(len(vertices))
        np.add.at(share, np.asarray(faces), areas[:, None] / 3)
        self._weight = torch.from_numpy(share / _CELL**2).float().to(device)
        self._floor, self._strength = float(floor), float(strength)
        slant = lamp_direction[[0, 2]] / max(lamp_direction[1], 1e-3)
        length = np.linalg.norm(slant)
        self._slant = slant * min(1, _MAX_SLANT / max(length, 1e-9))
        rays = pixel_rays(camera, image_size)
        drop = float(camera.position[0, 1]) - self._floor  # the camera travels along the floor: constant
        below = rays[..., 1] < -1e-3
        if visible is not None:
            below &= visible
        reach = drop / np.where(below, -rays[..., 1], 1)
        self._pixels = torch.from_numpy(np.flatnonzero(below)).to(device)
        offsets = (rays[..., (0, 2)] * reach[..., None]).reshape(-1, 2)[below.reshape(-1)]
        self._offsets = torch.from_numpy((offsets.T / _CELL).astype(np.float32).copy()).to(device)  # (2, P) cells
        self._eyes = torch.from_numpy(camera.position[:, (0, 2)].astype(np.float32)).to(device)
        self._size = image_size

    def __call__(self, vertices_world: Float[torch.Tensor, "T V 3"], frames: slice) -> Float[torch.Tensor, "T H W"]:
        """Factor by which the picture of the floor darkens in some ``frames`` of the camera, 1 without shadow."""
        height = (vertices_world[..., 1] - self._floor).clamp_min(0)
        flat = vertices_world[..., (0, 2)]
        # The mean of the rounded coordinates of a few vertices would do; min and max do not depend on summation order.
        centre = (flat.amin(1) + flat.amax(1)) / 2
        slant = torch.tensor(self._slant, dtype=torch.float32, device=flat.device)
        cast = self._spread(flat - slant * height[..., None], centre, self._weight.expand_as(height))
        touch = self._spread(flat, centre, self._weight * torch.exp(-height / _CONTACT_HEIGHT))
        # A closed skin covers every spot about twice.
        darkness = self._strength * (1 - torch.exp(-1.2 * cast))
        light = (1 - darkness) * (1 - _CONTACT * (1 - torch.exp(-0.8 * touch)))
        shift = (self._eyes[frames] - centre) / _CELL + (_CELLS - 1) / 2
        seen = _bilinear(light, self._offsets[0] + shift[:, :1], self._offsets[1] + shift[:, 1:])
        rows, columns = self._size
        out = light.new_ones(len(light), rows * columns)
        out[:, self._pixels] = seen
        return out.view(-1, rows, columns)

    def _spread(self, position: torch.Tensor, centre: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(T, V, 2) floor positions with weights → (T, cells, cells) coverage, first axis z."""
        frames = len(position)
        cell = torch.round((position - centre[:, None]) / _CELL + (_CELLS - 1) / 2).long()
        inside = ((cell >= 2) & (cell < _CELLS - 2)).all(-1)
        cell = cell.clamp(0, _CELLS - 1)
        start = torch.arange(frames, device=position.device)[:, None] * _CELLS**2
        index = (start + cell[..., 1] * _CELLS + cell[..., 0]).reshape(-1)
        amount = (weight * inside * _UNIT).long().reshape(-1)
        total = amount.new_zeros(frames * _CELLS**2).index_add_(0, index, amount)
        image = (total.float() / _UNIT).view(frames, _CELLS, _CELLS)
        for axis in (1, 2):
            image = sum(weight * image.roll(step - 2, axis) for step, weight in enumerate(_BLUR))
        return image


def pixel_rays(camera: CameraPath, image_size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) world directions through the pixel centres, with camera depth 1."""
    height, width = image_size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    matrix = camera.intrinsics.astype(np.float64)
    x, y = (x - matrix[0, 2]) / matrix[0, 0], (y - matrix[1, 2]) / matrix[1, 1]
    return np.stack([x, y, np.ones_like(x)], -1) @ camera.rotation.astype(np.float64)


def _bilinear(images: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Values of (T, N, N) at cell coordinates (T, P); 1 outside the map."""
    size = images.shape[1]
    out = x.new_ones(x.shape)
    inside = (torch.minimum(x, y) >= 0) & (torch.maximum(x, y) <= size - 1)
    index = torch.nonzero(inside.view(-1))[:, 0]
    frame = torch.div(index, x.shape[1], rounding_mode="floor")
    x, y = x.reshape(-1)[index], y.reshape(-1)[index]
    column, row = x.floor().clamp_max(size - 2), y.floor().clamp_max(size - 2)
    right, down = x - column, y - row
    first = (frame * size + row.long()) * size + column.long()
    flat = images.reshape(-1)
    top = flat[first] * (1 - right) + flat[first + 1] * right
    bottom = flat[first + size] * (1 - right) + flat[first + size + 1] * right
    out.view(-1)[index] = top * (1 - down) + bottom * down
    return out
