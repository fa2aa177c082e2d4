"""The tokeniser beyond its first codebook: a closed-form start, and the training of the residual codes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.interfaces import TextEncoder
from posesyn.synthesis.motion.prior.quantizer import (
    EMAQuantizer,
    ResidualConfig,
    ResidualQuantizer,
    ResidualTransformer,
)
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE
from posesyn.training.prior.modules import Schedule, SeededModule

# Weight of each normalised feature in the squared error: positions count 1. The yaw step counts 5, because its errors
# add up over the motion; rotations and velocities little, because joints are recovered from positions.
_GROUP_WEIGHTS = ((0, 1, 5.0), (1, 3, 1.0), (3, 4, 2.0), (4, 67, 1.0), (67, 193, 0.15), (193, 263, 0.2))


MOST_POINTS = 100_000  # for one codebook, to keep the time down


def feature_weights() -> Tensor:
    """(263,) weights of the normalised features."""
    weights = torch.empty(263)
    for start, stop, weight in _GROUP_WEIGHTS:
        weights[start:stop] = weight
    return weights


@torch.no_grad()
def start_from_data(vqvae: MotionVQVAE, patches: Tensor, rounds: int = 10, seed: int = 0) -> None:
    """Sets the linear path to the principal components of ``patches`` and the codebooks to k-means of what is left.

    The last convolutions of encoder and decoder become zero, so that training starts at the linear solution.

    Args:
        vqvae: With ``config.linear``.
        patches: (N, 4, 263) normalised frames of one token each, N at least the number of codes and of 4 * 263.
        rounds: Of Lloyd's algorithm.
        seed: Of the first centres.
    """
    config = vqvae.config
    step, dims = config.frames_per_token, config.features
    if not config.linear:
        raise InputError("the tokeniser has no linear path", where="start_from_data", fix="VQVAEConfig(linear=True)")
    if patches.shape[1:] != (step, dims) or len(patches) < max(config.codes, config.code_dim):
        raise InputError(
            "too few or misshapen patches",
            where="start_from_data",
            expected=f"(N >= {max(config.codes, config.code_dim)}, {step}, {dims})",
            got=tuple(patches.shape),
        )
    weights = feature_weights() if dims == 263 else torch.ones(dims)
    flat = (patches * weights).flatten(1)
    mean = flat.mean(0)
    flat = flat - mean
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    basis = vectors.flip(1)[:, : config.code_dim]  # (4 D, C), largest first
    scale = float((values.flip(0)[: config.code_dim].sum() / config.code_dim).sqrt())  # codes of unit size
    linear = vqvae.vqvae.linear
    forward = (basis.T / scale).view(-1, step, dims)
    linear.encoder.weight.copy_((forward * weights).transpose(1, 2))
    linear.encoder.bias.copy_(-(mean @ basis) / scale)
    linear.decoder.weight.copy_(((basis.T * scale).view(-1, step, dims) / weights).transpose(1, 2))
    # One bias for all four frames: they have the same mean but for chance.
    linear.decoder.bias.copy_((mean.view(step, dims) / weights).mean(0))
    ends = [vqvae.vqvae.decoder.model[-1]]
    if config.convolutional_encoder:
        ends.append(vqvae.vqvae.encoder.model[-1])
    for last in ends:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    generator = torch.Generator().manual_seed(seed)
    rest = flat @ basis / scale
    quantizer = vqvae.vqvae.quantizer
    for layer in [quantizer] if isinstance(quantizer, EMAQuantizer) else quantizer.layers:
        some = rest[torch.randperm(len(rest), generator=generator)[:MOST_POINTS]]
        layer.codebook.copy_(_k_means(some, config.codes, rounds, generator))
        layer.adopt_codebook()
        rest = rest - layer.lookup(layer.assign(rest))


def _k_means(points: Tensor, count: int, rounds: int, generator: torch.Generator) -> Tensor:
    """(count, D) centres by Lloyd's algorithm; an empty one starts again at a random point."""

    def pick(number: int) -> Tensor:
        return points[torch.randint(len(points), (number,), generator=generator)]

    centres = pick(count)
    for _ in range(rounds):
        nearest = (centres.square().sum(1) - 2 * points @ centres.T).argmin(1)
        counts = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where((counts > 0)[:, None], sums / counts.clamp_min(1)[:, None], pick(count))
    return centres


@dataclass(frozen=True)
class ResidualRecipe:
    """Our own choice throughout.

    Attributes:
        keep: Probability that the codes of a position are the true ones below the predicted level; else random.
        known_share: Share of examples in which all codes of the first 1 to 3 positions are given, as in a prefix.
    """

    schedule: Schedule = field(
        default_factory=lambda: Schedule(1e-3, warmup=50, cosine_steps=600, betas=(0.9, 0.98), weight_decay=0.02)
    )
    steps: int = 600
    batch_size: int = 48
    keep: float = 0.95
    known_share: float = 0.5
    seed: int = 0

    @classmethod
    def small_data(cls, steps: int = 600) -> ResidualRecipe:
        return cls(Schedule(1e-3, warmup=50, cosine_steps=steps, betas=(0.9, 0.98), weight_decay=0.02), steps=steps)


class MotionResidualModule(SeededModule):
    """Trains a :class:`ResidualTransformer` on the codes of a finished tokeniser and a finished text encoder.

    Batches are those of :func:`posesyn.training.prior.data.collate_tokens`.
    """

    def __init__(
        self,
        quantizer: ResidualQuantizer,
        text_encoder: TextEncoder,
        config: ResidualConfig,
        recipe: ResidualRecipe | None = None,
    ) -> None:
        super().__init__()
        self.model, self.recipe = ResidualTransformer(config), recipe or ResidualRecipe()
        # Not submodules: neither is trained or saved here.
        object.__setattr__(self, "quantizer", quantizer)
        object.__setattr__(self, "text_encoder", text_encoder)

    def on_fit_start(self) -> None:
        self.quantizer.to(self.device)

    def on_fit_end(self) -> None:
        self.quantizer.to("cpu")

    def loss(self, batch: dict, level: Tensor) -> Tensor:
        """Cross-entropy over the positions that are neither known nor padding; one codebook per row of the batch."""
        codes, config = batch["codes"], self.model.config
        rows, count = codes.shape[:2]
        with torch.no_grad():
            embedding = self.text_encoder.encode(batch["text"]).to(self.device)
        place = torch.arange(count, device=codes.device)
        valid = place < batch["length"][:, None]
        given = codes
        if self.training and self.recipe.keep < 1:
            spoilt = torch.rand(codes.shape, device=codes.device) >= self.recipe.keep
            given = torch.where(spoilt, torch.randint_like(codes, config.codes), codes)
        known_count = torch.zeros(rows, dtype=torch.int64, device=codes.device)
        if self.training:
            chosen = torch.rand(rows, device=codes.device) < self.recipe.known_share
            known_count = torch.where(chosen, torch.randint_like(known_count, 1, 4), known_count)
        known = place < torch.minimum(known_count, batch["length"] - 1)[:, None]
        books = torch.stack([layer.codebook for layer in self.quantizer.layers])
        each = torch.stack([books[i][given[..., i]] for i in range(config.quantizers)], 2)  # (B, N, Q, C)
        below = torch.arange(config.quantizers, device=codes.device) < level[:, None]
        vectors = (each * below[:, None, :, None]).sum(2)
        vectors = torch.where(known[..., None], self.quantizer.lookup(codes), vectors)
        scores = self.model(embedding, vectors, level, books, known, valid)
        target = codes.gather(2, level[:, None, None].expand(-1, count, 1))[..., 0]
        losses = functional.cross_entropy(scores.transpose(1, 2), target, reduction="none")
        used = valid & ~known
        return (losses * used).sum() / used.sum().clamp_min(1)

    def training_step(self, batch: dict, index: int) -> Tensor:
        # Low codebooks matter most: levels are drawn with weights 1 / level.
        weights = 1 / torch.arange(1.0, self.model.config.quantizers)
        level = 1 + torch.multinomial(weights, len(batch["codes"]), replacement=True).to(self.device)
        loss = self.loss(batch, level)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(level))
        return loss

    def validation_step(self, batch: dict, index: int) -> None:
        total = 0.0
        for level in range(1, self.model.config.quantizers):
            loss = self.loss(batch, torch.full((len(batch["codes"]),), level, device=self.device))
            self.log(f"val/level{level}", loss, batch_size=len(batch["codes"]))
            total = total + loss / level
        self.log("val/loss", total, prog_bar=True, batch_size=len(batch["codes"]))

    def configure_optimizers(self) -> dict:
        return self.recipe.schedule.optimizer(self.parameters())
