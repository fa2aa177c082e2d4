"""Batch normalisation in eval mode as part of the layer before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fold(
    weight: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, bias: Tensor | None = None, channel_dim: int = 0
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that does what the layer and, after it, ``norm`` do in eval mode.

    Args:
        weight: Of a linear layer or a convolution.
        norm: Batch normalisation after it.
        bias: Of the layer; None if it has none.
        channel_dim: Dimension of the output channels: 0, or 1 for a transposed convolution.
    """
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shape = [1] * weight.ndim
    shape[channel_dim] = -1
    shift = norm.bias - norm.running_mean * scale
    return weight * scale.view(shape), shift if bias is None else shift + bias * scale
