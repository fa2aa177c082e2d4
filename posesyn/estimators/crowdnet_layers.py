"""The parts of 3DCrowdNet between its ResNet and its SMPL parameters; key names of hongsukchoi/3DCrowdNet_RELEASE."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn.estimators.batch_norm import fold
from posesyn.estimators.folded_resnet import convolve
from posesyn.estimators.joint_graph import JointGraphConv, ResidualGraphBlock, normalised_adjacency
from posesyn.estimators.joint_volume import sample_maps, sample_volume, softargmax3d
from posesyn.estimators.vposer import LATENT

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
