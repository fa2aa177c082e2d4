"""Cutting triangles at the near plane, so that what lies behind the camera cannot fold into the image."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int


def clip_near(
    corners: Float[torch.Tensor, "N 3 3"], near: float
) -> tuple[Float[torch.Tensor, "M 3 3"], Int[torch.Tensor, " M"]]:
    """Keeps the parts of triangles with z ≥ ``near`` (Sutherland and Hodgman, CACM 1974, for one plane).

    Args:
        corners: (N, 3, 3) three corners of each triangle, camera frame, metres.
        near: Depth of the plane in metres.

    Returns:
        Triangles (M, 3, 3) with the orientation of their sources, and the index (M,) of the source of each.
    """
    front = corners[..., 2] >= near
    count = front.sum(1)
    index = torch.arange(len(corners), device=corners.device)
    whole = count == 3
    parts, sources = [corners[whole]], [index[whole]]
    # One corner in front: turn it to the first place, and cut both edges that leave it.
    one = count == 1
    if bool(one.any()):
        a, b, c = _turned(corners[one], front[one].long().argmax(1))
        parts.append(torch.stack([a, _cut(a, b, near), _cut(a, c, near)], 1))
        sources.append(index[one])
    # Two corners in front: turn the hidden one to the first place; a quadrilateral remains.
    two = count == 2
    if bool(two.any()):
        a, b, c = _turned(corners[two], (~front[two]).long().argmax(1))
        ab, ac = _cut(b, a, near), _cut(c, a, near)
        parts += [torch.stack([ab, b, c], 1), torch.stack([ab, c, ac], 1)]
        sources += [index[two], index[two]]
    return torch.cat(parts), torch.cat(sources)


def _turned(corners: torch.Tensor, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.arange(len(corners), device=corners.device)
    return corners[rows, first], corners[rows, (first + 1) % 3], corners[rows, (first + 2) % 3]


def _cut(inner: torch.Tensor, outer: torch.Tensor, near: float) -> torch.Tensor:
    """The point at z = near between a corner in front of it and one behind it."""
    share = (inner[:, 2:] - near) / (inner[:, 2:] - outer[:, 2:])
    point = inner + share * (outer - inner)
    point[:, 2] = near
    return point
