"""What stands between the feature maps of a backbone and the iterative regressor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn.estimators.losses import SCORED_JOINTS


class AverageNeck(nn.Module):
    """Averages the last feature map, as HMR and SPIN do.

    Args:
        channels: Channels of the backbone's maps, finest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.features = channels[-1]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "B F"], dict[str, Tensor]]:
        """Features and nothing else."""
        return maps[-1].mean((2, 3)), {}


class JointNeck(nn.Module):
    """Finds the joints in the crop first; features are their places and the averaged last map through two layers.

    Each joint has a heat map and a depth map; its place is their expectation (integral regression, Sun et al., ECCV
    2018, which HybrIK uses as well). A small network that starts from nothing learns where joints are within minutes,
    and from there to rotations is a small step; straight from the last feature map it had hardly got beyond the
    mean pose after 70,000 crops (assets/ESTIMATOR.md). Layout and sizes are our own choice.

    Args:
        channels: Channels of the backbone's maps, finest first; the maps are merged at the finest resolution.
        width: Channels of the merged map.
        features: Width of the two layers.
        joints: First joints of ``smpl45`` to find.
    """

    def __init__(
        self, channels: Sequence[int], width: int = 64, features: int = 512, joints: int = SCORED_JOINTS
    ) -> None:
        super().__init__()
        self.features = features
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.merge = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.maps = nn.Conv2d(width, 2 * joints, 1)
        self.lift = nn.Sequential(
            nn.Linear(3 * joints + channels[-1], features), nn.ReLU(), nn.Linear(features, features), nn.ReLU()
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "B F"], dict[str, Tensor]]:
        """Features, and what was found on the way: ``heat`` (B, J, H, W) before the softmax, and ``places`` (B, J, 3):
        x and y with the borders of the crop at ±1, depth from the pelvis in metres."""
        merged = self.lateral[-1](maps[-1])
        for lateral, finer in zip(reversed(self.lateral[:-1]), reversed(maps[:-1])):
            merged = lateral(finer) + functional.interpolate(merged, size=finer.shape[-2:], mode="nearest")
        heat, depth = self.maps(self.merge(merged)).chunk(2, dim=1)
        places = expected_places(heat, depth)
        return self.features_of(places, maps[-1].mean((2, 3))), {"heat": heat, "places": places}

    def features_of(self, places: Float[Tensor, "B J 3"], pooled: Float[Tensor, "B C"]) -> Float[Tensor, "B F"]:
        """The second half: places and averaged map → features."""
        return self.lift(torch.cat((places.flatten(1), pooled), dim=1))


def expected_places(heat: Float[Tensor, "B J H W"], depth: Float[Tensor, "B J H W"]) -> Float[Tensor, "B J 3"]:
    """Soft-argmax: expectation of x, y (cell centres, borders of the map at ±1) and depth under softmax(heat)."""
    height, width = heat.shape[-2:]
    share = heat.flatten(2).softmax(-1)
    x = (torch.arange(width, device=heat.device) + 0.5) / width * 2 - 1
    y = (torch.arange(height, device=heat.device) + 0.5) / height * 2 - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = torch.stack((columns.flatten(), rows.flatten()), dim=-1).to(share)
    return torch.cat((share @ grid, (share * depth.flatten(2)).sum(-1, keepdim=True)), dim=-1)
