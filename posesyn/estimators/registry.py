"""Estimators by name: the ones of posesyn and those that other packages announce."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from posesyn.errors import InputError, PosesynError
from posesyn.interfaces import TargetEstimator

if TYPE_CHECKING:
    import torch

# Third parties announce a callable ``make(checkpoint: path | None) -> TargetEstimator`` in this entry point group.
ENTRY_POINTS = "posesyn.estimators"
SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "assets" / "hmr_small.safetensors"

Checkpoint = str | os.PathLike[str] | None


def _hmr_small(checkpoint: Checkpoint) -> TargetEstimator:
    from posesyn.estimators.hmr import HMR

    return HMR.small().load_checkpoint(SHIPPED_WEIGHTS if checkpoint is None else checkpoint).eval()


@dataclass(frozen=True)
class _Published:
    """A network whose official weights may not be shipped: its class, and where to get them."""

    module: str
    class_name: str
    file: str
    source: str

    def __call__(self, checkpoint: Checkpoint) -> TargetEstimator:
        kind = getattr(import_module(f"posesyn.estimators.{self.module}"), self.class_name)
        if checkpoint is None:
            raise InputError(
                f"estimator '{self.module.split('.')[0]}' needs a checkpoint: its official weights may not be shipped",
                where="load_estimator",
                fix=f"get {self.file} from {self.source} and pass checkpoint=..., or use 'hmr_small'",
            )
        return kind.from_official(checkpoint)


@dataclass(frozen=True)
class _Lifted:
    """A lifter, which is trained by the user: on the annotated keypoints of the persons."""

    name: str

    def __call__(self, checkpoint: Checkpoint) -> TargetEstimator:
        from posesyn.estimators.lifters.estimator import LifterEstimator

        if checkpoint is None:
            raise InputError(
                f"lifter '{self.name}' needs a checkpoint",
                where="load_estimator",
                fix="train one with `posesyn train lifter`, or get ckpt_best.pth.tar of github.com/jfzhang95/PoseAug",
            )
        return LifterEstimator.from_checkpoint(checkpoint, self.name).eval()


_BUILT_IN: dict[str, Callable[[Checkpoint], TargetEstimator]] = {
    "hmr": _Published("hmr", "HMR", "model_checkpoint.pt", "github.com/nkolot/SPIN"),
    "hmr_small": _hmr_small,
    "hmr2": _Published("hmr2.network", "HMR2", "the Lightning checkpoint", "github.com/shubham-goel/4D-Humans"),
    "crowdnet": _Published(
        "crowdnet.network", "CrowdNet", "snapshot_N.pth.tar", "github.com/hongsukchoi/3DCrowdNet_RELEASE"
    ),
    "hybrik": _Published("hybrik.network", "HybrIK", "the ResNet-34 checkpoint", "github.com/Jeff-sjtu/HybrIK"),
    **{name: _Lifted(name) for name in ("mlp", "videopose", "semgcn", "stgcn")},
}


def _announced() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def estimator_names() -> list[str]:
    """All names that :func:`load_estimator` knows."""
    return sorted({*_BUILT_IN, *_announced()})


def load_estimator(
    name: str = "hmr_small", checkpoint: Checkpoint = None, device: str | torch.device | None = "auto"
) -> TargetEstimator:
    """An estimator by name, in eval mode, on a device.

    Args:
        name: ``"hmr_small"`` (shipped with its weights); ``"hmr"``, ``"hmr2"``, ``"crowdnet"`` or ``"hybrik"``, and the
            lifters ``"mlp"``, ``"videopose"``, ``"semgcn"`` and ``"stgcn"``, which read the persons' keypoints: these
            need ``checkpoint``; or a name that another package announces in the entry point group
            ``posesyn.estimators``. Built-in names win.
        checkpoint: Weights to load: an official file, or one that posesyn saved.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``. An estimator of
            another package is moved if it is a ``torch.nn.Module``, and left where it is otherwise.

    Raises:
        InputError: Unknown name, a checkpoint is needed, or this machine has no such device.
        FileError: The checkpoint cannot be read.
        CheckpointError: The checkpoint belongs to another model.

    Example:
        >>> load_estimator("hmr_small").spec.skeleton
        'smpl45'
    """
    from posesyn.geometry.devices import moved, resolve_device  # loads torch, which a list of names need not

    place = resolve_device(device)
    return moved(_made(name, checkpoint), place)


def _made(name: str, checkpoint: Checkpoint) -> TargetEstimator:
    if name in _BUILT_IN:
        return _BUILT_IN[name](checkpoint)
    announced = _announced()
    if name not in announced:
        names = estimator_names()
        near = difflib.get_close_matches(str(name), names, n=3)
        raise InputError(
            f"unknown estimator '{name}'",
            where="load_estimator",
            expected=f"one of {', '.join(names)}",
            fix=(f"did you mean {' or '.join(repr(n) for n in near)}? " if near else "")
            + "For a network of your own pass an object with `spec` and `predict`, e.g. CallableEstimator(...)",
        )
    point = announced[name]
    try:
        estimator = point.load()(checkpoint)
    except PosesynError:
        raise
    except Exception as error:
        raise InputError(
            f"estimator '{name}' could not be built",
            where=f"entry point {point.value}",
            got=f"{type(error).__name__}: {error}",
            fix="report it to the package that announces it",
        ) from error
    if not isinstance(estimator, TargetEstimator):
        raise InputError(
            f"estimator '{name}' is no TargetEstimator",
            where=f"entry point {point.value}",
            expected="an object with `spec` and `predict(persons)`",
            got=type(estimator).__name__,
        )
    return estimator
