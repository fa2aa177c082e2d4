"""SemGCN without non-local blocks (Zhao et al. 2019), as PoseAug uses it (poseaug.md section 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn import skeletons
from posesyn.estimators.lifters.lifter import JOINTS, SKELETON, Lifter, check_options

_GAIN = 1.414


def _neighbours() -> Tensor:
    """(16, 16) bool, self-loops included."""
    mask = torch.eye(JOINTS, dtype=torch.bool)
    for parent, child in skeletons.get(SKELETON).bones:
        mask[parent, child] = mask[child, parent] = True
    return mask


class _GraphConv(nn.Module):
    """out = (A⊙I)(x W0) + (A⊙(1-I))(x W1) + b; A is the row softmax of learned numbers over neighbours and self."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        mask = _neighbours()
        self.W = nn.Parameter(torch.empty(2, inputs, outputs))
        self.e = nn.Parameter(torch.ones(1, int(mask.sum())))
        bound = 1 / math.sqrt(outputs)
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        nn.init.xavier_uniform_(self.W, gain=_GAIN)
        rows, columns = torch.nonzero(mask, as_tuple=True)
        self.register_buffer("places", rows * JOINTS + columns, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 16, inputs) → (B, 16, outputs)."""
        logits = x.new_full((JOINTS * JOINTS,), -math.inf).index_put((self.places,), self.e[0])
        weights = logits.view(JOINTS, JOINTS).softmax(1)
        own = weights.diagonal()
        others = weights - torch.diag(own)
        # One product for both weights; neighbours are mixed before or after it, whichever moves fewer numbers.
        inputs, outputs = self.W.shape[1:]
        if inputs < outputs:
            stacked = torch.cat((own[:, None] * x, others @ x), -1)
            return torch.addmm(self.bias, stacked.flatten(0, 1), self.W.flatten(0, 1)).view(*x.shape[:2], outputs)
        both = x.flatten(0, 1) @ self.W.permute(1, 0, 2).flatten(1)
        own_part, other_part = both.view(*x.shape[:2], 2, outputs).unbind(2)
        return own[:, None] * own_part + others @ other_part + self.bias


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.gconv, self.bn, self.dropout = _GraphConv(inputs, outputs), nn.BatchNorm1d(outputs), dropout

    def forward(self, x: Tensor) -> Tensor:
        x = self.gconv(x)
        x = functional.relu(self.bn(x.flatten(0, 1)), inplace=True).view_as(x)
        # The official block applies ReLU, dropout, ReLU; the second ReLU changes nothing.
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


class _Residual(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.gconv1, self.gconv2 = _Block(width, width, dropout), _Block(width, width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gconv2(self.gconv1(x))


class SemGCNLifter(Lifter):
    """Graph convolutions over the 16 joints; predicts all of them, the root included.

    Args:
        stages: Residual stages.
        width: Channels.
        dropout: As published 0.
    """

    name = "semgcn"

    def __init__(self, stages: int = 4, width: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        check_options(stages, width, dropout, "SemGCNLifter")
        self.stages, self.width, self.dropout = stages, width, dropout
        self.gconv_input = nn.Sequential(_Block(2, width, dropout))
        self.gconv_layers = nn.Sequential(*(_Residual(width, dropout) for _ in range(stages)))
        self.gconv_output = _GraphConv(width, 3)

    def options(self) -> dict[str, Any]:
        return {"stages": self.stages, "width": self.width, "dropout": self.dropout}

    def _lift(self, keypoints: Tensor) -> Tensor:
        return self.gconv_output(self.gconv_layers(self.gconv_input(keypoints)))
