"""Building blocks of BlazePose's detector and landmark networks: convolutions whose normalisation is folded in.

Shapes, strides and activations are read off the published TensorFlow Lite files (``posesyn.storage.assets``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Convolution(nn.Conv2d):
    """Convolution with a bias and, if asked, ReLU6; the size stays, or halves with stride 2.

    Args:
        channels: In and out.
        kernel: Odd side of the kernel.
        depthwise: Each channel by itself.
        relu: Whether ReLU6 follows.
        late: With stride 2: pad right and below only, as TensorFlow's "same" does, instead of on all sides.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        relu: bool = True,
        late: bool = False,
    ) -> None:
        groups = channels[0] if depthwise else 1
        super().__init__(*channels, kernel, stride, padding=0 if late else kernel // 2, groups=groups)
        self.relu, self.late = relu, kernel - stride if late else 0

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The maps behind the activation."""
        if self.late:
            maps = functional.pad(maps, (0, self.late, 0, self.late))
        maps = super().forward(maps)
        return functional.relu6(maps) if self.relu else maps


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow; the input is added where the shape stays.

    Args:
        channels: In, widened, out.
        kernel, stride: Of the filter.
    """

    def __init__(self, channels: tuple[int, int, int], kernel: int, stride: int) -> None:
        super().__init__()
        first, wide, last = channels
        self.expand = Convolution((first, wide))
        self.depthwise = Convolution((wide, wide), kernel, stride, depthwise=True)
        self.project = Convolution((wide, last), relu=False)
        self.residual = stride == 1 and first == last

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """One block."""
        result = self.project(self.depthwise(self.expand(maps)))
        return result + maps if self.residual else result


class Separable(nn.Module):
    """Filters each channel (3 × 3), then mixes them (1 × 1).

    The input is added before the last activation where the number of channels stays or the stride is 2; then its
    maxima over 2 × 2 cells are taken and missing channels are zero.

    Args:
        channels: In and out.
        stride: 1 or 2.
        relu: Whether ReLU6 comes last.
        inner_relu: Whether ReLU6 stands between the two (in the landmark networks it does, in the detector not).
        residual: Whether the input is added at all.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        stride: int = 1,
        *,
        relu: bool = True,
        inner_relu: bool = True,
        residual: bool | None = None,
    ) -> None:
        super().__init__()
        first, last = channels
        self.depthwise = Convolution((first, first), 3, stride, depthwise=True, relu=inner_relu, late=stride == 2)
        self.pointwise = Convolution(channels, relu=False)
        self.stride, self.added, self.relu = stride, last - first, relu
        self.residual = (first == last or stride == 2) if residual is None else residual

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """One block."""
        result = self.pointwise(self.depthwise(maps))
        if self.residual:
            kept = functional.max_pool2d(maps, 2) if self.stride == 2 else maps
            if self.added:
                kept = functional.pad(kept, (0, 0, 0, 0, 0, self.added))
            result = result + kept
        return functional.relu6(result) if self.relu else result


@dataclass(frozen=True)
class Stage:
    """Blocks of equal width.

    Attributes:
        channels: Width.
        blocks: How many.
        kernel: Of their filters.
        stride: Of the first one.
    """

    channels: int
    blocks: int
    kernel: int
    stride: int = 2


class Trunk(nn.Module):
    """Stem, stages of inverted residuals, and a last block that is left wide.

    Args:
        stem: Channels behind the stem.
        stages: Finest first.
        narrow: Number of blocks that widen fourfold; the others sixfold.
    """

    def __init__(self, stem: int, stages: Sequence[Stage], narrow: int = 1) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "conv": Convolution((3, 24), 3, 2),
                "depthwise": Convolution((24, 24), 3, depthwise=True),
                "project": Convolution((24, stem), relu=False),
            }
        )
        self.stages = nn.ModuleList()
        self.lengths = [stage.blocks for stage in stages]
        channels, count = stem, 0
        for stage in stages:
            blocks = nn.Sequential()
            for number in range(stage.blocks):
                wide = channels * (4 if count < narrow else 6)
                stride = stage.stride if number == 0 else 1
                blocks.append(InvertedResidual((channels, wide, stage.channels), stage.kernel, stride))
                channels, count = stage.channels, count + 1
            self.stages.append(blocks)
        self.features = 6 * channels
        self.last = nn.ModuleDict(
            {
                "expand": Convolution((channels, self.features)),
                "depthwise": Convolution((self.features, self.features), 3, depthwise=True),
            }
        )
        # Channels of the maps that each halving of the resolution starts from, finest first.
        before = [stem, *(stage.channels for stage in stages)]
        self.tapped = [number for number, stage in enumerate(stages) if stage.stride == 2]
        self.tap_channels = [before[number] for number in self.tapped]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[list[Tensor], Float[Tensor, "B F h w"]]:
        """The maps before each halving of the resolution, finest first, and the wide last ones."""
        maps = images
        for layer in self.stem.values():
            maps = layer(maps)
        taps = []
        for number, blocks in enumerate(self.stages):
            if number in self.tapped:
                taps.append(maps)
            maps = blocks(maps)
        for layer in self.last.values():
            maps = layer(maps)
        return taps, maps

    def file_order(self, taps: Sequence[Sequence[str]]) -> Iterator[str]:
        """Names of the layers in the order in which the published files run them.

        Args:
            taps: For each halving, names of the layers that read the maps before it: they run behind the first layer
                of the block that halves.
        """
        yield from (f"trunk.stem.{name}" for name in self.stem)
        waiting = iter(taps)
        for number, length in enumerate(self.lengths):
            for index in range(length):
                yield f"trunk.stages.{number}.{index}.expand"
                if index == 0 and number in self.tapped:
                    yield from next(waiting)
                yield f"trunk.stages.{number}.{index}.depthwise"
                yield f"trunk.stages.{number}.{index}.project"
        yield from (f"trunk.last.{name}" for name in self.last)


def separable_names(*names: str) -> list[str]:
    """The two layers of each :class:`Separable` block."""
    return [f"{name}.{layer}" for name in names for layer in ("depthwise", "pointwise")]


def doubled(maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Twice the resolution, bilinear between cell centres."""
    return functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def unpacked(maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c h w"]:
    """Twice the resolution out of a fourth of the channels, in TensorFlow's order (rows, columns, channels)."""
    batch, channels, height, width = maps.shape
    parts = maps.view(batch, 2, 2, channels // 4, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


def by_position(weights: Mapping[str, Tensor], orders: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Renames ``PREFIX.NNN.weight`` and ``.bias`` of a fetched file to ``PREFIX.LAYER.weight`` and so on, in float32.

    Args:
        weights: Content of the file.
        orders: Prefix → its layers in the order of the file. Numbers beyond them keep their names.
    """
    names = {f"{prefix}.{number:03d}": f"{prefix}.{name}"
             for prefix, order in orders.items() for number, name in enumerate(order)}  # fmt: skip
    renamed = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{kind}"] = value.to(torch.float32)
    return renamed
