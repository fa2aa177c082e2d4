"""Lightning module of the residual transformer (:mod:`posesyn.synthesis.motion.residual`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from posesyn.protocols import TextEncoder
from posesyn.synthesis.motion.quantizer import ResidualQuantizer
from posesyn.synthesis.motion.residual import ResidualConfig, ResidualTransformer
from posesyn.training.motion import Schedule, SeededModule


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

    Batches are those of :func:`posesyn.training.motion_data.collate_tokens`.
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
