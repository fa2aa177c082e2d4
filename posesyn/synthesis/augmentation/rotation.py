"""Rotation of points by an axis-angle, without building the matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Below this squared angle the series is exact to float32's last digits.
_SMALL = 1e-6


def rotate(points: Float[Tensor, "B J 3"], rotvec: Float[Tensor, "B 3"]) -> Float[Tensor, "B J 3"]:
    """Rodrigues' formula on points: x + a (v × x) + b (v × (v × x)), a = sin θ / θ, b = (1 - cos θ) / θ².

    Smooth at θ = 0, where a and b come from their series; twice differentiable there.
    """
    square = rotvec.square().sum(-1, keepdim=True)
    small = square < _SMALL
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    a = torch.where(small, 1 - square / 6, angle.sin() / angle)
    b = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / safe)
    axis = rotvec[:, None].expand_as(points)
    once = torch.linalg.cross(axis, points)
    return points + a[:, None] * once + b[:, None] * torch.linalg.cross(axis, once)
