"""Errors over time (as in yohanshin/WHAM, lib/eval). Sequences (T, J, 3) in metres, NumPy or torch; millimetres out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from posesyn.errors import InputError
from posesyn.metrics.inputs import MM, Array, Points


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
    norms = _differences(_sequence(points, 2).pred, 2).norm(dim=-1).mean(-1) * _unit(fps, 2)
    return points.give_back(_reduce(norms, reduce, "acceleration"))


def jitter(joints: Array, fps: float) -> Array:
    """Mean norm of third differences · fps³ / 10, in 10 m/s³ (yohanshin/WHAM, over the 24 SMPL joints).

    Args:
        joints: (T, J, 3) metres, T >= 4.
        fps: Frames per second.
    """
    points = Points(joints, joints, None, "jitter")
    third = _differences(_sequence(points, 3).pred, 3).norm(dim=-1).mean()
    return points.give_back(third * (_unit(fps, 3) / 10))


def _difference_error(
    pred: Array, target: Array, visible: Array | None, order: int, metric: str, fps: float | None, reduce: str
) -> Array:
    joint_mask = None
    if visible is not None:
        frames = torch.as_tensor(visible) > 0
        shape = tuple(np.shape(pred))
        if tuple(frames.shape) != shape[:1]:
            raise InputError("visible must be (T,)", where=metric, expected=shape[:1], got=tuple(frames.shape))
        joint_mask = frames[:, None].expand(shape[:2])
    points = _sequence(Points(pred, target, joint_mask, metric), order)
    errors = _differences(points.pred - points.target, order).norm(dim=-1).mean(-1) * _unit(fps, order)
    # (T, J) → (windows,): every frame of the window must count.
    counts = points.visible[:, 0].unfold(0, order + 1, 1).all(-1)
    return points.give_back(_reduce(errors[counts], reduce, metric))


def _sequence(points: Points, order: int) -> Points:
    shape = tuple(points.pred.shape)
    if len(shape) != 3 or shape[0] <= order:
        raise InputError(
            f"a sequence must be (T, J, 3) with T > {order}",
            where=points.metric,
            got=shape,
            fix="call once per sequence, or use the class, which averages over sequences",
        )
    return points


def _differences(sequence: Tensor, order: int) -> Tensor:
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
    if how == "none":
        return values
    if not len(values):
        raise InputError("no window of visible frames is left", where=metric, fix="leave this sequence out")
    return values.mean()
