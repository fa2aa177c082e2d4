"""Text-to-motion token transformer in the design of T2M-GPT (Mael-zys/T2M-GPT, Apache-2.0), written anew.

Attribute names follow the official state dict, so that official checkpoints load strictly. New is the
cache of keys and values, with which :mod:`~posesyn.synthesis.motion.prior.sampling` takes one step per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.storage.checkpoints import load_into, load_weights

HEAD_WIDTH = 64  # columns of an attention head in official files


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes. The defaults are the published model (T2M-GPT README: 9 base + 9 head blocks, 228.4 M parameters).

    Attributes:
        codes: Size of the codebook; token ``codes`` is END and ``codes + 1`` is padding.
        width: Width of the residual stream.
        text_dim: Size of the text embedding.
        block_size: Positions, the text's included; at most ``block_size - 1`` tokens can exist.
        layers: Blocks per half.
        heads: Attention heads.
        dropout: Dropout rate of embeddings, attention and residual branches.
        mlp_factor: Hidden width of the MLP in units of ``width``.
    """

    codes: int = 512
    width: int = 1024
    text_dim: int = 512
    block_size: int = 51
    layers: int = 9
    heads: int = 16
    dropout: float = 0.1
    mlp_factor: int = 4

    @property
    def end(self) -> int:
        return self.codes

    @property
    def pad(self) -> int:
        return self.codes + 1

    @property
    def max_tokens(self) -> int:
        return self.block_size - 1


def official_sizes(weights: Mapping[str, Tensor]) -> TransformerConfig:
    """The sizes of a model, read off its weights. The file does not say how many heads it has: as in the published
    model (1024 / 16), 64 columns each. What is absent keeps the published size, so that loading names it.
    """

    def shape(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = weights.get(name)
        return default if value is None or value.ndim != len(default) else tuple(value.shape)

    plain = TransformerConfig()
    tokens, width = shape("trans_base.tok_emb.weight", (plain.codes + 2, plain.width))
    blocks = {name.split(".")[2] for name in weights if name.startswith("trans_base.blocks.")}
    hidden = shape("trans_base.blocks.0.mlp.0.weight", (plain.mlp_factor * width, width))[0]
    return TransformerConfig(
        codes=max(tokens - 2, 1),
        width=width,
        text_dim=shape("trans_base.cond_emb.weight", (width, plain.text_dim))[1],
        block_size=shape("trans_base.pos_embedding.weight", (plain.block_size, width))[0],
        layers=len(blocks) or plain.layers,
        heads=max(width // HEAD_WIDTH, 1),
        mlp_factor=max(hidden // width, 1),
    )


# Rows and weights for which the transposed product of :func:`_linear` was measured to be faster (our own choice).
_NARROW = range(4, 129)
_LARGE = 1 << 19


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)``. Few rows times a large weight run a third faster on a CPU as ``weight @ x.T``: the matrix product
    blocks over the long side then. Sampling only; gradients take the usual way."""
    usual = torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling()
    if usual or torch.is_autocast_enabled("cpu") or layer.weight.numel() < _LARGE:
        return layer(x)
    rows = x.numel() // x.shape[-1]
    if rows not in _NARROW:
        return layer(x)
    product = torch.addmm(layer.bias[:, None], layer.weight, x.reshape(rows, -1).t())
    return product.t().contiguous().view(*x.shape[:-1], -1)


class KeyValueCache:
    """Keys and values of all blocks for the positions seen so far; (blocks, R, heads, block_size, head width)."""

    def __init__(self, config: TransformerConfig, rows: int, like: Tensor) -> None:
        shape = (2 * config.layers, rows, config.heads, config.block_size, config.width // config.heads)
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        self.length = 0

    def append(self, block: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new positions of a block and returns all of its positions up to now."""
        stop = self.length + key.shape[2]
        self.keys[block, :, :, self.length : stop] = key
        self.values[block, :, :, self.length : stop] = value
        return self.keys[block, :, :, :stop], self.values[block, :, :, :stop]

    def select(self, rows: Tensor) -> None:
        """Keeps some rows only."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]


class _Attention(nn.Module):
    mask: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.resid_drop = nn.Dropout(config.dropout)
        # A buffer of the official files.
        self.register_buffer("mask", torch.ones(config.block_size, config.block_size).tril()[None, None])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, cache: KeyValueCache | None, block: int) -> Tensor:
        query, key, value = (self._split(_linear(layer, x)) for layer in (self.query, self.key, self.value))
        start = 0 if cache is None else cache.length
        if cache is not None:
            key, value = cache.append(block, key, value)
        stop = start + x.shape[1]
        allowed = None if x.shape[1] == 1 else self.mask[:, :, start:stop, :stop] > 0
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
        return self.resid_drop(_linear(self.proj, mixed.transpose(1, 2).flatten(2)))


class _Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, inner = config.width, config.mlp_factor * config.width
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)
        self.attn = _Attention(config)
        self.mlp = nn.Sequential(
            nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width), nn.Dropout(config.dropout)
        )

    def forward(self, x: Tensor, cache: KeyValueCache | None, block: int) -> Tensor:
        x = x + self.attn(self.ln1(x), cache, block)
        wide, activation, narrow, dropout = self.mlp
        return x + dropout(_linear(narrow, activation(_linear(wide, self.ln2(x)))))


class _PositionTable(nn.Module):
    """Fixed sine/cosine table (positions, 1, width): even columns sine, odd columns cosine."""

    embed: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angle = torch.arange(positions)[:, None] * rate
        self.register_buffer("embed", torch.stack([angle.sin(), angle.cos()], -1).reshape(positions, 1, width))


class _Base(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(config.codes + 2, config.width)
        self.cond_emb = nn.Linear(config.text_dim, config.width)
        self.pos_embedding = nn.Embedding(config.block_size, config.width)  # never used, but part of official files
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.pos_embed = _PositionTable(config.block_size, config.width)


class _Head(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.codes + 1, bias=False)


class MotionTransformer(nn.Module):
    """Predicts the next motion token from a text embedding and the tokens so far."""

    def __init__(self, config: TransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config or TransformerConfig()
        self.trans_base = _Base(self.config)
        self.trans_head = _Head(self.config)
        self.apply(_initialise)
        self.trans_base.pos_embedding.requires_grad_(False)
        self._compiled: Callable[..., Tensor] | None = None

    @classmethod
    def from_official(cls, path: str | Path, config: TransformerConfig | None = None) -> MotionTransformer:
        """Reads an official T2M-GPT file, ``{"trans": state_dict}``, without running code from it.

        Args:
            path: The file.
            config: Its sizes; None reads them off its weights (:func:`official_sizes`).

        Raises:
            CheckpointError: Keys are missing, unexpected or of another shape; all are listed.
            FileError, UnsafeFileError: The file is missing, damaged or holds more than tensors.
        """
        weights = load_weights(path, key="trans")
        model = cls(config or official_sizes(weights))
        load_into(model, weights, where=path)
        return model.eval()

    def config_dict(self) -> dict[str, int | float]:
        return asdict(self.config)

    def forward(self, codes: Tensor | None, text_embedding: Tensor) -> Tensor:
        """(B, N) tokens and (B, text_dim) → (B, N + 1, codes + 1) scores of token k given the text and tokens < k."""
        return self._step(text_embedding, codes, None)

    def _step(self, text_embedding: Tensor | None, codes: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """Scores at the new positions: the text's (if given), then those of ``codes``."""
        base, head = self.trans_base, self.trans_head
        parts = [] if text_embedding is None else [base.cond_emb(text_embedding)[:, None]]
        if codes is not None and codes.shape[1]:
            parts.append(base.tok_emb(codes))
        x, start = torch.cat(parts, 1), 0 if cache is None else cache.length
        if start + x.shape[1] > self.config.block_size:
            expected, got = f"at most {self.config.max_tokens}", start + x.shape[1] - 1
            what = "too many motion tokens for the transformer"
            raise InputError(what, where="MotionTransformer", expected=expected, got=got)
        x = base.drop(x + base.pos_embed.embed[start : start + x.shape[1], 0])
        for index, block in enumerate([*base.blocks, *head.blocks]):
            x = block(x, cache, index)
        if cache is not None:
            cache.length += x.shape[1]
        return head.head(head.ln_f(x))

    def step_function(self, compiled: bool = False) -> Callable[..., Tensor]:
        """The step of sampling: (text embedding or None, codes, cache) → scores; compiled once if asked for."""
        if not compiled:
            return self._step
        if self._compiled is None:
            # Not a submodule; positions differ at every step, so shapes must be symbols.
            self._compiled = torch.compile(self._step, dynamic=True)
        return self._compiled


def _initialise(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases (T2M-GPT)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
