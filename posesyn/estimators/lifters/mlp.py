"""Lifters of fully connected residual blocks: the MLP of Martinez et al. and VideoPose3D on single frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from posesyn.estimators.lifters.lifter import JOINTS, Lifter, check_options, normalised_linear, with_zero_root


class _Stage(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1, self.batch_norm1 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.w2, self.batch_norm2 = nn.Linear(width, width), nn.BatchNorm1d(width)


class MLPLifter(Lifter):
    """32 → ``width``, residual stages of two layers, → 45; the root is zero.

    Args:
        stages: 2 as published with PoseAug.
        width: Channels.
        dropout: Share dropped after every hidden layer.
    """

    name = "mlp"

    def __init__(self, stages: int = 2, width: int = 1024, dropout: float = 0.25) -> None:
        super().__init__()
        check_options(stages, width, dropout, "MLPLifter")
        self.dropout = dropout
        self.w1, self.batch_norm1 = nn.Linear(2 * JOINTS, width), nn.BatchNorm1d(width)
        self.linear_stages = nn.ModuleList(_Stage(width) for _ in range(stages))
        self.w2 = nn.Linear(width, 3 * (JOINTS - 1))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def options(self) -> dict[str, Any]:
        return {"stages": len(self.linear_stages), "width": self.w1.out_features, "dropout": self.dropout}

    def _lift(self, keypoints: Tensor) -> Tensor:
        x = self._layer(self.w1, self.batch_norm1, keypoints.flatten(1))
        for stage in self.linear_stages:
            hidden = self._layer(stage.w1, stage.batch_norm1, x)
            x = x + self._layer(stage.w2, stage.batch_norm2, hidden)
        return with_zero_root(self.w2(x).unflatten(1, (JOINTS - 1, 3)))

    def _layer(self, linear: nn.Linear, norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
        return normalised_linear(x, linear.weight, linear.bias, norm, self.dropout)


class VideoPoseLifter(Lifter):
    """The temporal model with filter widths of one.

    A convolution of width one over one frame is a matrix product, and that is how it is computed: the weights keep the
    official shape (out, in, 1), the activations stay (B, channels).

    Args:
        stages: Residual stages of two layers.
        width: Channels.
        dropout: Share dropped after every hidden layer.
    """

    name = "videopose"

    def __init__(self, stages: int = 4, width: int = 1024, dropout: float = 0.25) -> None:
        super().__init__()
        check_options(stages, width, dropout, "VideoPoseLifter")
        self.stages, self.width, self.dropout = stages, width, dropout
        self.expand_bn = nn.BatchNorm1d(width, momentum=0.1)
        self.shrink = nn.Conv1d(width, 3 * (JOINTS - 1), 1)
        self.expand_conv = nn.Conv1d(2 * JOINTS, width, 1, bias=False)
        self.layers_conv = nn.ModuleList(nn.Conv1d(width, width, 1, bias=False) for _ in range(2 * stages))
        self.layers_bn = nn.ModuleList(nn.BatchNorm1d(width, momentum=0.1) for _ in range(2 * stages))

    def options(self) -> dict[str, Any]:
        return {"stages": self.stages, "width": self.width, "dropout": self.dropout}

    def _lift(self, keypoints: Tensor) -> Tensor:
        x = self._layer(self.expand_conv, self.expand_bn, keypoints.flatten(1))
        for stage in range(self.stages):
            first, second = 2 * stage, 2 * stage + 1
            hidden = self._layer(self.layers_conv[first], self.layers_bn[first], x)
            x = x + self._layer(self.layers_conv[second], self.layers_bn[second], hidden)
        out = functional.linear(x, self.shrink.weight[..., 0], self.shrink.bias)
        return with_zero_root(out.unflatten(1, (JOINTS - 1, 3)))

    def _layer(self, conv: nn.Conv1d, norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
        return normalised_linear(x, conv.weight[..., 0], None, norm, self.dropout)
