"""2D keypoint scores: OKS, PCK and PCKh. Pixels, NumPy or torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.metrics.inputs import Array, Points

# Per-joint falloffs by joint set, in its order: COCO's evaluation (cocodataset/cocoapi) and CrowdPose's API.
OKS_SIGMAS: dict[str, tuple[float, ...]] = {
    "coco17": tuple(
        s / 10
        for s in (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
    ),
    "crowdpose14": tuple(
        s / 10 for s in (0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79)
    ),
}

# Head size where no head box exists: (joint, joint, factor). Our own choice, as PoseSyn (arXiv
# 2503.13025) reports PCKh@0.6 without saying of which size; always print it with the number.
HEAD_SIZES: dict[str, tuple[str, str, float]] = {"lsp14": ("head_top", "neck", 1.0), "jhmdb15": ("head", "neck", 2.0)}


def oks(
    pred: Array, target: Array, visible: Array | None, area: Array, sigmas: str | Sequence[float] = "coco17"
) -> Array:
    """Object keypoint similarity, 0 … 1: mean over visible joints of exp(-d² / (2 s² k²)), k = 2 σ, s² = ``area``.

    Args:
        pred, target: (..., J, 2) pixels; leading dimensions broadcast, so ``oks(pred[:, None], target[None], ...)`` is
            the matrix of all pairs.
        visible: (..., J) labelled joints of the target (COCO: v > 0), or None for all.
        area: (...) object area in pixels²: the segment's in COCO; a box area gives another number, name it.
        sigmas: A key of :data:`OKS_SIGMAS` or J values.

    Raises:
        InputError: Wrong shapes, unknown sigmas, an area that is not positive, or a target without a visible joint
            (COCO ignores such targets).

    Example:
        >>> points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
        >>> float(oks(points, points, None, area=np.array([2500.0]))[0])
        1.0
    """
    points = Points(pred, target, visible, "oks", dims=2, broadcast=True)
    if isinstance(sigmas, str):
        if sigmas not in OKS_SIGMAS:
            expected = f"one of {list(OKS_SIGMAS)} or J values"
            raise InputError("no OKS sigmas for this skeleton", expected=expected, got=sigmas)
        sigmas = OKS_SIGMAS[sigmas]
    falloff = points.tensor(sigmas)
    joints = points.pred.shape[-2]
    if falloff.shape != (joints,) or not (falloff > 0).all():
        raise InputError("sigmas must be J positive values", where="oks", expected=(joints,), got=tuple(falloff.shape))
    area = _per_pose(points, area, "area")
    square = (points.pred - points.target).square().sum(-1)
    # COCO's evaluator adds the spacing of 1 to the area.
    variance = (2 * falloff).square() * (area[..., None] + torch.finfo(torch.float64).eps)
    return points.reduce(torch.exp(-square / (2 * variance)), "none")


def pck2d(
    pred: Array,
    target: Array,
    norm: Array,
    visible: Array | None = None,
    *,
    threshold: float = 0.05,
    reduce: Literal["mean", "none", "joint"] = "mean",
) -> Array:
    """Percent of visible joints with distance <= ``threshold`` · ``norm``.

    Args:
        pred, target: (..., J, 2) pixels.
        norm: (...) pixels per pose, or a number. Name it with the result: HMR2 takes the longer side of the original
            box, with thresholds 0.05 and 0.1.
        visible: (..., J) bool.
        threshold: Share of ``norm``.
        reduce: As in :func:`posesyn.metrics.mpjpe`.
    """
    points = Points(pred, target, visible, "pck2d", dims=2)
    return _pck(points, _per_pose(points, norm, "norm"), threshold, reduce)


def pckh(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    *,
    skeleton: str = "lsp14",
    head_size: Array | None = None,
    threshold: float = 0.6,
    reduce: Literal["mean", "none", "joint"] = "mean",
) -> Array:
    """Percent of visible joints within ``threshold`` head sizes.

    Args:
        pred, target: (..., J, 2) pixels in the order of ``skeleton``.
        visible: (..., J) bool. Poses whose head joints are invisible have no head size and leave the mean.
        skeleton: Decides the default head size: ‖head top - neck‖ on ``lsp14``, 2 ‖head - neck‖ on ``jhmdb15``
            (:data:`HEAD_SIZES`, our own choice).
        head_size: (...) pixels, for other sets; MPII's is 0.6 · the diagonal of the head box, with threshold 0.5.
        threshold: 0.6 as PoseSyn reports.
        reduce: As in :func:`posesyn.metrics.mpjpe`; ``"none"`` refuses poses without a head size.

    Raises:
        InputError: Wrong shapes, no head size known for the skeleton, or no usable pose.
    """
    points = Points(pred, target, visible, "pckh", dims=2)
    joints = skeletons.get(skeleton)
    if points.pred.shape[-2] != len(joints):
        what, got = f"points must be (..., {len(joints)}, 2) for skeleton '{skeleton}'", tuple(points.pred.shape)
        raise InputError(what, where="pckh", got=got)
    if head_size is not None:
        return _pck(points, _per_pose(points, head_size, "head_size"), threshold, reduce)
    size, usable = _head_size(points, skeleton)
    points.visible = points.visible & usable[..., None]
    return _pck(points, size, threshold, reduce)


def head_size(target: Array, visible: Array | None = None, skeleton: str = "lsp14") -> tuple[Array, Array]:
    """The default head size of :func:`pckh`: pixels (...) and usable (...) bool, False where a head joint is invisible.

    Args:
        target: (..., J, 2) pixels in the order of ``skeleton``.
        visible: (..., J) bool.
        skeleton: A key of :data:`HEAD_SIZES`.
    """
    points = Points(target, target, visible, "head_size", dims=2)
    size, usable = _head_size(points, skeleton)
    return points.give_back(size), usable if isinstance(target, Tensor) else usable.numpy()


def _head_size(points: Points, skeleton: str) -> tuple[Tensor, Tensor]:
    if skeleton not in HEAD_SIZES:
        what, known = f"no default head size for skeleton '{skeleton}'", f"one of {list(HEAD_SIZES)}"
        raise InputError(what, where=points.metric, expected=known, fix="pass head_size")
    first, second, factor = HEAD_SIZES[skeleton]
    joints = skeletons.get(skeleton)
    rows = [joints.index(first), joints.index(second)]
    size = factor * (points.target[..., rows[0], :] - points.target[..., rows[1], :]).norm(dim=-1)
    return size, points.visible[..., rows].all(-1) & (size > 0)


def _pck(points: Points, norm: Tensor, threshold: float, reduce: str) -> Array:
    inside = (points.pred - points.target).norm(dim=-1) <= threshold * norm[..., None]
    return points.reduce(100.0 * inside.double(), reduce)


def _per_pose(points: Points, value: Array, name: str) -> Tensor:
    shape = points.pred.shape[:-2]
    sizes = points.tensor(value)
    fits = sizes.ndim <= len(shape) and np.all([a in (1, b) for a, b in zip(reversed(sizes.shape), reversed(shape))])
    if not fits:
        got = tuple(sizes.shape)
        raise InputError(f"{name} must be one per pose", where=points.metric, expected=tuple(shape), got=got)
    if not (torch.isfinite(sizes) & (sizes > 0)).all():
        raise InputError(f"{name} must be finite and positive", where=points.metric)
    return sizes.expand(shape)
