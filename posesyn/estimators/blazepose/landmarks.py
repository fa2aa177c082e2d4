"""The landmark networks lite, full and heavy: one class, three sets of sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn.estimators.blazepose.layers import Convolution, Separable, Stage, Trunk, doubled, separable_names

SIZE = 256
# 33 landmarks, two points that place the next region, four that nothing reads.
POINTS, LANDMARKS = 39, 33


@dataclass(frozen=True)
class Sizes:
    """What the three networks differ in.

    Attributes:
        stem: Channels behind the stem.
        stages: Of the trunk.
        narrow: Blocks of the trunk that widen fourfold.
        pyramid: Channels of the merged maps.
        descent: (channels, residual blocks) at 32², 16² and 8² cells on the way from the merged maps to the landmarks;
            empty where the landmarks are read from the trunk alone.
        head: (channels, residual blocks at 4² cells, at 2² cells).
    """

    stem: int
    stages: tuple[Stage, ...]
    narrow: int
    pyramid: int
    descent: tuple[tuple[int, int], ...]
    head: tuple[int, int, int]


SIZES: dict[str, Sizes] = {
    "lite": Sizes(
        8, (Stage(16, 2, 3), Stage(24, 2, 5), Stage(40, 3, 3), Stage(56, 3, 5, 1), Stage(96, 4, 5)), 1, 32, (),
        (192, 2, 3),
    ),
    "full": Sizes(
        16, (Stage(24, 2, 3), Stage(32, 2, 5), Stage(64, 3, 3), Stage(88, 3, 5, 1), Stage(144, 4, 5)), 1, 48, (),
        (288, 4, 5),
    ),
    "heavy": Sizes(
        24, (Stage(32, 4, 3), Stage(56, 4, 5), Stage(112, 6, 3), Stage(160, 6, 5, 1), Stage(272, 8, 5)), 2, 48,
        ((96, 6), (192, 7), (288, 7)), (288, 7, 7),
    ),
}  # fmt: skip


class Pyramid(nn.Module):
    """Merges the trunk's maps at 8² to 64² cells into maps of one width at 64².

    Args:
        channels: Of the maps at 64², 32² and 16² cells.
        features: Of the wide maps at 8² cells.
        width: Of the merged maps.
    """

    def __init__(self, channels: list[int], features: int, width: int) -> None:
        super().__init__()
        self.taps = nn.ModuleList(Separable((count, width)) for count in channels)
        self.top = Separable((features, width))

    def forward(self, taps: list[Tensor], features: Float[Tensor, "B F 8 8"]) -> Float[Tensor, "B C 64 64"]:
        """``taps`` finest first."""
        merged = self.top(features)
        for tap, maps in zip(reversed(self.taps), reversed(taps)):
            merged = doubled(merged) + tap(maps)
        return merged


class Segmentation(nn.Module):
    """Where the person is, at 256². Nothing of posesyn reads it; it is here so that the network is whole.

    Args:
        pyramid: Channels of the merged maps.
        stem: Channels of the trunk's maps at 128² cells.
    """

    def __init__(self, pyramid: int, stem: int) -> None:
        super().__init__()
        self.tap = Separable((stem, 8))
        self.reduce = Separable((pyramid, 8))
        self.at_128 = nn.ModuleList(Separable((8, 8)) for _ in range(2))
        self.at_256 = nn.ModuleList(Separable((8, 8)) for _ in range(2))
        self.output = Convolution((8, 1), 3, relu=False)

    def forward(self, merged: Float[Tensor, "B C 64 64"], stem: Float[Tensor, "B D 128 128"]) -> Tensor:
        """(B, 1, 256, 256) before the sigmoid."""
        maps = doubled(self.reduce(merged)) + self.tap(stem)
        for block in self.at_128:
            maps = block(maps)
        maps = doubled(maps)
        for block in self.at_256:
            maps = block(maps)
        return self.output(maps)


class Descent(nn.Module):
    """Heavy's way from the merged maps at 64² cells down to 8²; at 32² and 16² it meets the trunk's maps again.

    Args:
        pyramid: Channels of the merged maps.
        levels: (channels, residual blocks) at each resolution.
        channels: Of the trunk's maps at 32² and 16² cells.
    """

    def __init__(self, pyramid: int, levels: tuple[tuple[int, int], ...], channels: list[int]) -> None:
        super().__init__()
        widths = [pyramid, *(width for width, _ in levels)]
        self.levels = nn.ModuleList(
            nn.Sequential(Separable((before, width), 2), *(Separable((width, width)) for _ in range(blocks)))
            for before, (width, blocks) in zip(widths, levels)
        )
        self.taps = nn.ModuleList(Separable((count, width)) for count, width in zip(channels, widths[1:]))

    def forward(self, merged: Float[Tensor, "B C 64 64"], taps: list[Tensor]) -> Float[Tensor, "B D 8 8"]:
        """``taps`` at 32² and 16² cells."""
        for number, level in enumerate(self.levels):
            merged = level(merged)
            if number < len(self.taps):
                merged = merged + self.taps[number](taps[number])
        return merged


class LandmarkNetwork(nn.Module):
    """Crops → 39 points with visibility, world joints, presence, heat maps.

    Args:
        sizes: One of :data:`SIZES`.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.trunk = Trunk(sizes.stem, sizes.stages, sizes.narrow)
        stem, *channels = self.trunk.tap_channels
        self.pyramid = Pyramid(channels, self.trunk.features, sizes.pyramid)
        self.heatmap = Convolution((sizes.pyramid, POINTS), relu=False)
        self.segmentation = Segmentation(sizes.pyramid, stem)
        self.descent = Descent(sizes.pyramid, sizes.descent, channels[1:]) if sizes.descent else None
        width, *blocks = sizes.head
        self.neck = Separable((self.trunk.features, width), residual=False)
        self.head = nn.ModuleList(
            nn.Sequential(Separable((width, width), 2), *(Separable((width, width)) for _ in range(count)))
            for count in blocks
        )
        # Kernels as large as the maps that are left: linear layers over 2 x 2 cells.
        self.points = nn.Conv2d(width, 5 * POINTS, 2)
        self.world = nn.Conv2d(width, 3 * POINTS, 2)
        self.presence = nn.Conv2d(width, 1, 2)

    def forward(self, images: Float[Tensor, "B 3 256 256"], segment: bool = False) -> dict[str, Tensor]:
        """Images in 0..1.

        ``points`` (B, 39, 3) x and y in crop pixels with the crop's upper left corner at 0 (not the centre of its first
        pixel), depth in the same unit; ``visibility`` and ``point_presence`` (B, 39) before the sigmoid; ``world``
        (B, 39, 3) metres, centred at the hips, y down, z away from the camera, in the frame of the crop; ``presence``
        (B,) probability of a person; ``heat`` (B, 39, 64, 64) before the sigmoid; with ``segment`` also
        ``segmentation`` (B, 1, 256, 256).
        """
        (stem, *taps), features = self.trunk(images)
        merged = self.pyramid(taps, features)
        maps = self.neck(features)
        if self.descent is not None:
            maps = maps + self.descent(merged, taps[1:])
        for level in self.head:
            maps = level(maps)
        points = self.points(maps).view(-1, POINTS, 5)
        found = {
            "points": points[..., :3],
            "visibility": points[..., 3],
            "point_presence": points[..., 4],
            "world": self.world(maps).view(-1, POINTS, 3),
            "presence": torch.sigmoid(self.presence(maps)).flatten(),
            "heat": self.heatmap(merged),
        }
        return {**found, "segmentation": self.segmentation(merged, stem)} if segment else found

    def file_order(self) -> Iterator[str]:
        """Names of all layers in the order in which the published files run them."""
        taps = [separable_names("segmentation.tap")]
        taps += [separable_names(f"pyramid.taps.{number}") for number in range(len(self.pyramid.taps))]
        if self.descent is not None:
            for number in range(len(self.descent.taps)):
                taps[2 + number] += separable_names(f"descent.taps.{number}")
        yield from self.trunk.file_order(taps)
        yield from separable_names("pyramid.top")
        first: list[str] = []
        rest: list[str] = []
        if self.descent is not None:
            names = [
                f"descent.levels.{n}.{i}" for n, (_, more) in enumerate(self.sizes.descent) for i in range(1 + more)
            ]
            # Its first block runs before the segmentation, the others after it.
            first, rest = separable_names(names[0]), separable_names(*names[1:])
        yield from first
        masks = [f"segmentation.{part}.{number}" for part in ("at_128", "at_256") for number in range(2)]
        yield from (*separable_names("segmentation.reduce", *masks), "segmentation.output")
        yield from rest
        yield from ("heatmap", *separable_names("neck"))
        head = [f"head.{n}.{i}" for n, more in enumerate(self.sizes.head[1:]) for i in range(1 + more)]
        yield from (*separable_names(*head), "points", "world", "presence")
