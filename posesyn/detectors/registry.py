"""Keypoint detectors by name: the ones of posesyn and those that other packages announce."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posesyn.errors import InputError
from posesyn.interfaces import KeypointDetector
from posesyn.registry import Registry

if TYPE_CHECKING:
    import torch

Checkpoint = str | os.PathLike[str] | None
Maker = Callable[[Checkpoint], KeypointDetector]


@dataclass(frozen=True)
class _MoveNet:
    variant: str

    def __call__(self, checkpoint: Checkpoint) -> KeypointDetector:
        from posesyn.detectors.movenet import MoveNet
        from posesyn.storage.assets import ASSETS
        from posesyn.storage.fetch import fetched

        path = fetched(ASSETS[f"movenet_{self.variant}"]) if checkpoint is None else checkpoint
        detector = MoveNet(self.variant)
        detector.network.load_official(path)
        return detector.eval()


def _vitpose(checkpoint: Checkpoint) -> KeypointDetector:
    from posesyn.detectors.vitpose import ViTPose

    return (ViTPose.from_pretrained() if checkpoint is None else ViTPose.from_pretrained(checkpoint)).eval()


# A program registers, and other packages announce, a callable ``make(checkpoint: path | None) -> KeypointDetector``.
DETECTORS: Registry[Maker] = Registry(
    "detector",
    {
        **{f"movenet_{variant}": _MoveNet(variant) for variant in ("lightning", "thunder")},
        # An estimator too: the network has one folder, among the estimators.
        **{
            f"blazepose{size}": f"posesyn.estimators.blazepose.keypoints:blazepose{size}"
            for size in ("", "_lite", "_heavy")
        },
        "vitpose": _vitpose,
    },
    group="posesyn.detectors",
    fix="For a detector of your own pass an object with `skeleton` and `detect`, e.g. CallableDetector(...), or name a "
    "function of a file here: 'my_module:make'",
)


def load_detector(
    name: str = "movenet_thunder", checkpoint: Checkpoint = None, device: str | torch.device | None = "auto"
) -> KeypointDetector:
    """A detector of 2D keypoints by name, in eval mode, on a device. Nothing is downloaded.

    Args:
        name: ``"movenet_thunder"`` or the faster ``"movenet_lightning"``, whose weights ``posesyn assets fetch``
            brings; ``"blazepose"``, ``"blazepose_lite"`` or ``"blazepose_heavy"``, likewise, which must not judge what
            BlazePose is trained on; ``"vitpose"``, a model of the package transformers; a name that was registered
            (:data:`DETECTORS`) or that another package announces in the entry point group
            ``posesyn.detectors`` (built-in names win); or ``"my_module:make"``, a function ``make(checkpoint)`` of a
            file in the current folder or of an installed package.
        checkpoint: Weights in place of the fetched ones: a file, or for ``vitpose`` a folder.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``. A detector that is
            no ``torch.nn.Module`` is left where it is.

    Raises:
        InputError: Unknown name or function, or this machine has no such device.
        FileError: The weights were not fetched (the message says how), or cannot be read.
        CheckpointError: The checkpoint belongs to another model.
        MissingDependencyError: ``vitpose`` without transformers.

    Example:
        >>> sorted(name for name in DETECTORS if name.startswith("movenet"))
        ['movenet_lightning', 'movenet_thunder']
    """
    from posesyn.geometry.devices import moved, resolve_device  # loads torch, which a list of names need not

    if not isinstance(name, str):
        raise InputError("load_detector takes a name", expected="e.g. 'movenet_thunder'", got=type(name).__name__,
                         fix="a detector that you have needs no loading: pass it on as it is")  # fmt: skip
    place, where = resolve_device(device), f"load_detector('{name}')"
    detector = DETECTORS.make(name, checkpoint, where=where)
    if not callable(getattr(detector, "detect", None)) or not isinstance(getattr(detector, "skeleton", None), str):
        raise InputError(
            f"detector '{name}' is no KeypointDetector",
            where=where,
            expected="an object with `skeleton` and `detect(images, boxes_xyxy)`",
            got=type(detector).__name__,
        )
    return moved(detector, place)
