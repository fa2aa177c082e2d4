"""Camera frame → normalised image coordinates, differentiable (poseaug.md section 2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from posesyn.errors import InputError

CAMERA_SIZE = 9  # fx, fy, cx, cy, k1, k2, k3, p1, p2


def project_normalised(
    points_cam: Float[Tensor, "*batch J 3"], camera: Float[Tensor, "*batch 9"]
) -> Float[Tensor, "*batch J 2"]:
    """Pinhole with radial and tangential distortion, as the official code has it.

    Rays are clamped to ±1 (45 degrees), where the gradient is zero. The result is in units in which the image is 2 wide
    and 2 h/w high, the middle of the image at the origin if the principal point is there.

    Args:
        points_cam: Metres, z forward.
        camera: fx, fy, cx, cy, k1, k2, k3, p1, p2, all for those units (fx = 2 · focal in pixels / width).

    Raises:
        InputError: Wrong shapes.
    """
    if points_cam.shape[-1] != 3 or camera.shape[-1] != CAMERA_SIZE:
        raise InputError(
            "projection needs points (..., J, 3) and cameras (..., 9)",
            where="project_normalised",
            got=(tuple(points_cam.shape), tuple(camera.shape)),
        )
    camera = camera[..., None, :]
    focal, center, k, p = camera[..., :2], camera[..., 2:4], camera[..., 4:7], camera[..., 7:9]
    rays = (points_cam[..., :2] / points_cam[..., 2:]).clamp(-1, 1)
    square = rays.square().sum(-1, keepdim=True)
    radial = 1 + square * (k[..., :1] + square * (k[..., 1:2] + square * k[..., 2:]))
    tangential = (p * rays).sum(-1, keepdim=True)
    return focal * (rays * (radial + tangential) + p * square) + center
