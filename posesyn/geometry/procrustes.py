"""Similarity alignment of point sets (Umeyama 1991), without reflections, in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from posesyn.errors import InputError


def similarity_transform(
    source: Float[Tensor, "*batch J 3"],
    target: Float[Tensor, "*batch J 3"],
    weights: Float[Tensor, "*batch J"] | None = None,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """The scale, rotation (determinant +1) and translation that bring ``source`` closest to ``target``.

    ``target ≈ scale * source @ R.T + t`` in the (weighted) least-squares sense. Collinear points have many best
    rotations; one of them is returned. A source that is a single point gets scale 1 and no rotation.

    Args:
        source, target: Points of equal shape.
        weights: Non-negative weight of each point; points of weight 0 may have any finite coordinates.

    Returns:
        scale, R, t in the dtype of ``source``.

    Raises:
        InputError: Shapes differ, NaN or infinite values, negative weights, or a set whose weights are all zero.
    """
    scale, rotation, mean_source, mean_target = _solve(source, target, weights)
    translation = mean_target - scale[..., None] * (rotation @ mean_source[..., None])[..., 0]
    return scale.to(source.dtype), rotation.to(source.dtype), translation.to(source.dtype)


def similarity_align(
    source: Float[Tensor, "*batch J 3"],
    target: Float[Tensor, "*batch J 3"],
    weights: Float[Tensor, "*batch J"] | None = None,
) -> Float[Tensor, "*batch J 3"]:
    """``source`` moved onto ``target`` by :func:`similarity_transform`; same arguments and errors."""
    scale, rotation, mean_source, mean_target = _solve(source, target, weights)
    centred = source.double() - mean_source[..., None, :]
    aligned = scale[..., None, None] * (centred @ rotation.transpose(-1, -2)) + mean_target[..., None, :]
    return aligned.to(source.dtype)


def _solve(source: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if source.shape != target.shape or source.ndim < 2 or source.shape[-1] != 3 or source.shape[-2] == 0:
        raise InputError(
            "source and target must both be (..., J, 3) with J >= 1",
            where="similarity alignment",
            got=f"{tuple(source.shape)} and {tuple(target.shape)}",
        )
    for name, points in (("source", source), ("target", target)):
        if not torch.isfinite(points).all():
            raise InputError(f"{name} has NaN or infinite values", where="similarity alignment")
    source, target = source.double(), target.double()
    if weights is None:
        share = source.new_full(source.shape[:-1], 1 / source.shape[-2])
    else:
        share = _shares(weights.to(source), source.shape[:-1])
    mean_source = (share[..., None] * source).sum(-2)
    mean_target = (share[..., None] * target).sum(-2)
    x, y = source - mean_source[..., None, :], target - mean_target[..., None, :]
    covariance = (share[..., None] * x).transpose(-1, -2) @ y
    u, singular, vh = torch.linalg.svd(covariance)
    # A determinant of 0 counts as +1 (our own choice): sign(0) would erase an axis.
    ones = torch.ones_like(singular[..., 0])
    flip = torch.where(torch.linalg.det(u @ vh) < 0, -ones, ones)
    z = torch.stack((ones, ones, flip), dim=-1)
    rotation = vh.transpose(-1, -2) @ (z[..., None] * u.transpose(-1, -2))
    variance = (share * x.square().sum(-1)).sum(-1)
    # Points that agree to float64 rounding have no size to be scaled.
    magnitude = (share * source.square().sum(-1)).sum(-1)
    is_point = variance <= torch.finfo(torch.float64).eps ** 2 * magnitude
    scale = (singular * z).sum(-1) / torch.where(is_point, ones, variance)
    return torch.where(is_point, ones, scale), rotation, mean_source, mean_target


def _shares(weights: Tensor, shape: torch.Size) -> Tensor:
    where = "similarity alignment"
    if weights.shape != shape:
        raise InputError("weights must be (..., J)", where=where, expected=tuple(shape), got=tuple(weights.shape))
    total = weights.sum(-1, keepdim=True)
    if not torch.isfinite(weights).all() or (weights < 0).any() or (total <= 0).any():
        problem = "weights must be finite, not negative, and positive for at least one point of each set"
        raise InputError(problem, where=where, fix="leave out sets without a usable point")
    return weights / total
