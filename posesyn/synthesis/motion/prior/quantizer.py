"""Codebooks: features to codes and back, and residual codes for what one code leaves over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.storage.seeds import rng_of

_ROWS = 2048  # vectors searched for at once, to bound memory


def check_codes(codes: Tensor, size: int, what: str, where: str) -> None:
    """:class:`InputError` where one of the codes, of any shape, lies outside a codebook of ``size``."""
    if codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < size):
        got = (int(codes.min()), int(codes.max()))
        raise InputError(f"{what} lies outside the codebook", where=where, expected=f"0 .. {size - 1}", got=got)


class EMAQuantizer(nn.Module):
    """Codebook trained by exponential moving averages, with resets of unused codes (no gradient reaches it)."""

    codebook: Tensor
    ema_sum: Tensor
    ema_count: Tensor
    initialised: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99, dead_below: float = 1.0) -> None:
        super().__init__()
        self.decay, self.dead_below, self.frozen = decay, dead_below, False
        self.register_buffer("codebook", torch.zeros(codes, dim))
        self.register_buffer("ema_sum", torch.zeros(codes, dim))
        self.register_buffer("ema_count", torch.zeros(codes))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    def assign(self, vectors: Tensor) -> Tensor:
        """(N, dim) → (N,) indices of the nearest codes, the lowest index on ties."""
        # |x|^2 does not change the order of the codes, so it is left out.
        scores = self.codebook.square().sum(1) - 2 * vectors @ self.codebook.T
        return scores.argmin(1)

    def lookup(self, codes: Tensor) -> Tensor:
        """(...) indices → (..., dim) vectors."""
        return functional.embedding(codes, self.codebook)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, dim) → straight-through codes (N, dim), indices (N,), commitment loss, perplexity."""
        if self.training and not self.initialised:
            self._initialise(vectors.detach())
        index = self.assign(vectors)
        quantised = self.lookup(index)
        commitment = functional.mse_loss(vectors, quantised.detach())
        usage = torch.bincount(index, minlength=len(self.codebook)).to(vectors.dtype)
        share = usage / usage.sum()
        perplexity = torch.exp(-(share * torch.log(share + 1e-7)).sum())
        if self.training and not self.frozen:
            self._update(vectors.detach(), index, usage)
        return vectors + (quantised - vectors).detach(), index, commitment, perplexity

    def freeze(self) -> None:
        """Training steps leave the codebook as it is from now on."""
        self.frozen = True

    def adopt_codebook(self) -> None:
        """Fills the EMA state to agree with the present codebook, for checkpoints that carry none.

        The count 1 / (1 - mu) spares codes that are not used in the first hundreds of steps; our own choice. Without
        this a resumed training would draw a new codebook from its first batch (a bug of the official code).
        """
        self.ema_count.fill_(1 / (1 - self.decay))
        self.ema_sum.copy_(self.codebook * self.ema_count[:, None])
        self.initialised.fill_(True)

    def _pick(self, vectors: Tensor, count: int) -> Tensor:
        """``count`` random vectors of the batch; tiled with jitter where the batch is smaller (T2M-GPT)."""
        if len(vectors) < count:
            vectors = vectors.repeat(-(-count // len(vectors)), 1)
            vectors = vectors + torch.randn_like(vectors) * (0.01 / vectors.shape[1] ** 0.5)
        return vectors[torch.randperm(len(vectors), device=vectors.device)[:count]]

    def _initialise(self, vectors: Tensor) -> None:
        self.codebook.copy_(self._pick(vectors, len(self.codebook)))
        self.ema_sum.copy_(self.codebook)
        self.ema_count.fill_(1.0)
        self.initialised.fill_(True)

    def _update(self, vectors: Tensor, index: Tensor, usage: Tensor) -> None:
        sums = torch.zeros_like(self.ema_sum).index_add_(0, index, vectors)
        self.ema_sum.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        self.ema_count.mul_(self.decay).add_(usage, alpha=1 - self.decay)
        alive = (self.ema_count >= self.dead_below)[:, None]
        mean = self.ema_sum / self.ema_count.clamp_min(1e-6)[:, None]
        self.codebook.copy_(torch.where(alive, mean, self._pick(vectors, len(self.codebook))))


class ResidualQuantizer(nn.Module):
    """Codebooks one after the other, each for the remainder of the ones before (RVQ as in MoMask, Guo et al. 2024).

    Args:
        quantizers: Number of codebooks, each with a table of its own.
        dropout: Share of the training steps in which only a random number of the first codebooks is used, so that
            every number of them decodes to a motion (MoMask: 0.2).
        beam: Candidates kept from codebook to codebook when codes are looked for; 1 is greedy. The first code is the
            nearest in any case, so that it means the same with any beam.
    """

    def __init__(
        self,
        quantizers: int,
        codes: int,
        dim: int,
        decay: float = 0.99,
        dead_below: float = 1.0,
        dropout: float = 0.2,
        beam: int = 1,
    ) -> None:
        super().__init__()
        self.dropout, self.beam = dropout, beam
        self.layers = nn.ModuleList(EMAQuantizer(codes, dim, decay, dead_below) for _ in range(quantizers))

    def assign(self, vectors: Tensor) -> Tensor:
        """(N, dim) → (N, quantizers) indices, the best that a beam search finds from the first codebook to the last."""
        if not len(vectors):
            return torch.zeros(0, len(self.layers), dtype=torch.int64, device=vectors.device)
        return torch.cat([self._search(part) for part in vectors.split(_ROWS)])

    def _search(self, vectors: Tensor) -> Tensor:
        first = self.layers[0].assign(vectors)
        rest = (vectors - self.layers[0].lookup(first))[:, None]  # (N, candidates, dim)
        codes = first[:, None, None]  # (N, candidates, levels so far)
        for layer in self.layers[1:]:
            book = layer.codebook
            errors = rest.square().sum(2, keepdim=True) - 2 * rest @ book.T + book.square().sum(1)
            count = min(self.beam, errors.shape[1] * errors.shape[2])
            best = errors.flatten(1).topk(count, largest=False).indices
            parent, code = best // len(book), best % len(book)
            codes = torch.cat([_rows(codes, parent), code[..., None]], 2)
            rest = _rows(rest, parent) - layer.lookup(code)
        return codes[:, 0]  # topk sorts by the error

    def lookup(self, codes: Tensor) -> Tensor:
        """(..., Q) indices of the first Q codebooks → (..., dim) sums of their vectors."""
        used = zip(self.layers, codes.unbind(-1))
        return torch.stack([layer.lookup(code) for layer, code in used]).sum(0)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, dim) → straight-through sums (N, dim), indices (N, quantizers), mean commitment loss, first perplexity.

        Indices of codebooks that dropout left out are 0.
        """
        used = len(self.layers)
        if self.training and float(torch.rand(())) < self.dropout:
            used = int(torch.randint(1, used + 1, ()))
        rest, codes, losses, perplexities = vectors, [], [], []
        for layer in self.layers[:used]:
            _, index, commitment, perplexity = layer(rest)
            rest = rest - layer.lookup(index).detach()
            codes.append(index)
            losses.append(commitment)
            perplexities.append(perplexity)
        codes += [torch.zeros_like(codes[0])] * (len(self.layers) - used)
        # vectors + (sum - vectors): the gradient passes straight through.
        return vectors - rest.detach(), torch.stack(codes, 1), torch.stack(losses).mean(), perplexities[0]

    def freeze(self) -> None:
        """See :meth:`EMAQuantizer.freeze`; dropout of codebooks goes on."""
        for layer in self.layers:
            layer.freeze()

    def adopt_codebook(self) -> None:
        """See :meth:`EMAQuantizer.adopt_codebook`."""
        for layer in self.layers:
            layer.adopt_codebook()


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """(N, A, D) and (N, B) → (N, B, D): for each row its chosen entries."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


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
            most = f"at most {self.config.max_tokens}"
            raise InputError("too many motion tokens", where="ResidualTransformer", expected=most, got=count)
        flags = vectors.new_zeros(rows, count, dtype=torch.int64) if known is None else known.long()
        x = torch.cat([self.text_in(text_embedding)[:, None], self.code_in(vectors) + self.known(flags)], 1)
        x = x + self.positions[: count + 1] + self.levels(level)[:, None]
        padding = None if valid is None else ~torch.cat([valid.new_ones(rows, 1), valid], 1)
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
    uniform = torch.from_numpy(rng_of(seed, "residual codes").random((count, codes), dtype=np.float32))
    return -(-uniform.clamp(1e-9, 1 - 1e-7).log()).log()
