"""Conversions between rotation forms, over roma, with any batch dimensions.

Two 6D layouts of the continuous representation (Zhou et al., CVPR 2019) exist in published networks:
``interleaved`` (SPIN, 3DCrowdNet: ``view(-1, 3, 2)``, the two columns alternate element by element)
and ``contiguous`` (HMR2: ``reshape(-1, 2, 3)``, first column then second). Mixing them gives wrong poses in silence, so
every function here names the layout.

Quaternions are (w, x, y, z).
"""

from __future__ import annotations

from typing import Literal

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from posesyn.errors import InputError

Layout = Literal["interleaved", "contiguous"]


def _check(value: Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(value.shape[-len(shape) :]) != shape:
        sizes = ", ".join(map(str, shape))
        raise InputError(f"{name} has the wrong shape", expected=f"(..., {sizes})", got=tuple(value.shape))


def rotvec_to_matrix(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation vectors (axis times angle in radians) to matrices; exact and differentiable at zero."""
    _check(rotvec, (3,), "rotvec")
    matrix: Tensor = roma.rotvec_to_rotmat(rotvec)
    return matrix


def matrix_to_rotvec(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation matrices to rotation vectors with angle in [0, pi]."""
    _check(matrix, (3, 3), "matrix")
    rotvec: Tensor = roma.rotmat_to_rotvec(matrix)
    return rotvec


def rot6d_to_matrix(x: Float[Tensor, "*batch 6"], layout: Layout = "interleaved") -> Float[Tensor, "*batch 3 3"]:
    """6D to matrices by Gram-Schmidt; the two vectors become the first two columns (nkolot/SPIN, utils/geometry.py).

    Zero and collinear vectors give some proper rotation instead of NaN, with zero gradient through the lost direction.

    Args:
        x: Unnormalised 6D values.
        layout: ``interleaved`` (SPIN) or ``contiguous`` (HMR2).
    """
    _check(x, (6,), "x")
    first, second = _split_6d(x, layout)
    axes = torch.eye(3, dtype=x.dtype, device=x.device)
    b1 = _normalise_or(first, axes[0].expand_as(first))
    # The unit axis least aligned with b1 is never collinear with it.
    spare = axes[b1.detach().abs().argmin(-1)]
    spare = spare - (b1 * spare).sum(-1, keepdim=True) * b1
    b2 = second - (b1 * second).sum(-1, keepdim=True) * b1
    size = second.detach().norm(dim=-1, keepdim=True)
    # Below this share of the vector, what is left of it after the projection is rounding, not direction.
    collinear = b2.detach().norm(dim=-1, keepdim=True) <= 8 * torch.finfo(x.dtype).eps * size
    b2 = _normalise_or(torch.where(collinear, spare, b2), spare)
    # dim is stated: without it torch.cross picks the first axis of size 3, the batch axis of a batch of three.
    b3 = torch.linalg.cross(b1, b2, dim=-1)
    return torch.stack((b1, b2, b3), dim=-1)


def matrix_to_rot6d(matrix: Float[Tensor, "*batch 3 3"], layout: Layout = "interleaved") -> Float[Tensor, "*batch 6"]:
    """The first two columns of a matrix in the given 6D layout."""
    _check(matrix, (3, 3), "matrix")
    columns = matrix[..., :2]
    if layout == "contiguous":
        columns = columns.transpose(-1, -2)
    elif layout != "interleaved":
        raise _unknown_layout(layout)
    return columns.reshape(*matrix.shape[:-2], 6)


def _unknown_layout(layout: object) -> InputError:
    return InputError("unknown 6D rotation layout", expected="'interleaved' or 'contiguous'", got=layout)


def _split_6d(x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    if layout == "interleaved":
        return x[..., 0::2], x[..., 1::2]
    if layout == "contiguous":
        return x[..., :3], x[..., 3:]
    raise _unknown_layout(layout)


def _normalise_or(vector: Tensor, fallback: Tensor) -> Tensor:
    """Unit vectors; ``fallback`` (normalised) where a vector is too short to have a direction."""
    tiny = vector.detach().norm(dim=-1, keepdim=True) < 1e-12
    vector = torch.where(tiny, fallback, vector)
    unit: Tensor = vector / vector.norm(dim=-1, keepdim=True)
    return unit


def quat_to_matrix(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Quaternions (w, x, y, z), normalised here, to matrices."""
    _check(quat, (4,), "quat")
    matrix: Tensor = roma.unitquat_to_rotmat(roma.quat_normalize(roma.quat_wxyz_to_xyzw(quat)))
    return matrix


def slerp(
    start: Float[Tensor, "... 3 3"], end: Float[Tensor, "... 3 3"], weight: Float[Tensor, ...] | float
) -> Float[Tensor, "... 3 3"]:
    """Shortest-path interpolation between rotation matrices, which broadcast with each other. Weight 0 gives ``start``,
    1 gives ``end``; a number, or a tensor that broadcasts against the batch dimensions."""
    _check(start, (3, 3), "start")
    _check(end, (3, 3), "end")
    rotvec = matrix_to_rotvec(start.transpose(-1, -2) @ end)
    weight = torch.as_tensor(weight, dtype=start.dtype, device=start.device)
    return start @ rotvec_to_matrix(weight[..., None] * rotvec)


def rotation_between(source: Float[Tensor, "... 3"], target: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """The smallest rotation that turns the direction ``source`` into ``target``; lengths do not matter.

    Opposite directions have no unique answer: a half turn about some perpendicular axis is returned. A zero-length
    vector gives the identity.
    """
    _check(source, (3,), "source")
    _check(target, (3,), "target")
    source, target = torch.broadcast_tensors(source, target)
    size = source.norm(dim=-1, keepdim=True) * target.norm(dim=-1, keepdim=True)
    scale = torch.where(size > 1e-12, size, torch.ones_like(size))
    # Half-angle form: (|a||b| + a.b, a x b) is the quaternion up to its length, and stays accurate at small angles.
    w = 1 + (source * target).sum(-1, keepdim=True) / scale
    axis = torch.linalg.cross(source, target, dim=-1) / scale
    eye = torch.eye(3, dtype=source.dtype, device=source.device)
    perpendicular = torch.linalg.cross(source, eye[source.detach().abs().argmin(-1)], dim=-1)
    opposite = w < 4 * torch.finfo(source.dtype).eps
    quat = torch.cat((torch.where(opposite, 0, w), torch.where(opposite, perpendicular, axis)), dim=-1)
    identity = torch.zeros_like(quat)
    identity[..., 0] = 1
    return quat_to_matrix(torch.where(size > 1e-12, quat, identity))
