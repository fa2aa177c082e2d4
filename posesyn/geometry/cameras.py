"""Pinhole cameras (OpenCV: x right, y down, z forward), person crops and the cameras of the published estimators.

Pixels: the integer pixel is the pixel's centre, so an image of width W covers -0.5 … W - 0.5 and its middle is
(W - 1) / 2. Published code puts the middle at W / 2; pass ``principal_point`` to reproduce that to the last half pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posesyn.errors import InputError

# Depths nearer than this are pushed out to it before dividing; our own choice (a tenth of a millimetre).
_MIN_DEPTH = 1e-4
# Keeps a zero scale finite, as SPIN and HMR2 do (nkolot/SPIN, shubham-goel/4D-Humans).
_SCALE_EPS = 1e-9


def project(points_cam: Float[Tensor, "... J 3"], intrinsics: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... J 2"]:
    """Pinhole projection to pixels.

    Points at or behind the camera have no image: they give finite, meaningless pixels; test ``points_cam[..., 2] > 0``.
    Intrinsics are upper triangular, skew allowed; batch dimensions broadcast.

    Raises:
        InputError: Wrong shapes.
    """
    if points_cam.ndim < 2 or points_cam.shape[-1] != 3 or tuple(intrinsics.shape[-2:]) != (3, 3):
        got = f"{tuple(points_cam.shape)} and {tuple(intrinsics.shape)}"
        raise InputError("points_cam must be (..., J, 3) and intrinsics (..., 3, 3)", where="cameras.project", got=got)
    depth = points_cam[..., 2:]
    depth = torch.where(depth.abs() < _MIN_DEPTH, torch.full_like(depth, _MIN_DEPTH), depth)
    rays = torch.cat((points_cam[..., :2] / depth, torch.ones_like(depth)), dim=-1)
    return rays @ intrinsics[..., :2, :].transpose(-1, -2)


def intrinsics(focal: float | Tensor, width: float | Tensor, height: float | Tensor) -> Float[Tensor, "... 3 3"]:
    """Square-pixel intrinsics with the principal point in the middle of the image, ((W - 1) / 2, (H - 1) / 2).

    Focal length and size in pixels: numbers, or tensors that broadcast with each other.
    """
    tensors = [torch.as_tensor(value) for value in (focal, width, height)]
    dtype = next((t.dtype for t in tensors if t.dtype == torch.float64 and t.ndim), torch.float32)
    device = next((t.device for t in tensors if t.device.type != "cpu"), tensors[0].device)
    f, w, h = torch.broadcast_tensors(*(t.to(device=device, dtype=dtype) for t in tensors))
    zero, one = torch.zeros_like(f), torch.ones_like(f)
    rows = (f, zero, (w - 1) / 2, zero, f, (h - 1) / 2, zero, zero, one)
    return torch.stack(rows, dim=-1).reshape(*f.shape, 3, 3)


def full_image_focal(crop_focal: float, crop_size: float, width: float, height: float) -> float:
    """HMR2's focal length for the full image, f / crop size · max(W, H) (shubham-goel/4D-Humans)."""
    return crop_focal / crop_size * max(width, height)


def padded_box(
    box_xyxy: np.ndarray | Sequence[float], input_size: int | tuple[int, int], scale: float = 1.2, aspect: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """The region of the full image that a network sees of a person.

    The box is padded around its middle to ``aspect``, then to the aspect of the network input, then grown by ``scale``.
    HMR2, for example, pads to 192:256 and then to a square (shubham-goel/4D-Humans).

    Args:
        box_xyxy: (4,) pixels.
        input_size: Side, or (height, width), of the network input.
        scale: Growth factor; 1.2 is SPIN's (nkolot/SPIN, datasets/preprocess).
        aspect: width / height.

    Returns:
        Middle (2,) and size (2,) as (width, height), float64 pixels.

    Raises:
        InputError: Not four finite numbers, an empty or inverted box, or sizes that are not positive.
    """
    box = np.asarray(box_xyxy, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise InputError("box_xyxy must be four finite numbers", where="cameras.padded_box", got=box_xyxy)
    height_in, width_in = _input_size(input_size)
    size = box[2:] - box[:2]
    if not (size > 0).all():
        wanted = "x1 > x0 and y1 > y0"
        raise InputError("the box is empty", where="cameras.padded_box", expected=wanted, got=box.tolist())
    if not (scale > 0 and aspect > 0):
        raise InputError("scale and aspect must be positive", where="cameras.padded_box", got=(scale, aspect))
    for ratio in (aspect, width_in / height_in):
        size = np.array([max(size[0], size[1] * ratio), max(size[1], size[0] / ratio)])
    return (box[:2] + box[2:]) / 2, size * scale


def _input_size(input_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (input_size, input_size) if isinstance(input_size, int | float | np.number) else input_size
    if not (height > 0 and width > 0):
        raise InputError("input_size must be positive", expected="a side or (height, width)", got=input_size)
    return height, width


def crop_affine(
    box_xyxy: np.ndarray | Sequence[float],
    input_size: int | tuple[int, int],
    scale: float = 1.2,
    aspect: float = 1.0,
    rotation: float = 0.0,
) -> np.ndarray:
    """The affine map from full-image pixels to crop pixels, both with the integer pixel as the pixel's centre.

    The middle of the box lands on ((W - 1) / 2, (H - 1) / 2) of the crop; a crop of the whole image at its own size is
    the identity if the box is (-0.5, -0.5, W - 0.5, H - 0.5). No truncation to integers (SPIN's crop has it and loses
    up to a pixel: nkolot/SPIN, utils/imutils.py).

    Args:
        box_xyxy, input_size, scale, aspect: As in :func:`padded_box`.
        rotation: Radians by which the picture turns clockwise as seen (x towards y); see :func:`in_plane_rotation`.

    Returns:
        (2, 3) float64.
    """
    middle, size = padded_box(box_xyxy, input_size, scale, aspect)
    height_in, width_in = _input_size(input_size)
    zoom = width_in / size[0]
    cos, sin = zoom * math.cos(rotation), zoom * math.sin(rotation)
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = np.array([(width_in - 1) / 2, (height_in - 1) / 2]) - linear @ middle
    return np.concatenate((linear, offset[:, None]), axis=1)


def apply_affine(affine: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Points (..., 2) through a (2, 3) map; float64 inside, result in the points' floating dtype."""
    affine, points = np.asarray(affine, np.float64), np.asarray(points_px)
    if affine.shape != (2, 3) or points.shape[-1:] != (2,):
        raise InputError("affine must be (2, 3) and points (..., 2)", got=f"{affine.shape} and {points.shape}")
    dtype = points.dtype if np.issubdtype(points.dtype, np.floating) else np.float64
    moved: np.ndarray = (points @ affine[:, :2].T + affine[:, 2]).astype(dtype)
    return moved


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """The (2, 3) map that undoes a (2, 3) map."""
    affine = np.asarray(affine, np.float64)
    linear = np.linalg.inv(affine[:, :2])
    return np.concatenate((linear, -linear @ affine[:, 2:]), axis=1)


def crop_intrinsics(intrinsics: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Intrinsics (3, 3) of the crop that ``affine`` cuts out of an image with the given intrinsics.

    With a rotated crop the result has skew; turn the scene by :func:`in_plane_rotation` if a plain one is needed.
    """
    return np.concatenate((np.asarray(affine, np.float64), [[0.0, 0.0, 1.0]])) @ np.asarray(intrinsics, np.float64)


def weak_perspective_to_translation(
    cam: Float[Tensor, "*batch 3"], focal: float | Tensor, size: float | Tensor
) -> Float[Tensor, "*batch 3"]:
    """(s, tx, ty) → translation in the camera of the crop: (tx, ty, 2 f / (size · s + 1e-9)).

    Metres, and pixels of the crop, whose side is ``size``. SPIN uses f 5000 and size 224, HMR2 5000 and 256, HybrIK
    (depth only) 1000 and 256.
    """
    _check_cam(cam)
    depth = 2 * focal / (size * cam[..., 0] + _SCALE_EPS)
    return torch.stack((cam[..., 1], cam[..., 2], depth), dim=-1)


def crop_to_full_translation(
    cam: Float[Tensor, "... 3"],
    box_center: Float[Tensor, "... 2"],
    box_size: Float[Tensor, ...] | float,
    image_size: Float[Tensor, "... 2"],
    focal: Float[Tensor, ...] | float,
    *,
    principal_point: Float[Tensor, "... 2"] | None = None,
    offset: bool = True,
) -> Float[Tensor, "... 3"]:
    """(s, tx, ty) of a crop → translation in the camera of the full image (CLIFF, arXiv 2208.00571; HMR2).

    ``bs = b s + 1e-9; tz = 2 f / bs; tx = 2 (cx - px) / bs + cam1``, ty likewise.

    Args:
        cam: (s, tx, ty).
        box_center: Middle of the crop in full-image pixels.
        box_size: Side of the (square) crop in full-image pixels.
        image_size: (W, H).
        focal: Focal length of the full image in pixels.
        principal_point: Pixels; default the middle of the image, ((W - 1) / 2, (H - 1) / 2). The official code has
            (W / 2, H / 2).
        offset: False leaves the offset of the box out: the translation in a camera whose principal point is the middle
            of the box (SPIN, 3DCrowdNet).
    """
    _check_cam(cam)
    box_size, focal = (torch.as_tensor(value).to(cam) for value in (box_size, focal))
    scaled = box_size * cam[..., 0] + _SCALE_EPS
    xy = cam[..., 1:]
    if offset:
        point = (image_size.to(cam) - 1) / 2 if principal_point is None else principal_point.to(cam)
        xy = xy + 2 * (box_center.to(cam) - point) / scaled[..., None]
    depth = (2 * focal / scaled)[..., None]
    return torch.cat((xy, depth.expand(*xy.shape[:-1], 1)), dim=-1)


def _check_cam(cam: Tensor) -> None:
    if cam.shape[-1:] != (3,):
        raise InputError("a camera must be (..., 3)", got=tuple(cam.shape))


def look_at(
    eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "... 3"], up: Float[Tensor, "... 3"] | None = None
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """World → camera transform of a camera at ``eye`` looking at ``target``: ``points_cam = points_world @ R.T + t``.

    Args:
        eye, target: World positions, metres.
        up: World direction that points up in the image; default +y. Where it is the viewing direction, another
            one is taken.

    Raises:
        InputError: ``eye`` and ``target`` coincide.
    """
    up = eye.new_tensor([0.0, 1.0, 0.0]) if up is None else up
    eye, target, up = torch.broadcast_tensors(eye, target, up)
    forward = target - eye
    distance = forward.norm(dim=-1, keepdim=True)
    if (distance < 1e-9).any():
        raise InputError("a camera cannot look at its own position", where="cameras.look_at")
    forward = forward / distance
    right = torch.linalg.cross(forward, up, dim=-1)
    spare = torch.eye(3, dtype=eye.dtype, device=eye.device)[forward.detach().abs().argmin(-1)]
    lost = right.norm(dim=-1, keepdim=True) < 1e-6 * up.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    right = torch.where(lost, torch.linalg.cross(forward, spare, dim=-1), right)
    right = right / right.norm(dim=-1, keepdim=True)
    down = torch.linalg.cross(forward, right, dim=-1)
    rotation = torch.stack((right, down, forward), dim=-2)
    return rotation, -(rotation @ eye[..., None])[..., 0]


def world_to_cam(
    points_world: Float[Tensor, "... J 3"], rotation: Float[Tensor, "... 3 3"], translation: Float[Tensor, "... 3"]
) -> Float[Tensor, "... J 3"]:
    """Points (..., J, 3) through a world → camera transform; batch dimensions broadcast."""
    return points_world @ rotation.transpose(-1, -2) + translation[..., None, :]


def in_plane_rotation(angle: float | Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation about the camera axis that turns the picture clockwise as seen (x towards y) by ``angle`` radians.

    The same angle as ``rotation`` of :func:`crop_affine`: joints in the camera frame and the root rotation are
    multiplied from the left by it. Codes that count angles anticlockwise (nkolot/SPIN) have a minus sign here.
    """
    angle = torch.as_tensor(angle)
    angle = angle if angle.is_floating_point() else angle.float()
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cos, -sin, zero, sin, cos, zero, zero, zero, one)
    return torch.stack(rows, dim=-1).reshape(*angle.shape, 3, 3)
