"""torchmetrics classes around the pure functions: they average over batches of any size and over processes.

Each holds a sum and a count, so the last, ragged batch weighs what it should.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from posesyn.errors import InputError
from posesyn.metrics import keypoints2d, pose3d


class RunningMean(Metric):
    """Weighted mean of a pure function over all updates; base of the classes below."""

    full_state_update = False
    is_differentiable = False
    higher_is_better: bool | None = False
    function: ClassVar[Callable[..., Any]]

    total: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _add(self, value: Any, weight: Any) -> None:
        self.total += torch.as_tensor(value, dtype=torch.float64, device=self.total.device) * float(weight)
        self.count += float(weight)

    @staticmethod
    def _joints(pred: Any, visible: Any | None) -> int:
        """Number of joints that an update brings."""
        shape = tuple(pred.shape[:-1])
        return math.prod(shape) if visible is None else int(torch.as_tensor(visible).gt(0).expand(shape).sum())

    def compute(self) -> Tensor:
        """The mean over everything seen.

        Raises:
            InputError: Nothing has been seen.
        """
        if self.count == 0:
            raise InputError(f"{type(self).__name__} has seen no visible joint", fix="call update first")
        return self.total / self.count


class _JointMean(RunningMean):
    """Weights each update by its number of visible joints, which makes the result independent of the batching."""

    def update(self, pred: Tensor, target: Tensor, visible: Tensor | None = None) -> None:
        """Adds poses, shapes as for the function of the same name. A batch without a visible joint adds nothing."""
        if (weight := self._joints(pred, visible)) > 0:
            self._add(type(self).function(pred, target, visible, **self.options), weight)


class MPJPE(_JointMean):
    """:func:`posesyn.metrics.mpjpe` in mm."""

    function = staticmethod(pose3d.mpjpe)

    def __init__(self, root: int | Sequence[int] | None = None) -> None:
        super().__init__(root=root)


class NMPJPE(_JointMean):
    """:func:`posesyn.metrics.n_mpjpe` in mm."""

    function = staticmethod(pose3d.n_mpjpe)

    def __init__(self, root: int | Sequence[int] | None = None, align_on: str = "visible") -> None:
        super().__init__(root=root, align_on=align_on)


class PAMPJPE(_JointMean):
    """:func:`posesyn.metrics.pa_mpjpe` in mm."""

    function = staticmethod(pose3d.pa_mpjpe)

    def __init__(self, align_on: str = "visible") -> None:
        super().__init__(align_on=align_on)


class PCK3D(_JointMean):
    """:func:`posesyn.metrics.pck3d` in percent."""

    function = staticmethod(pose3d.pck3d)
    higher_is_better = True

    def __init__(
        self, root: int | Sequence[int] | None = None, threshold: float = 150.0, alignment: str = "none"
    ) -> None:
        super().__init__(root=root, threshold=threshold, alignment=alignment)


class AUC3D(_JointMean):
    """:func:`posesyn.metrics.auc3d` in percent."""

    function = staticmethod(pose3d.auc3d)
    higher_is_better = True

    def __init__(self, root: int | Sequence[int] | None = None, alignment: str = "none") -> None:
        super().__init__(root=root, alignment=alignment)


class PVE(RunningMean):
    """:func:`posesyn.metrics.pve` in mm."""

    def __init__(self) -> None:
        super().__init__()

    def update(
        self, pred: Tensor, target: Tensor, pred_root: Tensor | None = None, target_root: Tensor | None = None
    ) -> None:
        """Adds meshes (..., V, 3)."""
        self._add(pose3d.pve(pred, target, pred_root, target_root), self._joints(pred, None))


class _WindowMean(RunningMean):
    def update(self, pred: Tensor, target: Tensor, visible: Tensor | None = None) -> None:
        """Adds one sequence (T, J, 3) with its visible frames (T,). A sequence without a full window adds nothing."""
        values = type(self).function(pred, target, visible, reduce="none", **self.options)
        if len(values):
            self._add(values.mean(), len(values))


class AccelerationError(_WindowMean):
    """:func:`posesyn.metrics.acceleration_error`, mean over all windows of all sequences."""

    function = staticmethod(pose3d.acceleration_error)

    def __init__(self, fps: float | None = None) -> None:
        super().__init__(fps=fps)


class VelocityError(_WindowMean):
    """:func:`posesyn.metrics.velocity_error`, mean over all windows of all sequences."""

    function = staticmethod(pose3d.velocity_error)

    def __init__(self, fps: float | None = None) -> None:
        super().__init__(fps=fps)


class OKS(RunningMean):
    """Mean :func:`posesyn.metrics.oks` over persons."""

    higher_is_better = True

    def __init__(self, sigmas: str | Sequence[float] = "coco17") -> None:
        super().__init__(sigmas=sigmas)

    def update(self, pred: Tensor, target: Tensor, visible: Tensor | None, area: Tensor) -> None:
        """Adds matched persons (..., J, 2)."""
        values = torch.as_tensor(keypoints2d.oks(pred, target, visible, area, **self.options))
        self._add(values.mean(), values.numel())


class PCK2D(RunningMean):
    """:func:`posesyn.metrics.pck2d` in percent."""

    higher_is_better = True

    def __init__(self, threshold: float = 0.05) -> None:
        super().__init__(threshold=threshold)

    def update(self, pred: Tensor, target: Tensor, norm: Tensor | float, visible: Tensor | None = None) -> None:
        """Adds persons (..., J, 2) with their norms (...)."""
        if (weight := self._joints(pred, visible)) > 0:
            self._add(keypoints2d.pck2d(pred, target, norm, visible, **self.options), weight)


class PCKh(RunningMean):
    """:func:`posesyn.metrics.pckh` in percent, with the default head size of the skeleton or a given one."""

    higher_is_better = True

    def __init__(self, skeleton: str = "lsp14", threshold: float = 0.6) -> None:
        super().__init__(skeleton=skeleton, threshold=threshold)

    def update(
        self, pred: Tensor, target: Tensor, visible: Tensor | None = None, head_size: Tensor | None = None
    ) -> None:
        """Adds persons (..., J, 2). Persons without a head size add nothing."""
        counted = visible
        if head_size is None:
            _, usable = keypoints2d.head_size(target, visible, self.options["skeleton"])
            usable = torch.as_tensor(usable)[..., None]
            counted = usable.expand(pred.shape[:-1]) if visible is None else usable & torch.as_tensor(visible).gt(0)
        if (weight := self._joints(pred, counted)) > 0:
            self._add(keypoints2d.pckh(pred, target, visible, head_size=head_size, **self.options), weight)
