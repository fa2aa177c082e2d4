"""Lightning modules that train the motion prior: tokeniser, transformer on its tokens, transformer of residual codes.

The default recipes are the published ones (T2M-GPT README; the option files' defaults differ). ``small_data`` is for
about an hour of motion on a CPU, our own choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.interfaces import TextEncoder
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.prior.features import recover_joints
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.quantizer import ResidualConfig, ResidualQuantizer, ResidualTransformer
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQOutput, VQVAEConfig

ROOT = slice(0, 4)  # yaw step, root velocity, root height
SHORT = 8  # frames of the synthesizer's prefix
POSITIONS = slice(4, 67)  # local joint positions, the part that the "velocity" loss of T2M-GPT really covers


@dataclass(frozen=True)
class Schedule:
    """Learning rate over steps: linear warm-up, then steps down by ``factor``, or a cosine; of AdamW."""

    learning_rate: float  # peak
    warmup: int = 0  # steps until the peak
    milestones: tuple[int, ...] = ()  # steps after which the rate is multiplied by ``factor``
    factor: float = 0.05
    cosine_steps: int | None = None  # cosine to 2 % of the peak over so many steps, in place of the milestones
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def scale(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.cosine_steps is not None:
            done = min(1.0, step / self.cosine_steps)
            return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        return warm * self.factor ** sum(step >= milestone for milestone in self.milestones)

    def optimizer(self, parameters, careful=(), careful_share: float = 0.1) -> dict:
        """Lightning's optimizer settings; the ``careful`` parameters get ``careful_share`` of the learning rate."""
        groups = [{"params": [p for p in parameters if p.requires_grad], "lr": self.learning_rate}]
        if careful:
            groups.append({"params": list(careful), "lr": self.learning_rate * careful_share})
        optimizer = torch.optim.AdamW(groups, self.learning_rate, self.betas, weight_decay=self.weight_decay)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, self.scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


@dataclass(frozen=True)
class VQVAERecipe:
    """Published: batch 256, windows of 64 frames, 300k steps after 1,000 of warm-up, x 0.05 at 200k."""

    # The published warm-up is a loop of its own before the 300k.
    schedule: Schedule = field(default_factory=lambda: Schedule(2e-4, warmup=1000, milestones=(201_000,)))
    steps: int = 301_000
    batch_size: int = 256
    window: int = 64
    commitment: float = 0.02
    positions: float = 0.5
    root: float = 0.0  # extra weight of yaw step, root velocity and height; the published loss has none
    joints: float = 0.0  # weight of the joint error in metres, heading rebuilt over the window; ours
    smoothness: float = 0.0  # weight of the error of the joints' accelerations, metres per frame^2; ours
    linear_rate: float = 0.1  # learning rate of the linear path, which starts at its optimum, in shares of the rest's
    decoder_only: bool = False  # encoder and codebooks stay as they are
    seed: int = 0
    short_share: float = 0.0  # share of the steps whose windows are cut into pieces of 8 frames, as prefixes are; ours

    @classmethod
    def small_data(cls, steps: int = 1500) -> VQVAERecipe:
        """For a tokeniser that starts from :func:`~posesyn.synthesis.motion.prior.vqvae.start_from_data`."""
        schedule = Schedule(5e-4, warmup=50, cosine_steps=steps)
        return cls(
            schedule, steps=steps, batch_size=32, root=0.25, joints=4.0, smoothness=12.0, decoder_only=True,
            short_share=0.1,
        )  # fmt: skip


@dataclass(frozen=True)
class TransformerRecipe:
    """Published: batch 128, 300k steps, x 0.05 at 150k, every input token kept with probability 0.5."""

    schedule: Schedule = field(
        default_factory=lambda: Schedule(1e-4, milestones=(150_000,), betas=(0.5, 0.9), weight_decay=1e-6)
    )
    steps: int = 300_000
    batch_size: int = 128
    keep: float = 0.5  # probability that an input token is kept and not replaced by a random code (``pkeep``)
    text_dropout: float = 0.0  # share of examples with a zero text embedding, which guidance needs; 0 as published
    smoothing: float = 0.0  # of labels; 0 as published
    seed: int = 0

    @classmethod
    def small_data(cls, steps: int = 2500) -> TransformerRecipe:
        schedule = Schedule(8e-4, warmup=150, cosine_steps=steps, betas=(0.9, 0.95), weight_decay=0.05)
        return cls(schedule, steps=steps, batch_size=48, keep=0.8, text_dropout=0.1, smoothing=0.05)


class SeededModule(pl.LightningModule):
    """What a training step draws depends on (``recipe.seed``, step) only.

    So a training that is resumed from a Lightning checkpoint, which holds weights, EMA sums, optimizer and schedule but
    no random state, repeats the uninterrupted one; :class:`MotionDataModule` goes on at the right example.
    """

    recipe: Any

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        torch.manual_seed(seed_of(self.recipe.seed, f"step/{self.global_step}"))


class MotionVQVAEModule(SeededModule):
    """Trains a :class:`MotionVQVAE`; batches are normalised windows (B, T, 263).

    Args:
        config, recipe: The published ones by default.
        normalizer: Statistics of the features, for losses and metrics in metres; needed where ``recipe.joints`` is set.
    """

    def __init__(
        self,
        config: VQVAEConfig | None = None,
        recipe: VQVAERecipe | None = None,
        normalizer: Normalizer | None = None,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.normalizer = MotionVQVAE(config), recipe or VQVAERecipe(), normalizer
        if self.recipe.joints and normalizer is None:
            what = "a joint loss in metres needs the normaliser"
            raise InputError(what, where="MotionVQVAEModule", fix="pass normalizer=...")
        if self.recipe.decoder_only:
            self.model.vqvae.quantizer.freeze()

    def loss(self, features: Tensor) -> tuple[Tensor, VQOutput]:
        """SmoothL1 of all features + ``commitment`` * MSE(z, code) + ``positions`` * SmoothL1 of local positions.

        Plus ``root`` * SmoothL1 of the root, where the recipe has it.
        """
        recipe, output = self.recipe, self.model(features)
        made, distance = output.reconstruction, functional.smooth_l1_loss
        loss = distance(made, features)
        local = distance(made[..., POSITIONS], features[..., POSITIONS])
        loss = loss + recipe.commitment * output.commitment + recipe.positions * local
        if recipe.root:
            loss = loss + recipe.root * distance(made[..., ROOT], features[..., ROOT])
        if recipe.joints:
            got, truth = self._joints(made, features)
            loss = loss + recipe.joints * _length(_posed(got) - _posed(truth)).mean()
            if recipe.smoothness and features.shape[1] > 2:
                loss = loss + recipe.smoothness * _length((got - truth).diff(n=2, dim=1)).mean()
        return loss, output

    def _joints(self, *features: Tensor) -> list[Tensor]:
        return [recover_joints(self.normalizer.denormalize(one)) for one in features]

    def joint_error(self, got: Tensor, truth: Tensor) -> Tensor:
        """(B, T) mean distance of the joints in metres, pelvis on pelvis, heading rebuilt from the window's start."""
        got, truth = self._joints(got, truth)
        return _length(_posed(got) - _posed(truth)).mean(-1)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        if self.recipe.short_share and float(torch.rand(())) < self.recipe.short_share:
            batch = batch[:, : batch.shape[1] // SHORT * SHORT].reshape(-1, SHORT, batch.shape[2])
        loss, output = self.loss(batch)
        self.log_dict({"train/loss": loss.detach(), "train/perplexity": output.perplexity.detach()}, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, index: int) -> None:
        loss, output = self.loss(batch)
        values = {"val/loss": loss, "val/perplexity": output.perplexity}
        if self.normalizer is not None:
            values["val/mpjpe"] = self.joint_error(output.reconstruction, batch).mean() * 1000
        self.log_dict(values, batch_size=len(batch), prog_bar=True)

    def configure_optimizers(self) -> dict:
        named = list(self.named_parameters())
        if self.recipe.decoder_only:
            named = [(name, p) for name, p in named if ".decoder." in name]
        linear = [p for name, p in named if ".linear." in name]
        others = [p for name, p in named if ".linear." not in name]
        return self.recipe.schedule.optimizer(others, linear, self.recipe.linear_rate)


def _posed(joints: Tensor) -> Tensor:
    return joints - joints[..., :1, :]


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1).add(1e-8).sqrt()  # the root has no gradient at zero


class MotionTransformerModule(SeededModule):
    """Trains a :class:`MotionTransformer`, and its text encoder if that is a network with parameters to learn.

    Batches are those of :func:`posesyn.training.prior.data.collate_tokens`.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        config: TransformerConfig | None = None,
        recipe: TransformerRecipe | None = None,
    ) -> None:
        super().__init__()
        self.model, self.recipe = MotionTransformer(config), recipe or TransformerRecipe()
        self.text_encoder = text_encoder
        self._embeddings: dict[str, Tensor] = {}

    def embed(self, texts: list[str]) -> Tensor:
        """(B, text_dim); frozen encoders see every text once."""
        if isinstance(self.text_encoder, nn.Module):
            return self.text_encoder(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._embeddings]
        if new:
            self._embeddings.update(zip(new, self.text_encoder.encode(new)))
        return torch.stack([self._embeddings[text] for text in texts]).to(self.device)

    def corrupted(self, inputs: Tensor, held: Tensor) -> Tensor:
        """Replaces input tokens by uniform codes with probability 1 - keep; the held pose in front stays."""
        random = torch.randint_like(inputs, self.model.config.codes)
        keep = torch.rand(inputs.shape, device=inputs.device) < self.recipe.keep
        prompt = torch.arange(inputs.shape[1], device=inputs.device) < held[:, None]
        return torch.where(keep | prompt, inputs, random)

    def loss(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Cross-entropy, averaged over the tokens of each example and then over the batch; and accuracy."""
        embedding, inputs = self.embed(batch["text"]), batch["inputs"]
        if self.training:
            inputs = self.corrupted(inputs, batch["held"])
            if self.recipe.text_dropout:
                kept = torch.rand(len(embedding), 1, device=embedding.device) >= self.recipe.text_dropout
                embedding = embedding * kept
        scores, targets = self.model(inputs, embedding), batch["targets"]
        used = targets != self.model.config.pad
        smoothing = self.recipe.smoothing if self.training else 0.0
        flat, wanted = scores.flatten(0, 1), targets.masked_fill(~used, 0).flatten()
        losses = functional.cross_entropy(flat, wanted, reduction="none", label_smoothing=smoothing).view_as(used)
        count = used.sum(1).clamp_min(1)
        accuracy = ((scores.argmax(-1) == targets) & used).sum() / used.sum().clamp_min(1)
        return ((losses * used).sum(1) / count).mean(), accuracy

    def training_step(self, batch: dict, index: int) -> Tensor:
        loss, accuracy = self.loss(batch)
        values = {"train/loss": loss.detach(), "train/accuracy": accuracy}
        self.log_dict(values, prog_bar=True, batch_size=len(batch["held"]))
        return loss

    def validation_step(self, batch: dict, index: int) -> None:
        loss, accuracy = self.loss(batch)
        self.log_dict({"val/loss": loss, "val/accuracy": accuracy}, prog_bar=True, batch_size=len(batch["held"]))

    def configure_optimizers(self) -> dict:
        return self.recipe.schedule.optimizer(self.parameters())


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
        for name, part in (("quantizer", quantizer), ("text_encoder", text_encoder)):
            object.__setattr__(self, name, part)  # no submodule: it is not trained or saved here

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
