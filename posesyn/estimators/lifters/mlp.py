"""The fully connected lifter of Martinez et al. 2017 as PoseAug uses it (poseaug.md section 5)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

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
