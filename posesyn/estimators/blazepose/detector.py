"""The person detector: 2,254 anchors over a picture of 224², for each a box and four points."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn.estimators.blazepose.layers import (
    Convolution,
    Separable,
    Stage,
    Trunk,
    doubled,
    separable_names,
    unpacked,
)

SIZE = 224
_STAGES = (Stage(24, 2, 3), Stage(40, 2, 5), Stage(80, 3, 3), Stage(112, 3, 5, 1), Stage(192, 4, 5))
# (cells per side, anchors per cell): of strides 8, 16 and three times 32, two anchors each.
_GRIDS = ((28, 2), (14, 2), (7, 6))
VALUES = 12


class _Head(nn.Module):
    """Scores or boxes of the anchors of one resolution."""

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.depthwise = Convolution((channels, channels), 3, 2, depthwise=True, relu=False)
        self.pointwise = Convolution((channels, values), relu=False)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w V"]:
        """Channels last, so that the anchors of a cell follow each other."""
        return self.pointwise(self.depthwise(maps)).permute(0, 2, 3, 1)


class _Merge(nn.Module):
    """Coarser maps, doubled and mixed, plus finer ones, then two residual blocks."""

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        super().__init__()
        self.lateral = Convolution((coarse, width))
        self.tap = Separable((fine, width), inner_relu=False)
        self.blocks = nn.ModuleList(Separable((width, width), inner_relu=False) for _ in range(2))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        # The published network doubles first; a 1 x 1 convolution would commute with that, its ReLU6 would not.
        maps = self.tap(fine) + self.lateral(doubled(coarse))
        for block in self.blocks:
            maps = block(maps)
        return maps


class DetectorNetwork(nn.Module):
    """Pictures → boxes, points and scores of all anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(16, _STAGES)
        fine, middle = self.trunk.tap_channels[2:]
        self.middle = _Merge(self.trunk.features, middle, 192)
        self.fine = _Merge(192, fine, 96)
        channels = (96 // 4, 192 // 4, self.trunk.features // 4)
        self.scores = nn.ModuleList(_Head(count, anchors) for count, (_, anchors) in zip(channels, _GRIDS))
        self.boxes = nn.ModuleList(_Head(count, VALUES * anchors) for count, (_, anchors) in zip(channels, _GRIDS))

    def forward(
        self, images: Float[Tensor, "B 3 224 224"]
    ) -> tuple[Float[Tensor, "B 2254"], Float[Tensor, "B 2254 6 2"]]:
        """Images in -1..1 → scores before the sigmoid, and six pairs in pixels of the picture (its upper left corner at
        0): centre of the box, its width and height, four points of which 0 is the middle of the hips and 1 a point of
        the circle around the whole person, above the head."""
        taps, coarse = self.trunk(images)
        middle = self.middle(coarse, taps[3])
        maps = [unpacked(level) for level in (self.fine(middle, taps[2]), middle, coarse)]
        batch = len(images)
        scores = torch.cat([head(level).reshape(batch, -1) for head, level in zip(self.scores, maps)], dim=1)
        boxes = torch.cat([head(level).reshape(batch, -1, 6, 2) for head, level in zip(self.boxes, maps)], dim=1)
        anchors = torch.from_numpy(anchor_centres()).to(boxes)
        moved = torch.ones(6, 1, dtype=boxes.dtype, device=boxes.device)
        moved[1] = 0  # width and height stand for themselves
        return scores, boxes + anchors[:, None] * moved

    def file_order(self) -> Iterator[str]:
        """Names of all layers in the order in which the published file runs them."""
        yield from self.trunk.file_order([[], [], separable_names("fine.tap"), separable_names("middle.tap")])
        for name in ("middle", "fine"):
            yield f"{name}.lateral"
            yield from separable_names(f"{name}.blocks.0", f"{name}.blocks.1")
        for number in range(len(_GRIDS)):
            yield from separable_names(f"scores.{number}", f"boxes.{number}")


@cache
def anchor_centres() -> np.ndarray:
    """(2254, 2) float32, pixels: the middle of its cell for every anchor, row by row."""
    found = []
    for cells, anchors in _GRIDS:
        middles = (np.arange(cells) + 0.5) * (SIZE / cells)
        rows, columns = np.meshgrid(middles, middles, indexing="ij")
        found.append(np.stack((columns.ravel(), rows.ravel()), axis=1).repeat(anchors, axis=0))
    return np.concatenate(found).astype(np.float32)
