"""Soft shadows on the floor: the body is spread over a map of the ground, once along the lamp's rays and once
straight down, where it darkens the floor that it touches."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from posesyn.synthesis.rendering.cameras import CameraPath

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
        vertices: (V, 3) rest pose and ``faces`` (F, 3): give every vertex its share of the skin's area.
        camera: The camera of the clip.
        floor: Height of the floor, metres.
        image_size: (height, width).
        lamp_direction: (3,) towards the lamp.
        strength: Share of light that the lamp's shadow takes away.
        visible: (H, W) bool, pixels where the floor may be seen; default: all below the horizon.
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
    ) -> None:
        corners = np.asarray(vertices)[faces]
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        share = np.zeros(len(vertices))
        np.add.at(share, np.asarray(faces), areas[:, None] / 3)
        self._weight = torch.from_numpy(share / _CELL**2).float()
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
        self._pixels = torch.from_numpy(np.flatnonzero(below))
        offsets = (rays[..., (0, 2)] * reach[..., None]).reshape(-1, 2)[below.reshape(-1)]
        self._offsets = torch.from_numpy((offsets.T / _CELL).astype(np.float32).copy())  # (2, P) cells
        self._eyes = torch.from_numpy(camera.position[:, (0, 2)].astype(np.float32))
        self._size = image_size

    def __call__(self, vertices_world: Float[torch.Tensor, "T V 3"], frames: slice) -> Float[torch.Tensor, "T H W"]:
        """Factor by which the picture of the floor darkens, 1 without shadow.

        Args:
            vertices_world: (T, V, 3) metres.
            frames: Which frames of the camera these are.
        """
        height = (vertices_world[..., 1] - self._floor).clamp_min(0)
        flat = vertices_world[..., (0, 2)]
        # The mean of the rounded coordinates of a few vertices would do; min and max do not depend on summation order.
        centre = (flat.amin(1) + flat.amax(1)) / 2
        slant = torch.tensor(self._slant, dtype=torch.float32)
        cast = self._spread(flat - slant * height[..., None], centre, self._weight.expand_as(height))
        touch = self._spread(flat, centre, self._weight * torch.exp(-height / _CONTACT_HEIGHT))
        # A closed skin covers every spot about twice.
        darkness = self._strength * (1 - torch.exp(-1.2 * cast))
        light = (1 - darkness) * (1 - _CONTACT * (1 - torch.exp(-0.8 * touch)))
        shift = (self._eyes[frames] - centre) / _CELL + (_CELLS - 1) / 2
        seen = _bilinear(light, self._offsets[0] + shift[:, :1], self._offsets[1] + shift[:, 1:])
        rows, columns = self._size
        out = torch.ones(len(light), rows * columns)
        out[:, self._pixels] = seen
        return out.view(-1, rows, columns)

    def _spread(self, position: torch.Tensor, centre: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(T, V, 2) floor positions with weights → (T, cells, cells) coverage, first axis z."""
        frames = len(position)
        cell = torch.round((position - centre[:, None]) / _CELL + (_CELLS - 1) / 2).long()
        inside = ((cell >= 2) & (cell < _CELLS - 2)).all(-1)
        cell = cell.clamp(0, _CELLS - 1)
        start = torch.arange(frames)[:, None] * _CELLS**2
        index = (start + cell[..., 1] * _CELLS + cell[..., 0]).reshape(-1)
        amount = (weight * inside * _UNIT).long().reshape(-1)
        total = torch.zeros(frames * _CELLS**2, dtype=torch.int64).index_add_(0, index, amount)
        image = (total.float() / _UNIT).view(frames, _CELLS, _CELLS)
        for axis in (1, 2):
            image = sum(weight * image.roll(step - 2, axis) for step, weight in enumerate(_BLUR))
        return image


def pixel_rays(camera: CameraPath, image_size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) world directions through the pixel centres, with camera depth 1."""
    height, width = image_size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    matrix = camera.intrinsics.astype(np.float64)
    rays = np.stack(
        [(x - matrix[0, 2]) / matrix[0, 0], (y - matrix[1, 2]) / matrix[1, 1], np.ones_like(x, np.float64)], -1
    )
    return rays @ camera.rotation.astype(np.float64)


def _bilinear(
    images: Float[torch.Tensor, "T N N"], x: Float[torch.Tensor, "T P"], y: Float[torch.Tensor, "T P"]
) -> Float[torch.Tensor, "T P"]:
    """Values at cell coordinates; 1 outside the map."""
    size = images.shape[1]
    out = torch.ones(x.shape)
    inside: Bool[torch.Tensor, "T P"] = (torch.minimum(x, y) >= 0) & (torch.maximum(x, y) <= size - 1)
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
