"""Layers of 3DCrowdNet: the graph network over joints, and the decoder of VPoser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn import skeletons
from posesyn.estimators.layers import convolve, sample_maps, sample_volume, softargmax3d
from posesyn.estimators.weights import fold
from posesyn.geometry.rotations import rot6d_to_matrix

# hongsukchoi/3DCrowdNet_RELEASE, in the order of the skeleton 'graph15'.
EDGES = (
    (0, 1), (1, 3), (3, 5), (0, 2), (2, 4), (4, 6), (0, 7), (7, 8), (7, 9), (9, 11), (11, 13), (7, 10), (10, 12),
    (12, 14),
)  # fmt: skip


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
    """

    adjacency: Tensor

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


LATENT, JOINTS = 32, 21
_HIDDEN, _SLOPE = 512, 0.2


class VPoser(nn.Module):
    """Decoder 32-512-512-126 and the encoder that belongs to it (VPoser v1, with the key names of its file).

    Weights are licensed apart and come with official checkpoints only; at random the decoder is a plain two-layer
    network from latent to pose that can be trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bodyprior_enc_bn1 = nn.BatchNorm1d(3 * JOINTS)
        self.bodyprior_enc_fc1 = nn.Linear(3 * JOINTS, _HIDDEN)
        self.bodyprior_enc_bn2 = nn.BatchNorm1d(_HIDDEN)
        self.bodyprior_enc_fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.bodyprior_enc_mu = nn.Linear(_HIDDEN, LATENT)
        self.bodyprior_enc_logvar = nn.Linear(_HIDDEN, LATENT)
        self.bodyprior_dec_fc1 = nn.Linear(LATENT, _HIDDEN)
        self.bodyprior_dec_fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.bodyprior_dec_out = nn.Linear(_HIDDEN, 6 * JOINTS)

    def encode(self, pose_rotvec: Float[Tensor, "B 21 3"]) -> Float[Tensor, "B 32"]:
        """Mean of the latent; eval mode, as the prior is frozen."""
        hidden = self.bodyprior_enc_fc1(self.bodyprior_enc_bn1(pose_rotvec.flatten(1)))
        hidden = self.bodyprior_enc_bn2(functional.leaky_relu(hidden, _SLOPE))
        return self.bodyprior_enc_mu(functional.leaky_relu(self.bodyprior_enc_fc2(hidden), _SLOPE))

    def decode(self, latent: Float[Tensor, "B 32"]) -> Float[Tensor, "B 21 3 3"]:
        """Local rotations of SMPL's joints 1 to 21."""
        hidden = functional.leaky_relu(self.bodyprior_dec_fc1(latent), _SLOPE)
        hidden = functional.leaky_relu(self.bodyprior_dec_fc2(hidden), _SLOPE)
        return rot6d_to_matrix(self.bodyprior_dec_out(hidden).view(-1, JOINTS, 6), layout="interleaved")


class PosePrior(nn.Module):
    """A :class:`VPoser` under the name ``vposer``, as 3DCrowdNet's files have it; ``frozen`` weights stay in
    training."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.vposer = VPoser()
        for name, parameter in self.vposer.named_parameters():
            parameter.requires_grad_(not frozen and name.startswith("bodyprior_dec_"))

    def train(self, mode: bool = True) -> PosePrior:
        super().train(mode)
        self.vposer.eval()  # its normalisation belongs to the encoder, which is never trained here
        return self

    def forward(self, latent: Float[Tensor, "B 32"]) -> Float[Tensor, "B 21 3 3"]:
        """Decodes."""
        return self.vposer.decode(latent)


def body_pose_of(decoded: Float[Tensor, "B 21 3 3"], root: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 24 3 3"]:
    """Root, 21 joints and two resting hands."""
    hands = torch.eye(3, dtype=decoded.dtype, device=decoded.device).expand(len(decoded), 2, 3, 3)
    return torch.cat((root[:, None], decoded, hands), dim=1)


INPUT_JOINTS, GRAPH_JOINTS, VOLUME = 30, 15, 8


class HeatmapFusion(nn.Module):
    """Early features and joint heatmaps → early features."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels + INPUT_JOINTS, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(
        self, features: Float[Tensor, "B C H W"], heatmaps: Float[Tensor, "B 30 H W"]
    ) -> Float[Tensor, "B C H W"]:
        fused = torch.cat((features, heatmaps), dim=1).contiguous(memory_format=torch.channels_last)
        convolution, norm = self.conv[0], self.conv[1]
        if torch.is_grad_enabled() or self.training:
            return self.conv(fused)
        weight, bias = fold(convolution.weight, norm, convolution.bias)
        return convolve(fused, weight, bias, (1, 1), (1, 1))


class PositionNet(nn.Module):
    """Last feature map → places of the 15 graph joints in an 8 x 8 x 8 volume, and their scores."""

    def __init__(self, channels: int = 2048) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, GRAPH_JOINTS * VOLUME, 1))

    def forward(self, maps: Float[Tensor, "B C 8 8"]) -> tuple[Float[Tensor, "B 15 3"], Float[Tensor, "B 15 1"]]:
        """x, y, z in cells from 0 to 7, and the softmax value there."""
        logits = self.conv(maps).view(len(maps), GRAPH_JOINTS, VOLUME, VOLUME, VOLUME)
        places, share = softargmax3d(logits)
        return places, sample_volume(share, places)


class RotationNet(nn.Module):
    """Features at the joints, refined over the skeleton's graph → root rotation, pose latent, shape, camera."""

    def __init__(self, channels: int = 2048, hidden: int = 128, blocks: int = 4) -> None:
        super().__init__()
        adjacency = normalised_adjacency()
        layers = [ResidualGraphBlock(adjacency, hidden) for _ in range(blocks)]
        self.graph_block = nn.Sequential(JointGraphConv(adjacency, channels + 4, hidden), *layers)
        size = GRAPH_JOINTS * hidden
        self.root_pose_out = nn.Sequential(nn.Linear(size, 6))
        self.pose_out = nn.Sequential(nn.Linear(size, LATENT))
        self.shape_out = nn.Sequential(nn.Linear(size, 10))
        self.cam_out = nn.Sequential(nn.Linear(size, 3))

    @property
    def adjacency(self) -> Tensor:
        """(15, 15) normalised adjacency."""
        return self.graph_block[0].adjacency

    def forward(
        self, maps: Float[Tensor, "B C 8 8"], places: Float[Tensor, "B 15 3"], scores: Float[Tensor, "B 15 1"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Root 6D (B, 6), latent (B, 32), betas (B, 10), raw camera (B, 3)."""
        features = sample_maps(maps, places[..., :2].detach())
        joints = self.graph_block(torch.cat((features, places, scores), dim=-1)).flatten(1)
        return self.root_pose_out(joints), self.pose_out(joints), self.shape_out(joints), self.cam_out(joints)
