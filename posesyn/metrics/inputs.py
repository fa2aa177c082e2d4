"""What all metrics do with their arguments: NumPy or torch in, checked float64 inside, the caller's kind out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posesyn.errors import InputError

Array = Any  # np.ndarray or torch.Tensor
MM = 1000.0


class Points:
    """Predicted and true points with their mask, checked.

    Attributes:
        pred, target: (..., J, D) float64, equal shapes; zero where ``visible`` is False and the input was not finite.
        visible: (..., J) bool.
        complete: Whether every input value was finite, also at invisible joints.
    """

    def __init__(
        self,
        pred: Array,
        target: Array,
        visible: Array | None,
        metric: str,
        *,
        dims: int = 3,
        root: int | Sequence[int] | None = None,
        broadcast: bool = False,
    ) -> None:
        self.metric = metric
        self._like = next((value for value in (pred, target) if isinstance(value, Tensor)), None)
        self.pred, self.target = self.tensor(pred), self.tensor(target)
        if broadcast:
            try:
                self.pred, self.target = torch.broadcast_tensors(self.pred, self.target)
            except RuntimeError as error:
                got = f"{tuple(self.pred.shape)} and {tuple(self.target.shape)}"
                raise InputError("pred and target do not broadcast", where=metric, got=got) from error
        shape = self.pred.shape
        if shape != self.target.shape or len(shape) < 2 or shape[-1] != dims or 0 in shape:
            got = f"{tuple(shape)} and {tuple(self.target.shape)}"
            raise InputError(f"pred and target must be equal, non-empty (..., J, {dims})", where=metric, got=got)
        self.visible = self._mask(visible, shape[:-1])
        if root is not None:
            self.pred, self.target = (points - self._root(points, root) for points in (self.pred, self.target))
        self._require_finite()

    def tensor(self, value: Array) -> Tensor:
        """float64, on the device of the inputs."""
        device = None if self._like is None else self._like.device
        return torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value), device=device).double()

    def _mask(self, visible: Array | None, shape: torch.Size) -> Tensor:
        if visible is None:
            return torch.ones(shape, dtype=torch.bool, device=self.pred.device)
        mask = self.tensor(visible) > 0
        fits = 0 < mask.ndim <= len(shape) and mask.shape[-1] == shape[-1]
        if not fits or any(a not in (1, b) for a, b in zip(reversed(mask.shape), reversed(shape))):
            got = tuple(mask.shape)
            raise InputError("visible must be (..., J)", where=self.metric, expected=tuple(shape), got=got)
        return mask.expand(shape)

    def _root(self, points: Tensor, root: int | Sequence[int]) -> Tensor:
        rows = [root] if isinstance(root, int | np.integer) else list(root)
        joints = points.shape[-2]
        if not rows or any(not 0 <= row < joints for row in rows):
            raise InputError("root names no joint", where=self.metric, expected=f"0 … {joints - 1}", got=root)
        return points[..., rows, :].mean(-2, keepdim=True)

    def _require_finite(self) -> None:
        self.complete = True
        for name in ("pred", "target"):
            points = getattr(self, name)
            finite = torch.isfinite(points).all(-1)
            if (~finite & self.visible).any():
                fix = "mark missing joints in visible; a root joint must be finite"
                raise InputError(f"{name} has NaN or infinite values at visible joints", where=self.metric, fix=fix)
            self.complete &= bool(finite.all())
            setattr(self, name, torch.where(finite[..., None], points, 0.0))

    def reduce(self, values: Tensor, how: str) -> Array:
        """Mean of values (..., J) over visible joints: ``mean`` of all, ``none`` per pose, ``joint`` per joint.

        Raises:
            InputError: Unknown ``how``, or a mean over no joint at all.
        """
        dims = {"mean": tuple(range(values.ndim)), "none": (-1,), "joint": tuple(range(values.ndim - 1))}
        if how not in dims:
            raise InputError("unknown reduction", where=self.metric, expected="'mean', 'none' or 'joint'", got=how)
        count, total = self.visible.double(), torch.where(self.visible, values, 0.0)
        if dims[how]:  # joint by joint of a single pose, nothing is summed
            count, total = count.sum(dims[how]), total.sum(dims[how])
        empty = torch.nonzero(count == 0).flatten().tolist() if count.ndim else []
        if (count == 0).any():
            what = {
                "mean": "no joint is visible",
                "none": "a pose has no visible joint",
                "joint": "a joint is never visible",
            }
            got = f"indices {empty[:10]}" if empty else None
            raise InputError(what[how], where=self.metric, got=got, fix="leave such cases out")
        return self.give_back(total / count)

    def give_back(self, result: Tensor) -> Array:
        """A tensor in the dtype of the torch inputs, or float64 NumPy."""
        if self._like is None:
            return result.numpy() if result.ndim else np.float64(result.item())
        return result.to(self._like.dtype) if self._like.is_floating_point() else result
