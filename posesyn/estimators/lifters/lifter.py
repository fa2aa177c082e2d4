"""Lifters: by name, from files, and what all of them share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.weights import fold
from posesyn.registry import Registry
from posesyn.storage.checkpoints import load_into, load_metadata, load_weights, save_weights

JOINTS = 16
SKELETON = "poseaug16"
# Entries of the official files: lifter trained alone, lifter trained with PoseAug (jfzhang95/PoseAug).
_ENTRIES = ("model_pos", "state_dict")


class Lifter(nn.Module):
    """2D poses (B, 16, 2), normalised to the image width, → root-relative 3D poses (B, 16, 3) in metres.

    Joint order ``poseaug16``. The image is 2 wide and 2 h/w high, its middle at the origin.
    """

    name: ClassVar[str]

    def forward(self, keypoints: Tensor) -> Tensor:
        """(B, 16, 2) → (B, 16, 3) metres.

        Raises:
            InputError: Not 16 joints.
        """
        if keypoints.ndim != 3 or tuple(keypoints.shape[1:]) != (JOINTS, 2):
            raise InputError(
                f"a lifter needs keypoints (B, {JOINTS}, 2) in the order '{SKELETON}'",
                where=f"lifter '{self.name}'",
                got=tuple(keypoints.shape),
                fix="convert them with skeletons.convert(points, source, 'poseaug16'); 17 joints lose Neck/Nose",
            )
        return self._lift(keypoints)

    def _lift(self, keypoints: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define _lift")

    def options(self) -> dict[str, Any]:
        """Arguments that rebuild the network."""
        return {}

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], **options: Any) -> Lifter:
        """The network with weights of jfzhang95/PoseAug, in eval mode; no code of the file runs.

        ``ckpt_best.pth.tar`` (``state_dict``), ``ckpt_best_*_p1.pth.tar`` (``model_pos``) or a bare state dict.

        Raises:
            FileError, UnsafeFileError: Not readable. CheckpointError: Weights of another network.
        """
        model = cls(**options)
        model.load_state(official_weights(path), where=path)
        return model.eval()

    def load_state(self, weights: Mapping[str, Tensor], where: object = None) -> None:
        """Copies weights under the official names, strictly; names the lifter they belong to if it is another.

        Raises:
            CheckpointError: Missing, unexpected or wrongly shaped keys.
        """
        bare = bare_keys(weights)
        owner = lifter_of(bare)
        if owner is not None and owner != self.name:
            fix = f"name '{owner}' (--lifter.name {owner}), or let load_lifter(path) see which it is"
            raise CheckpointError("a checkpoint belongs to another lifter", where=where, fix=fix,
                                  expected=f"weights of '{self.name}'", got=f"weights of '{owner}'")  # fmt: skip
        load_into(self, bare, where=where)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Writes the weights as safetensors; :func:`posesyn.estimators.lifters.load_lifter` reads them."""
        save_weights(path, self.state_dict(), {**(metadata or {}), "lifter": self.name, "options": self.options()})


LIFTERS: Registry[type[Lifter]] = Registry(
    "lifter",
    {
        "mlp": "posesyn.estimators.lifters.mlp:MLPLifter",
        "videopose": "posesyn.estimators.lifters.mlp:VideoPoseLifter",
        "semgcn": "posesyn.estimators.lifters.graphs:SemGCNLifter",
        "stgcn": "posesyn.estimators.lifters.graphs:STGCNLifter",
    },
    group="posesyn.lifters",
)


def make_lifter(name: str, **options: Any) -> Lifter:
    """A lifter with random weights.

    Raises:
        InputError: Unknown name or options.
    """
    kind = LIFTERS[name]
    known = inspect.signature(kind).parameters
    if unknown := sorted(options.keys() - known):
        raise InputError(f"'{name}' has no such options", where="make_lifter", expected=list(known), got=unknown)
    return kind(**options)


def load_lifter(path: str | os.PathLike[str], name: str | None = None, **options: Any) -> Lifter:
    """A lifter from a file of :meth:`Lifter.save`, of a fine-tuned ``LifterEstimator`` or of jfzhang95/PoseAug.

    Args:
        path: The file.
        name: The lifter it must hold. None takes whichever it is, which is seen from the weights.
        options: In place of those of the file, e.g. ``dropout=0``; sizes are the weights'.

    Raises:
        InputError: Unknown name or options. FileError, UnsafeFileError: Not readable. CheckpointError: No lifter in it,
            not the one named, or options of another size.
    """
    weights = bare_keys(official_weights(path))
    written, options_of_file = saved_options(path)
    found = lifter_of(weights) or (written if written in LIFTERS else None)
    if found is None:
        wanted, got = f"weights of {', '.join(LIFTERS)}", ", ".join(sorted(weights)[:5])
        raise CheckpointError("a checkpoint belongs to no known lifter", where=path, expected=wanted, got=got)
    if name is None or name == found:
        lifter = make_lifter(found, **(_sizes(found, weights) | options_of_file | options))
    else:
        lifter = make_lifter(name)  # says whose weights they are when they are put in
    lifter.load_state(weights, where=path)
    return lifter.eval()


def _sizes(name: str, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Width and number of stages, seen from the weights: official files do not say them."""

    def count(prefix: str) -> int:
        return len({key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)})

    if name == "mlp":
        return {"width": weights["w1.weight"].shape[0], "stages": count("linear_stages.")}
    if name == "videopose":
        return {"width": weights["expand_conv.weight"].shape[0], "stages": count("layers_conv.") // 2}
    if name == "semgcn":
        return {"width": weights["gconv_input.0.gconv.W"].shape[-1], "stages": count("gconv_layers.")}
    if name == "stgcn":
        return {"width": weights["stgcn.st_gcn_networks.0.gcn.conv.weight"].shape[0] // 4}
    return {}  # another package's: what it saved says them


def official_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict of a lifter file, whichever layout it has."""
    entry: CheckpointError | None = None
    for key in _ENTRIES:
        try:
            return load_weights(path, key)
        except CheckpointError as error:
            entry = entry or error
    try:
        return load_weights(path)
    except CheckpointError as error:
        wanted = f"an entry {' or '.join(_ENTRIES)}, or a bare state dict"
        raise CheckpointError("a file holds no lifter", where=path, expected=wanted, got=error.got) from entry


def bare_keys(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Without what torch.nn.DataParallel, or an estimator around the lifter, puts before every key."""
    return {key.removeprefix("module.").removeprefix("lifter."): value for key, value in weights.items()}


def saved_options(path: str | os.PathLike[str]) -> tuple[str | None, dict[str, Any]]:
    """Name and options stored by :meth:`Lifter.save`; (None, {}) for other files."""
    if not str(path).endswith(".safetensors"):
        return None, {}
    metadata = load_metadata(path)
    return metadata.get("lifter"), dict(metadata.get("options", {}))


def lifter_of(weights: Mapping[str, Any]) -> str | None:
    """Which lifter a state dict belongs to, seen from a key that only it has."""
    marks = {
        "linear_stages.0.w1.weight": "mlp",
        "expand_conv.weight": "videopose",
        "gconv_input.0.gconv.W": "semgcn",
        "stgcn.data_bn.weight": "stgcn",
    }
    return next((name for key, name in marks.items() if key in weights), None)


def with_zero_root(joints: Tensor) -> Tensor:
    """(B, 15, 3) → (B, 16, 3) with the root in front at the origin."""
    return torch.cat((joints.new_zeros(len(joints), 1, 3), joints), 1)


def dropped(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout. Shares that are multiples of 1/256, as the published 0.25, take eight decisions from one random number:
    the same distribution as ``torch.nn.functional.dropout``, whose generator costs a sixth of a step on a CPU."""
    if not share or not training:
        return x
    limit = share * 256
    if x.device.type != "cpu" or limit != int(limit):
        return functional.dropout(x, share)
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64)
    # The whole range of 64 bits: without limits random_() leaves the sign bit out.
    words.random_(-(2**63), None)
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= int(limit)
    return x * keep.to(x.dtype).mul_(1 / (1 - share))


def normalised_linear(x: Tensor, weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d, share: float) -> Tensor:
    """Linear, batch normalisation, ReLU, dropout. With the normalisation held still (eval mode) it is folded into the
    weights: one pass over the activations less, forward and backward, and the same mathematics."""
    if norm.training:
        hidden = functional.relu(norm(functional.linear(x, weight, bias)), inplace=True)
        return dropped(hidden, share, True)
    return functional.relu(functional.linear(x, *fold(weight, norm, bias)), inplace=True)


def check_options(stages: int, width: int, dropout: float, where: str) -> None:
    """Raises InputError for sizes no network can have."""
    if stages < 1 or width < 1 or not 0 <= dropout < 1:
        got = f"stages={stages}, width={width}, dropout={dropout}"
        raise InputError("a lifter needs stages >= 1, width >= 1 and dropout in [0, 1)", where=where, got=got)
