"""A ResNet for inference: batch normalisation folded into the convolutions, so that every map is written once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn import functional

from posesyn.estimators.batch_norm import fold


def is_foldable(trunk: nn.Module) -> bool:
    """Whether :func:`folded_forward` gives what ``trunk`` gives and no gradient is asked for.

    True for timm's plain ResNets (also as ``features_only``) in eval mode where gradients are off. A compiled trunk is
    left to its compiler.
    """
    if trunk._compiled_call_impl is not None:
        return False
    if torch.is_grad_enabled() or trunk.training or not hasattr(trunk, "layer4") or not hasattr(trunk, "conv1"):
        return False
    return isinstance(trunk.conv1, nn.Conv2d) and all(
        _is_plain(block) for number in (1, 2, 3, 4) for block in getattr(trunk, f"layer{number}")
    )


def _is_plain(block: nn.Module) -> bool:
    if type(block) not in (BasicBlock, Bottleneck) or block.se is not None:
        return False
    extras = (block.drop_block, block.aa, getattr(block, "drop_path", None))
    simple = all(extra is None or isinstance(extra, nn.Identity) for extra in extras)
    return simple and (block.downsample is None or len(block.downsample) == 2)


def folded_forward(trunk: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
    """The last feature map."""
    return folded_stages(trunk, folded_stem(trunk, images))


def folded_stem(trunk: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 64 h w"]:
    """First convolution and pooling."""
    return trunk.maxpool(_convolve(images, trunk.conv1, trunk.bn1))


def folded_stages(trunk: nn.Module, maps: Float[Tensor, "B 64 h w"]) -> Float[Tensor, "B C h w"]:
    """The four residual stages."""
    for number in (1, 2, 3, 4):
        for block in getattr(trunk, f"layer{number}"):
            maps = _residual(block, maps)
    return maps


def _residual(block: nn.Module, maps: Tensor) -> Tensor:
    shortcut = maps if block.downsample is None else _convolve(maps, *block.downsample, relu=False)
    inner = _convolve(maps, block.conv1, block.bn1)
    if isinstance(block, BasicBlock):
        return _convolve(inner, block.conv2, block.bn2, shortcut)
    return _convolve(_convolve(inner, block.conv2, block.bn2), block.conv3, block.bn3, shortcut)


def _convolve(
    maps: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d, added: Tensor | None = None, *, relu: bool = True
) -> Tensor:
    """Convolution and normalisation, then ``added``, then ReLU."""
    # Folded anew in every call: a percent or two of the time, and it can never be out of date.
    weight, bias = fold(convolution.weight, norm)
    return convolve(maps, weight, bias, convolution.stride, convolution.padding, added, relu)


# oneDNN's convolution with what follows it in the same pass over memory, as torch.compile uses it on CPUs.
_ONE_PASS = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if torch.backends.mkldnn.is_available() else None


def convolve(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    added: Tensor | None = None,
    relu: bool = True,
) -> Tensor:
    """Convolution, then ``added``, then ReLU; no gradients."""
    plain = maps.device.type == "cpu" and maps.dtype == weight.dtype == torch.float32
    if _ONE_PASS is None or not plain or torch.is_autocast_enabled("cpu"):
        result = functional.conv2d(maps, weight, bias, stride, padding)
        result = result if added is None else result.add_(added)
        return result.relu_() if relu else result
    shape = (list(padding), list(stride), [1, 1], 1)
    if added is None:
        return _ONE_PASS(maps, weight, bias, *shape, "relu" if relu else "none", [], "")
    return _ONE_PASS.binary(maps, added, weight, bias, *shape, "add", 1.0, "relu" if relu else None, [], None)
