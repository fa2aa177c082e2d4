"""Lifters of graph convolutions: SemGCN and ST-GCN."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.lifters.lifter import JOINTS, SKELETON, Lifter, check_options

_GAIN = 1.414


def _neighbours() -> Tensor:
    """(16, 16) bool, self-loops included."""
    mask = torch.eye(JOINTS, dtype=torch.bool)
    for parent, child in skeletons.get(SKELETON).bones:
        mask[parent, child] = mask[child, parent] = True
    return mask


class _SemanticConv(nn.Module):
    """out = (A⊙I)(x W0) + (A⊙(1-I))(x W1) + b; A is the row softmax of learned numbers over neighbours and self."""

    places: Tensor

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


class _SemanticBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.gconv, self.bn, self.dropout = _SemanticConv(inputs, outputs), nn.BatchNorm1d(outputs), dropout

    def forward(self, x: Tensor) -> Tensor:
        x = self.gconv(x)
        x = functional.relu(self.bn(x.flatten(0, 1)), inplace=True).view_as(x)
        # The official block applies ReLU, dropout, ReLU; the second ReLU changes nothing.
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


class _Residual(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.gconv1, self.gconv2 = _SemanticBlock(width, width, dropout), _SemanticBlock(width, width, dropout)

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
        self.gconv_input = nn.Sequential(_SemanticBlock(2, width, dropout))
        self.gconv_layers = nn.Sequential(*(_Residual(width, dropout) for _ in range(stages)))
        self.gconv_output = _SemanticConv(width, 3)

    def options(self) -> dict[str, Any]:
        return {"stages": self.stages, "width": self.width, "dropout": self.dropout}

    def _lift(self, keypoints: Tensor) -> Tensor:
        return self.gconv_output(self.gconv_layers(self.gconv_input(keypoints)))


# Canonical H36M-17: the 16 joints with a joint between thorax (8) and head (9 → 10).
_PARENTS17 = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
_CENTRE17 = 7
_PAIRS17 = ((1, 4), (2, 5), (3, 6), (11, 14), (12, 15), (13, 16))
# Left arm, right arm, left leg, right leg, trunk with head.
PARTS = ((11, 12, 13), (14, 15, 16), (4, 5, 6), (1, 2, 3), (0, 7, 8, 9, 10))
_STAR = ((0, 4), (1, 4), (2, 4), (3, 4))
_STAR_PAIRS = ((0, 1), (2, 3))
_STAR_CENTRE = 4
_KINDS = 4  # self, towards the centre, away from it, left-right pairs
_EPS = 0.1  # BatchNorm1d(34, 0.1): meant as momentum, lands in eps
_INSERTED = 9


@cache
def _stack(
    count: int, edges: tuple[tuple[int, int], ...], pairs: tuple[tuple[int, int], ...], centre: int
) -> np.ndarray:
    """(4, count, count) adjacencies by kind, columns normalised over all kinds together."""
    near = np.zeros((count, count))
    for first, second in (*edges, *pairs):
        near[first, second] = near[second, first] = 1
    tree = np.full((count, count), np.inf)
    for first, second in edges:
        tree[first, second] = tree[second, first] = 1
    np.fill_diagonal(tree, 0)
    for middle in range(count):
        tree = np.minimum(tree, tree[:, middle : middle + 1] + tree[middle : middle + 1])
    distance = tree[centre]
    full = near + np.eye(count)
    normalised = full / full.sum(0, keepdims=True)
    result = np.zeros((_KINDS, count, count))
    symmetric = {*pairs, *(pair[::-1] for pair in pairs)}
    for row in range(count):
        for column in range(count):
            if not full[row, column]:
                continue
            if row == column:
                kind = 0
            elif (row, column) in symmetric:
                kind = 3
            elif distance[row] == distance[column]:
                continue  # neighbours equally far from the centre fall out of the official stack
            else:
                kind = 1 if distance[row] > distance[column] else 2
            result[kind, row, column] = normalised[row, column]
    return result.astype(np.float32)


def joint_graph() -> np.ndarray:
    """(4, 17, 17) constants of the first blocks; not in any file."""
    edges = tuple((parent, child) for child, parent in enumerate(_PARENTS17) if parent >= 0)
    return _stack(len(_PARENTS17), edges, _PAIRS17, _CENTRE17)


def part_graph() -> np.ndarray:
    """(4, 5, 5) constants of the pooled blocks."""
    return _stack(len(PARTS), _STAR, _STAR_PAIRS, _STAR_CENTRE)


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 × 1 convolution on (B, nodes, channels)."""
    return functional.linear(x, conv.weight[:, :, 0, 0], conv.bias)


def _normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch normalisation over samples and nodes of (B, nodes, channels)."""
    flat = x.flatten(0, 1)
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return functional.batch_norm(
        flat, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    ).view_as(x)


class _GraphConv(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, _KINDS * outputs, 1)
        self.outputs = outputs

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """(B, V, inputs), (4, V, V) → (B, V, outputs): out[w] = Σ_k Σ_v A[k, v, w] · conv_k(x)[v]."""
        batch, nodes, inputs = x.shape
        if inputs < self.outputs or nodes * _KINDS < 32:
            # Mixing nodes first moves 4 · inputs numbers per node, the product then sums over the kinds.
            mixed = torch.matmul(graph.permute(0, 2, 1).reshape(_KINDS * nodes, nodes), x)
            mixed = mixed.view(batch, _KINDS, nodes, inputs).transpose(1, 2).flatten(2)
            weight = self.conv.weight[:, :, 0, 0].view(_KINDS, self.outputs, inputs).transpose(0, 1).flatten(1)
            offset = graph.sum(1).T @ self.conv.bias.view(_KINDS, self.outputs)
            return functional.linear(mixed, weight) + offset
        convolved = _pointwise(self.conv, x).view(batch, nodes, _KINDS, self.outputs)
        stacked = convolved.transpose(1, 2).reshape(batch, _KINDS * nodes, self.outputs)
        return torch.matmul(graph.permute(2, 0, 1).reshape(nodes, _KINDS * nodes), stacked)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, dropout: float, *, skip: bool = True) -> None:
        super().__init__()
        self.gcn = _GraphConv(inputs, outputs)
        # Official layout: BN, ReLU, dropout, convolution, BN, dropout; only four of them hold numbers.
        first, last = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.tcn = nn.ModuleList([first, nn.Identity(), nn.Identity(), nn.Conv2d(outputs, outputs, 1), last])
        self.dropout, self.skip = dropout, skip
        if skip and inputs != outputs:
            self.residual = nn.ModuleList([nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs)])

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        kept = x
        x = functional.relu(_normalised(self.tcn[0], self.gcn(x, graph)))
        x = _normalised(self.tcn[4], _pointwise(self.tcn[3], functional.dropout(x, self.dropout, self.training)))
        x = functional.dropout(x, self.dropout, self.training)
        if self.skip:
            if hasattr(self, "residual"):
                kept = _normalised(self.residual[1], _pointwise(self.residual[0], kept))
            x = x + kept
        return functional.relu(x)


class _NonLocal(nn.Module):
    """Embedded-Gaussian attention over the nodes; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.g, self.theta, self.phi = (nn.Conv2d(width, inner, 1) for _ in range(3))
        self.W = nn.Sequential(nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width))
        nn.init.zeros_(self.W[1].weight)
        nn.init.zeros_(self.W[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        shares = (_pointwise(self.theta, x) @ _pointwise(self.phi, x).mT).softmax(-1)
        return _normalised(self.W[1], _pointwise(self.W[0], shares @ _pointwise(self.g, x))) + x


class _Network(nn.Module):
    graph: Tensor
    pool_graph: Tensor

    def __init__(self, rates: tuple[float, float, float, float], width: int) -> None:
        super().__init__()
        double, wide = 2 * width, 4 * width
        graph_rate, self.pool_rate, self.join_rate, self.last_rate = rates
        self.data_bn = nn.BatchNorm1d(2 * len(_PARENTS17), eps=_EPS)
        first = _Block(2, width, graph_rate, skip=False)
        later = _Block(width, width, graph_rate), _Block(width, double, graph_rate)
        self.st_gcn_networks = nn.ModuleList([first, *later])
        self.st_gcn_pool = nn.ModuleList([_Block(double, wide, graph_rate), _Block(wide, wide, graph_rate)])
        self.conv4 = nn.Sequential(nn.Conv2d(wide, wide, 1), nn.BatchNorm2d(wide))
        self.conv2 = nn.Sequential(nn.Conv2d(2 * wide, double, 1), nn.BatchNorm2d(double))
        self.non_local = _NonLocal(wide)
        self.fcn = nn.Sequential(nn.Identity(), nn.Conv2d(wide, 3, 1))
        self.register_buffer("graph", torch.from_numpy(joint_graph()), persistent=False)
        self.register_buffer("pool_graph", torch.from_numpy(part_graph()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 17, 2) → (B, 17, 3)."""
        x = self.data_bn(x.flatten(1)).view_as(x)
        for block in self.st_gcn_networks:
            x = block(x, self.graph)
        pooled = torch.stack([x[:, list(part)].amax(1) for part in PARTS], 1)
        for block in self.st_gcn_pool:
            pooled = block(pooled, self.pool_graph)
        whole = self._joined(self.conv4, pooled.amax(1, keepdim=True), self.pool_rate)
        parts = torch.cat((whole.expand_as(pooled), pooled), -1)
        parts = self._joined(self.conv2, parts, self.join_rate)
        spread = torch.empty_like(x)
        for row, part in enumerate(PARTS):
            spread[:, list(part)] = parts[:, row : row + 1]
        x = self.non_local(torch.cat((x, spread), -1))
        return _pointwise(self.fcn[1], functional.dropout(x, self.last_rate, self.training))

    def _joined(self, layers: nn.Sequential, x: Tensor, rate: float) -> Tensor:
        x = functional.relu(_normalised(layers[1], _pointwise(layers[0], x)))
        return functional.dropout(x, rate, self.training)


class STGCNLifter(Lifter):
    """ST-GCN on 17 nodes around the 16 joints; predicts all of them, the root included. A batch of one works too.

    Args:
        dropout: One rate for all layers (PoseAug trains with 0), or -1 for the original rates: 0.05 in graph blocks,
            0.25, 0.1 and 0.1 after them.
        width: Channels of the first two blocks, 128 as published; the later ones have two and four times as many.
    """

    name = "stgcn"

    def __init__(self, dropout: float = -1, width: int = 128) -> None:
        super().__init__()
        if dropout != -1 and not 0 <= dropout < 1:
            raise InputError("dropout must be -1 or in [0, 1)", where="STGCNLifter", got=dropout)
        if width < 1:
            raise InputError("width must be at least 1", where="STGCNLifter", got=width)
        self.dropout, self.width = dropout, width
        self.stgcn = _Network((0.05, 0.25, 0.1, 0.1) if dropout == -1 else (dropout,) * 4, width)

    def options(self) -> dict[str, Any]:
        return {"dropout": self.dropout, "width": self.width}

    def _lift(self, keypoints: Tensor) -> Tensor:
        inserted = keypoints[:, 8:10].mean(1, keepdim=True)
        nodes = torch.cat((keypoints[:, :_INSERTED], inserted, keypoints[:, _INSERTED:]), 1)
        out = self.stgcn(nodes)
        return torch.cat((out[:, :_INSERTED], out[:, _INSERTED + 1 :]), 1)
