"""3D pose errors: MPJPE, its aligned forms, vertex error, PCK and AUC; errors over time (as yohanshin/WHAM, lib/eval).

Input is metres, NumPy or torch, with any leading batch dimensions; output is millimetres or percent, of the same kind
as the input. Means run over all visible joints of all poses; where every joint is visible that is also the mean of
the poses' means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from posesyn.errors import InputError
from posesyn.geometry.procrustes import similarity_align
from posesyn.metrics.inputs import MM, Array, Points

Reduction = Literal["mean", "none", "joint"]
Alignment = Literal["none", "scale", "procrustes"]

# 3DHP's AUC thresholds in mm, equal in PoseAug (utils/loss.py), mmhuman3d and HybrIK.
AUC_THRESHOLDS: np.ndarray = np.linspace(0.0, 150.0, 31)


def mpjpe(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    root: int | Sequence[int] | None = None,
    *,
    reduce: Reduction = "mean",
) -> Array:
    """Mean per-joint position error in mm.

    Args:
        pred, target: (..., J, 3) metres.
        visible: (..., J) bool, joints that count; the others may hold anything, NaN included.
        root: Joint whose position is removed from both first, or several whose mean is (hips); it must be finite even
            where it does not count. None removes nothing.
        reduce: ``"mean"`` a number, ``"none"`` per pose (...), ``"joint"`` per joint (J,).

    Raises:
        InputError: Wrong shapes, NaN at visible joints, no such root, or a mean over no visible joint.

    >>> float(mpjpe(np.zeros((2, 17, 3)), np.full((2, 17, 3), 0.01)).round(3))
    17.321
    """
    points = Points(pred, target, visible, "mpjpe", root=root)
    return points.reduce(_distances(points, "none", "visible"), reduce)


def n_mpjpe(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    root: int | Sequence[int] | None = None,
    *,
    reduce: Reduction = "mean",
    align_on: Literal["visible", "all"] = "visible",
) -> Array:
    """MPJPE in mm after the best scale per pose about the origin, s = ⟨P, G⟩ / ⟨P, P⟩; see :func:`pa_mpjpe`."""
    points = Points(pred, target, visible, "n_mpjpe", root=root)
    return points.reduce(_distances(points, "scale", align_on), reduce)


def pa_mpjpe(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    *,
    reduce: Reduction = "mean",
    align_on: Literal["visible", "all"] = "visible",
) -> Array:
    """MPJPE in mm after the best similarity per pose (scale, rotation of determinant +1, translation).

    A mirrored pose stays wrong: reflections are never used (our own rule; published codes differ).

    Args:
        pred, target, visible, reduce: As in :func:`mpjpe`.
        align_on: Joints that the alignment is fitted to. ``"all"`` fits all and averages the visible ones, as SPIN and
            mmhuman3d do; invisible joints must then hold real coordinates.

    Example:
        >>> pose = np.random.default_rng(0).normal(size=(2, 17, 3))
        >>> float(pa_mpjpe(2 * pose + 1, pose).round(3))  # scale and place do not count
        0.0
    """
    points = Points(pred, target, visible, "pa_mpjpe")
    return points.reduce(_distances(points, "procrustes", align_on), reduce)


def pve(
    pred: Array,
    target: Array,
    pred_root: Array | None = None,
    target_root: Array | None = None,
    *,
    reduce: Reduction = "mean",
) -> Array:
    """Per-vertex error in mm (PVE, MPVPE, MVE).

    Args:
        pred, target: (..., V, 3) metres.
        pred_root, target_root: (..., 3) point that each mesh is aligned at, or both None for no alignment. Name it with
            the number: SMPL pelvis, H36M pelvis and hip midpoint give different values.
        reduce: As in :func:`mpjpe`; ``"joint"`` is per vertex.
    """
    if (pred_root is None) != (target_root is None):
        raise InputError("pve needs both roots or none", where="pve")
    points = Points(pred, target, None, "pve")
    if pred_root is not None:
        for name, root in (("pred", pred_root), ("target", target_root)):
            root, shape = points.tensor(root), (*points.pred.shape[:-2], 3)
            if root.shape != shape or not torch.isfinite(root).all():
                raise InputError(f"{name}_root must be finite", where="pve", expected=shape, got=tuple(root.shape))
            setattr(points, name, getattr(points, name) - root[..., None, :])
    return points.reduce(_distances(points, "none", "all"), reduce)


def pck3d(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    root: int | Sequence[int] | None = None,
    *,
    threshold: float = 150.0,
    alignment: Alignment = "none",
    reduce: Reduction = "mean",
    align_on: Literal["visible", "all"] = "visible",
) -> Array:
    """Percent of joints with an error strictly below ``threshold`` mm.

    Args:
        pred, target, visible, root, reduce: As in :func:`mpjpe`. 3DHP's own root is index 14 of ``3dhp17``.
        threshold: Millimetres; 150 is 3DHP's.
        alignment: Named with every 3DHP number: ``"none"``, ``"scale"`` or ``"procrustes"``.
        align_on: As in :func:`pa_mpjpe`.

    Example:
        >>> truth = np.zeros((1, 2, 3))
        >>> float(pck3d(truth + np.array([[[0.0], [0.2]]]), truth))  # 20 cm on each axis is too far
        50.0
    """
    points = Points(pred, target, visible, "pck3d", root=root)
    errors = _distances(points, alignment, align_on)
    return points.reduce(100.0 * (errors < threshold).double(), reduce)


def auc3d(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    root: int | Sequence[int] | None = None,
    *,
    alignment: Alignment = "none",
    reduce: Reduction = "mean",
    align_on: Literal["visible", "all"] = "visible",
) -> Array:
    """Mean of :func:`pck3d` over 31 thresholds from 0 to 150 mm, in percent; at most 100 · 30 / 31."""
    points = Points(pred, target, visible, "auc3d", root=root)
    errors = _distances(points, alignment, align_on)
    thresholds = torch.as_tensor(AUC_THRESHOLDS, device=errors.device)
    # Counting thresholds above the error equals averaging 31 PCK maps, without a 31-fold array.
    above = len(AUC_THRESHOLDS) - torch.searchsorted(thresholds, errors.contiguous(), right=True)
    return points.reduce(100.0 * above.double() / len(AUC_THRESHOLDS), reduce)


def mean_of_groups(values: Array, groups: Sequence[object]) -> float:
    """Mean of the groups' means: Human3.6M's action mean is not the mean over frames.

    Args:
        values: (N,) per-pose values.
        groups: N group names.
    """
    values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, np.float64)
    if values.ndim != 1 or len(values) != len(groups) or not len(values):
        raise InputError("values and groups must be (N,) with N >= 1", got=f"{values.shape} and {len(groups)}")
    collected: dict[object, list[float]] = {}
    for value, group in zip(values.tolist(), groups):
        collected.setdefault(group, []).append(value)
    return float(np.mean([np.mean(members) for members in collected.values()]))


def _distances(points: Points, alignment: str, align_on: str) -> Tensor:
    """Errors (..., J) in mm."""
    if align_on not in ("visible", "all"):
        raise InputError("unknown align_on", where=points.metric, expected="'visible' or 'all'", got=align_on)
    if align_on == "all" and alignment != "none" and not points.complete:
        fix = 'use align_on="visible", or give every joint real coordinates'
        raise InputError("NaN or infinite values at invisible joints", where=points.metric, fix=fix)
    pred, target = points.pred, points.target
    weights = points.visible.to(pred) if align_on == "visible" else torch.ones_like(pred[..., 0])
    if alignment == "scale":
        dot = (weights[..., None] * pred * target).sum((-2, -1))
        square = (weights[..., None] * pred.square()).sum((-2, -1))
        # A prediction with all points at the origin has no scale; it stays where it is.
        scale = torch.where(square > 0, dot / torch.where(square > 0, square, 1.0), 1.0)
        pred = scale[..., None, None] * pred
    elif alignment == "procrustes":
        # Poses without a visible joint count nowhere or are refused by reduce; they only must not stop the others.
        empty = weights.sum(-1, keepdim=True) == 0
        pred = similarity_align(pred, target, torch.where(empty, 1.0, weights))
    elif alignment != "none":
        expected = "'none', 'scale' or 'procrustes'"
        raise InputError("unknown alignment", where=points.metric, expected=expected, got=alignment)
    errors: Tensor = (pred - target).norm(dim=-1) * MM
    return errors


# -- over time: sequences (T, J, 3) -----------------------------------------------------------------------------------


def acceleration_error(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    *,
    fps: float | None = None,
    reduce: Literal["mean", "none"] = "mean",
) -> Array:
    """Mean norm of the difference of second differences.

    Args:
        pred, target: (T, J, 3) metres, T >= 3.
        visible: (T,) bool, frames that count. An invisible frame removes every window of three that contains it.
        fps: None gives mm per frame² (VIBE, HMMR: no division by the frame time); a frame rate gives m/s² as WHAM
            reports it, except that WHAM also drops the first and the last value.
        reduce: ``"mean"``, or ``"none"`` for one value per remaining window (at most T - 2).

    Raises:
        InputError: Wrong shapes, NaN in a visible frame, too few frames, or no window left.
    """
    return _difference_error(pred, target, visible, 2, "acceleration_error", fps, reduce)


def velocity_error(
    pred: Array,
    target: Array,
    visible: Array | None = None,
    *,
    fps: float | None = None,
    reduce: Literal["mean", "none"] = "mean",
) -> Array:
    """Mean norm of the difference of first differences, mm per frame (PoseAug's); with ``fps`` in m/s.

    Arguments and errors as :func:`acceleration_error`, for windows of two frames.
    """
    return _difference_error(pred, target, visible, 1, "velocity_error", fps, reduce)


def acceleration(joints: Array, *, fps: float | None = None, reduce: Literal["mean", "none"] = "mean") -> Array:
    """Mean norm of second differences of one sequence (T, J, 3): mm per frame², or m/s² with ``fps``."""
    points = Points(joints, joints, None, "acceleration")
    norms = _differences(points, points.pred, 2).norm(dim=-1).mean(-1) * _unit(fps, 2)
    return points.give_back(_reduce(norms, reduce, "acceleration"))


def jitter(joints: Array, fps: float) -> Array:
    """Mean norm of third differences · fps³ / 10 of (T, J, 3) metres, T >= 4: 10 m/s³ (WHAM, over 24 SMPL joints)."""
    points = Points(joints, joints, None, "jitter")
    third = _differences(points, points.pred, 3).norm(dim=-1).mean()
    return points.give_back(third * (_unit(fps, 3) / 10))


def _difference_error(
    pred: Array, target: Array, visible: Array | None, order: int, metric: str, fps: float | None, reduce: str
) -> Array:
    joint_mask = None
    if visible is not None:
        frames, shape = torch.as_tensor(visible) > 0, tuple(np.shape(pred))
        if tuple(frames.shape) != shape[:1]:
            raise InputError("visible must be (T,)", where=metric, expected=shape[:1], got=tuple(frames.shape))
        joint_mask = frames[:, None].expand(shape[:2])
    points = Points(pred, target, joint_mask, metric)
    errors = _differences(points, points.pred - points.target, order).norm(dim=-1).mean(-1) * _unit(fps, order)
    # (T, J) → (windows,): every frame of the window must count.
    counts = points.visible[:, 0].unfold(0, order + 1, 1).all(-1)
    return points.give_back(_reduce(errors[counts], reduce, metric))


def _differences(points: Points, sequence: Tensor, order: int) -> Tensor:
    """(T, J, 3) → (T - order, J, 3)."""
    if sequence.ndim != 3 or len(sequence) <= order:
        raise InputError(
            f"a sequence must be (T, J, 3) with T > {order}",
            where=points.metric,
            got=tuple(sequence.shape),
            fix="call once per sequence, or use the class, which averages over sequences",
        )
    return torch.diff(sequence, n=order, dim=0)


def _unit(fps: float | None, order: int) -> float:
    """Factor from metres per frame^order to mm per frame^order, or to m/s^order."""
    if fps is None:
        return MM
    if not fps > 0:
        raise InputError("fps must be positive", got=fps)
    return float(fps) ** order


def _reduce(values: Tensor, how: str, metric: str) -> Tensor:
    if how not in ("mean", "none"):
        raise InputError("unknown reduction", where=metric, expected="'mean' or 'none'", got=how)
    if how == "mean" and not len(values):
        raise InputError("no window of visible frames is left", where=metric, fix="leave this sequence out")
    return values.mean() if how == "mean" else values
