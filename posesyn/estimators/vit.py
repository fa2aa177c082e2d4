"""The plain vision transformer of ViTPose and HMR2: patches that overlap the border, no class token."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

_norm = partial(nn.LayerNorm, eps=1e-6)


class PatchEmbedding(nn.Module):
    """Image → tokens of one strided convolution with zero padding."""

    def __init__(self, patch: int, padding: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch, padding)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B dim h w"]:
        return self.proj(images)


class VisionTransformer(nn.Module):
    """Image → feature map; key names and layout of the backbone of shubham-goel/4D-Humans.

    The defaults are ViT-H as published (estimators.md section 4). The position table keeps the row of a class token
    that is not there: it is added to every token.

    Args:
        image_size: (height, width) in pixels.
        patch, padding: Of the patch convolution.
        dim, depth, heads, mlp_ratio: Of the blocks.
        drop_path: Stochastic depth of the last block, rising linearly from 0 at the first.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 192),
        patch: int = 16,
        padding: int = 2,
        dim: int = 1280,
        depth: int = 32,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.55,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(patch, padding, dim)
        height, width = ((side + 2 * padding - patch) // patch + 1 for side in image_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, height * width + 1, dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=_norm) for rate in rates
        )
        self.last_norm = _norm(dim)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B dim h w"]:
        patches = self.patch_embed(images)
        tokens = patches.flatten(2).transpose(1, 2) + (self.pos_embed[:, 1:] + self.pos_embed[:, :1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.last_norm(tokens).transpose(1, 2).reshape(patches.shape)
