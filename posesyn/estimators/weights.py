"""Official checkpoint files: their key names, what they may lack, and the folding of their batch normalisation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from posesyn.storage.checkpoints import load_into, load_weights


def fold(
    weight: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, bias: Tensor | None = None, channel_dim: int = 0
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that does what a linear layer or a convolution and, after it, the batch normalisation
    do in eval mode. ``channel_dim``: that of the output channels, 1 for a transposed convolution."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shape = [1] * weight.ndim
    shape[channel_dim] = -1
    shift = norm.bias - norm.running_mean * scale
    return weight * scale.view(shape), shift if bias is None else shift + bias * scale


# What torch.nn.DataParallel puts before every key.
PARALLEL_PREFIX = "module."
# Classes of configurations that Lightning files of the published networks (4D-Humans) carry; nothing of
# them is imported, they are read as plain mappings.
CONFIG_CLASSES = (
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)


@dataclass(frozen=True)
class OfficialWeights:
    """The weights of a published checkpoint by their official names, without what is to be left out and without
    ``prefix``, which is ``module.`` or nothing."""

    path: Path
    tensors: dict[str, Tensor]
    prefix: str

    @classmethod
    def read(cls, path: str | os.PathLike[str], ignored: Iterable[str] = ()) -> OfficialWeights:
        """Reads a file. No code of it runs.

        Args:
            path: Written by ``torch.save``, bare or wrapped (:data:`posesyn.storage.checkpoints.WRAPPERS`), or
                safetensors.
            ignored: Prefixes of keys that belong to licensed body models or to training.

        Raises:
            FileError, UnsafeFileError, CheckpointError: As :func:`posesyn.storage.checkpoints.load_weights`.
        """
        tensors = load_weights(path, config_classes=CONFIG_CLASSES)
        # By majority: a single key that lost or gained the prefix is a fault to be named, not another layout.
        parallel = sum(name.startswith(PARALLEL_PREFIX) for name in tensors) * 2 > len(tensors)
        prefix = PARALLEL_PREFIX if parallel else ""
        bare = {_strip(name, prefix): value for name, value in tensors.items()}
        return cls(Path(path), {n: value for n, value in bare.items() if not n.startswith(tuple(ignored))}, prefix)

    def load_into(
        self,
        module: nn.Module,
        own_name: Callable[[str], str] = str,
        official_name: Callable[[str], str] = str,
        *,
        assign: bool = False,
    ) -> None:
        """Copies all weights into a module, or none.

        Args:
            module: The network.
            own_name: Official name → name in ``module.state_dict()``.
            official_name: The way back, for messages.
            assign: See :func:`posesyn.storage.checkpoints.load_into`; floating weights become float32.

        Raises:
            CheckpointError: Missing, unexpected or wrongly shaped keys, named as in the file.
        """
        tensors = self.tensors
        if assign:
            tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}

        def shown(name: str) -> str:
            # Keys that lacked the prefix in a file of prefixed keys are kept apart by a mark, see _strip.
            return name[1:] if name.startswith(_UNPREFIXED) else self.prefix + official_name(name)

        def renamed(name: str) -> str:
            return name if name.startswith(_UNPREFIXED) else own_name(name)

        load_into(module, tensors, where=self.path, rename=renamed, shown=shown, assign=assign)


_UNPREFIXED = "\0"


def _strip(name: str, prefix: str) -> str:
    return name[len(prefix) :] if name.startswith(prefix) else _UNPREFIXED + name
