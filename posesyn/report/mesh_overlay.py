"""A body's mesh drawn over the photograph it was estimated from."""

from __future__ import annotations

import numpy as np
import torch

from posesyn.errors import InputError
from posesyn.report.embedding import as_rgb
from posesyn.report.overlays import BODY, Color
from posesyn.synthesis.rendering.rasterizer import rasterize

# Light over the camera's left shoulder, and how much reaches surfaces that face away: our own choice.
_LIGHT = np.array([-0.35, -0.5, -0.8]) / np.linalg.norm([-0.35, -0.5, -0.8])
_AMBIENT = 0.35


def mesh_overlay(
    image: np.ndarray,
    vertices_cam: np.ndarray,
    faces: np.ndarray,
    intrinsics: np.ndarray,
    color: Color = BODY,
    opacity: float = 0.75,
) -> np.ndarray:
    """The image with the shaded mesh on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        vertices_cam: (V, 3) metres in the full image's camera.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        intrinsics: (3, 3) pixels.
        color: RGB of the body.
        opacity: 1 hides the photograph behind the body.

    Returns:
        A new (H, W, 3) uint8 image; parts of the body behind the camera or outside the image are cut off.

    Raises:
        InputError: Wrong shapes, values that are not finite, or an opacity outside [0, 1].
    """
    canvas = as_rgb(image, "mesh_overlay").astype(np.float32)
    vertices = np.asarray(vertices_cam, np.float32)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or np.shape(intrinsics) != (3, 3):
        raise InputError(
            "mesh_overlay needs (V, 3) vertices and (3, 3) intrinsics",
            got=f"{vertices.shape} and {np.shape(intrinsics)}",
        )
    if not 0 <= opacity <= 1:
        raise InputError("opacity must be in [0, 1]", where="mesh_overlay", got=opacity)
    camera = torch.as_tensor(np.asarray(intrinsics, np.float32))[None]
    found = rasterize(torch.from_numpy(vertices)[None], faces, camera, canvas.shape[:2])
    seen = found.mask[0].numpy()
    corners = vertices[np.asarray(faces, np.int64)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, 0, 1)
    shade = light[np.maximum(found.face_index[0].numpy(), 0)]
    body = shade[..., None] * np.asarray(color, np.float32)
    mixed = canvas * (1 - opacity) + body * opacity
    return np.where(seen[..., None], np.round(mixed), canvas).clip(0, 255).astype(np.uint8)
