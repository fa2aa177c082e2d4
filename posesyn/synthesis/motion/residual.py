"""Fills in the codes of the second and later codebooks, given text and the codes of the first.

The idea is MoMask's residual transformer (Guo et al. 2024): one network that sees all positions at once and predicts
one codebook after the other. For little data it works on the code vectors themselves (our own choice): input is the sum
of the vectors known so far, output a vector whose distance to the codes gives their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from posesyn.errors import InputError
from posesyn.synthesis.motion.quantizer import ResidualQuantizer


@dataclass(frozen=True)
class ResidualConfig:
    """Sizes; all our own choice.

    Attributes:
        quantizers, codes, code_dim: Those of the tokeniser.
        text_dim: Size of the text embedding.
        width, layers, heads, dropout: Of the transformer (pre-LayerNorm, GELU, MLP of 4 widths).
        max_tokens: Longest motion.
    """

    quantizers: int
    codes: int = 512
    code_dim: int = 128
    text_dim: int = 128
    width: int = 192
    layers: int = 3
    heads: int = 6
    dropout: float = 0.2
    max_tokens: int = 50


class ResidualTransformer(nn.Module):
    """Predicts the codes of codebook ``level`` from the sum of the vectors of the codebooks before it."""

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.code_in = nn.Linear(config.code_dim, width)
        self.text_in = nn.Linear(config.text_dim, width)
        self.positions = nn.Parameter(torch.randn(config.max_tokens + 1, width) * 0.02)
        self.levels = nn.Embedding(config.quantizers, width)
        self.known = nn.Embedding(2, width)
        nn.init.normal_(self.levels.weight, std=0.02)
        nn.init.normal_(self.known.weight, std=0.02)
        block = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.code_out = nn.Linear(width, config.code_dim)
        self.sharpness = nn.Parameter(torch.zeros(config.quantizers))
        self.bias = nn.Parameter(torch.zeros(config.quantizers, config.codes))

    def config_dict(self) -> dict[str, Any]:
        return asdict(self.config)

    @torch.no_grad()
    def start_from(self, codebooks: Tensor, usage: Tensor) -> None:
        """Sets sharpness and bias so that an output of zero gives each codebook's frequencies. Call it before training.

        Args:
            codebooks: (quantizers, codes, code_dim).
            usage: (quantizers, codes) how often each code occurs.
        """
        energy = codebooks.square().sum(2)
        self.sharpness.copy_((4 / energy.mean(1)).log())
        self.bias.copy_(((usage + 1) / (usage + 1).sum(1, keepdim=True)).log() + energy * self.sharpness.exp()[:, None])
        nn.init.zeros_(self.code_out.weight)
        nn.init.zeros_(self.code_out.bias)

    def forward(
        self,
        text_embedding: Tensor,
        vectors: Tensor,
        level: Tensor,
        codebooks: Tensor,
        known: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Scores of the codes of one codebook per row.

        Args:
            text_embedding: (B, text_dim).
            vectors: (B, N, code_dim) sums of the code vectors of the codebooks below ``level``; of all codebooks where
                ``known``.
            level: (B,) codebooks to predict, 1 .. quantizers - 1.
            codebooks: (quantizers, codes, code_dim) tables of the tokeniser.
            known: (B, N) bool, positions whose codes are given.
            valid: (B, N) bool, False for padding at the end.

        Returns:
            (B, N, codes), -(distance to the code)^2 times a learned sharpness, plus a learned bias.
        """
        rows, count = vectors.shape[:2]
        if count > self.config.max_tokens:
            raise InputError(
                "too many motion tokens",
                where="ResidualTransformer",
                expected=f"at most {self.config.max_tokens}",
                got=count,
            )
        flags = vectors.new_zeros(rows, count, dtype=torch.int64) if known is None else known.long()
        x = torch.cat([self.text_in(text_embedding)[:, None], self.code_in(vectors) + self.known(flags)], 1)
        x = x + self.positions[: count + 1] + self.levels(level)[:, None]
        padding = None
        if valid is not None:
            padding = ~torch.cat([valid.new_ones(rows, 1), valid], 1)
        out = self.code_out(self.blocks(x, src_key_padding_mask=padding)[:, 1:])
        books = codebooks[level]  # (B, K, C)
        # |out|^2 is the same for all codes.
        near = 2 * out @ books.transpose(1, 2) - books.square().sum(2)[:, None]
        return near * self.sharpness[level].exp()[:, None, None] + self.bias[level][:, None]

    @torch.no_grad()
    def fill(
        self,
        text_embedding: Tensor,
        codes: Sequence[Tensor],
        prefixes: Sequence[Tensor],
        quantizer: ResidualQuantizer,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Completes sampled motions.

        Args:
            text_embedding: (B, text_dim).
            codes: B tensors (N_i,), codes of the first codebook.
            prefixes: B tensors (P_i, quantizers): codes of the first P_i positions, which stay as they are; a prefix
                of first codes only, (P_i,), is completed as the rest is.
            quantizer: The tokeniser's.
            temperature: 0 takes the best code; else codes are drawn with the scores divided by it.
            seeds: One per motion, for drawing; a motion does not depend on the others.

        Returns:
            B tensors (N_i, quantizers).
        """
        config = self.config
        lengths = [len(row) for row in codes]
        rows, count = len(codes), max(lengths, default=0)
        if count == 0:
            return [row.new_zeros(0, config.quantizers) for row in codes]
        device = self.positions.device
        filled = torch.zeros(rows, count, config.quantizers, dtype=torch.int64, device=device)
        known = torch.zeros(rows, count, dtype=torch.bool, device=device)
        for i, (row, prefix) in enumerate(zip(codes, prefixes)):
            filled[i, : len(row), 0] = row
            if prefix.ndim == 2 and len(prefix):
                filled[i, : len(prefix)] = prefix.to(device)
                known[i, : len(prefix)] = True
        valid = torch.arange(count, device=device) < torch.tensor(lengths, device=device)[:, None]
        books = torch.stack([layer.codebook for layer in quantizer.layers])
        dice = None
        if temperature > 0:
            dice = torch.stack([_noise(seed, count, config.codes) for seed in seeds or range(rows)]).to(device)
        for level in range(1, config.quantizers):
            partial = quantizer.lookup(filled[..., :level])
            vectors = torch.where(known[..., None], quantizer.lookup(filled), partial)
            levels = torch.full((rows,), level, device=device)
            scores = self(text_embedding, vectors, levels, books, known, valid)
            if dice is not None:  # the Gumbel trick, the same noise at every level: an own stream per level costs more
                scores = scores / temperature + dice.roll(level, 2)
            filled[..., level] = torch.where(known, filled[..., level], scores.argmax(2))
        return [filled[i, :length] for i, length in enumerate(lengths)]


def _noise(seed: int, count: int, codes: int) -> Tensor:
    """(count, codes) Gumbel noise of a stream of its own."""
    uniform = torch.rand(count, codes, generator=torch.Generator().manual_seed(int(seed)))
    return -(-uniform.clamp(1e-9, 1 - 1e-7).log()).log()
