"""Graph convolutions over the 15 joints of 3DCrowdNet, all joints in one matrix product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn import skeletons

# estimators.md section 2.2, in the order of the skeleton 'graph15'.
EDGES = (
    *((0, 1), (1, 3), (3, 5), (0, 2), (2, 4), (4, 6), (0, 7), (7, 8), (7, 9), (9, 11), (11, 13), (7, 10)),
    *((10, 12), (12, 14)),
)


def normalised_adjacency(edges: Sequence[tuple[int, int]] = EDGES, skeleton: str = "graph15") -> Float[Tensor, "J J"]:
    """Bones, left-right partners and self, as D^-1/2 A D^-1/2."""
    flip = skeletons.get(skeleton).flip
    adjacency = torch.eye(len(flip))
    for first, second in (*edges, *enumerate(flip)):
        adjacency[first, second] = adjacency[second, first] = 1
    scale = adjacency.sum(1).rsqrt()
    return scale[:, None] * adjacency * scale


class JointGraphConv(nn.Module):
    """A linear layer and a batch normalisation of its own for each joint, then the adjacency matrix, then ReLU.

    The weights of all joints lie in one tensor. In the state dict they are apart, as 3DCrowdNet has them:
    ``fcbn_list.JOINT.0`` is the linear layer, ``fcbn_list.JOINT.1`` the normalisation.

    Args:
        adjacency: (J, J).
        inputs, outputs: Features per joint.
    """

    def __init__(self, adjacency: Float[Tensor, "J J"], inputs: int, outputs: int) -> None:
        super().__init__()
        joints = len(adjacency)
        # No part of published files, hence not persistent.
        self.register_buffer("adjacency", adjacency.clone(), persistent=False)
        bound = inputs**-0.5  # as torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(joints, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(joints, outputs).uniform_(-bound, bound))
        self.norm = nn.BatchNorm1d(joints * outputs)
        self.register_state_dict_post_hook(_split_joints)
        self.register_load_state_dict_pre_hook(_join_joints)

    def forward(self, features: Float[Tensor, "B J I"]) -> Float[Tensor, "B J O"]:
        mixed = torch.baddbmm(self.bias[:, None], features.transpose(0, 1), self.weight.transpose(1, 2))
        normed = self.norm(mixed.transpose(0, 1).flatten(1)).view(len(features), len(self.weight), -1)
        return torch.relu(self.adjacency @ normed)


# Own name → place in the official layer, and whether the joints' values lie end to end in one dimension.
_PARTS = {
    "weight": ("0.weight", False),
    "bias": ("0.bias", False),
    "norm.weight": ("1.weight", True),
    "norm.bias": ("1.bias", True),
    "norm.running_mean": ("1.running_mean", True),
    "norm.running_var": ("1.running_var", True),
}
_COUNT = ("norm.num_batches_tracked", "1.num_batches_tracked")


def _split_joints(layer: JointGraphConv, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    joints = len(layer.weight)
    for own, (place, flat) in _PARTS.items():
        value = state.pop(prefix + own)
        rows = value.view(joints, -1) if flat else value
        state.update({f"{prefix}fcbn_list.{joint}.{place}": rows[joint] for joint in range(joints)})
    count = state.pop(prefix + _COUNT[0])
    state.update({f"{prefix}fcbn_list.{joint}.{_COUNT[1]}": count.clone() for joint in range(joints)})


def _join_joints(layer: JointGraphConv, state: dict[str, Any], prefix: str, *_: Any) -> None:
    names = range(len(layer.weight))
    for own, (place, flat) in {**_PARTS, _COUNT[0]: (_COUNT[1], False)}.items():
        keys = [f"{prefix}fcbn_list.{joint}.{place}" for joint in names]
        if not all(key in state for key in keys):
            continue  # reported by load_state_dict: what is there as unexpected, the joined tensor as missing
        values = [state.pop(key) for key in keys]
        if own == _COUNT[0]:
            state[prefix + own] = values[0]
        else:
            state[prefix + own] = torch.cat(values) if flat else torch.stack(values)


class ResidualGraphBlock(nn.Module):
    """Two graph convolutions; the input is added after the second ReLU."""

    def __init__(self, adjacency: Float[Tensor, "J J"], features: int) -> None:
        super().__init__()
        self.graph_block1 = JointGraphConv(adjacency, features, features)
        self.graph_block2 = JointGraphConv(adjacency, features, features)

    def forward(self, features: Float[Tensor, "B J F"]) -> Float[Tensor, "B J F"]:
        return features + self.graph_block2(self.graph_block1(features))
