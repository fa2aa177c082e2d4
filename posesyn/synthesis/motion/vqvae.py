"""Motion tokeniser in the design of T2M-GPT's VQ-VAE (Mael-zys/T2M-GPT, Apache-2.0), written anew.

Attribute names follow the official state dict (``vqvae.encoder.model.2.1.model.0.conv1.weight`` ...), so that an
official checkpoint loads strictly. Unlike the official code the EMA state of the codebook is saved with the weights,
dead codes are replaced by a random subset of the batch, rows are decoded independently, and any device works.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.storage.checkpoints import load_into, load_weights

EMA_KEYS = tuple(f"vqvae.quantizer.{name}" for name in ("ema_sum", "ema_count", "initialised"))


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes. The defaults are the published HumanML3D model (T2M-GPT README): 19.4 M parameters.

    Attributes:
        features: Numbers per frame.
        codes: Rows of the codebook.
        code_dim: Width of a code.
        width: Channels of the convolutions.
        down: Halvings of the frame rate; one token covers ``2 ** down`` frames.
        depth: Residual blocks per halving.
        dilation_growth: Dilations are its powers, largest first, in encoder and decoder.
        decay: EMA factor mu of the codebook.
        dead_below: A code with fewer uses per step (EMA) is replaced. 1 as published, for batches of 8 vectors per
            code; with small batches that would replace half the codebook at every step.
    """

    features: int = 263
    codes: int = 512
    code_dim: int = 512
    width: int = 512
    down: int = 2
    depth: int = 3
    dilation_growth: int = 3
    decay: float = 0.99
    dead_below: float = 1.0

    @property
    def frames_per_token(self) -> int:
        return 2**self.down


@dataclass(frozen=True)
class VQOutput:
    """Result of a forward pass: reconstruction (B, T, D), codes (B, T // 4), scalar commitment loss and perplexity."""

    reconstruction: Tensor
    codes: Tensor
    commitment: Tensor
    perplexity: Tensor


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))


class _ResidualStack(nn.Module):
    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        dilations = [config.dilation_growth**i for i in reversed(range(config.depth))]
        self.model = nn.Sequential(*(_ResidualBlock(config.width, dilation) for dilation in dilations))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _Encoder(nn.Module):
    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        width = config.width
        halvings = (
            nn.Sequential(nn.Conv1d(width, width, 4, stride=2, padding=1), _ResidualStack(config))
            for _ in range(config.down)
        )
        self.model = nn.Sequential(
            nn.Conv1d(config.features, width, 3, padding=1),
            nn.ReLU(),
            *halvings,
            nn.Conv1d(width, config.code_dim, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _Decoder(nn.Module):
    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        width = config.width
        doublings = (
            nn.Sequential(
                _ResidualStack(config),
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv1d(width, width, 3, padding=1),
            )
            for _ in range(config.down)
        )
        self.model = nn.Sequential(
            nn.Conv1d(config.code_dim, width, 3, padding=1),
            nn.ReLU(),
            *doublings,
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, config.features, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class EMAQuantizer(nn.Module):
    """Codebook trained by exponential moving averages, with resets of unused codes (no gradient reaches it)."""

    def __init__(self, codes: int, dim: int, decay: float = 0.99, dead_below: float = 1.0) -> None:
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("codebook", torch.zeros(codes, dim))
        self.register_buffer("ema_sum", torch.zeros(codes, dim))
        self.register_buffer("ema_count", torch.zeros(codes))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    def assign(self, vectors: Tensor) -> Tensor:
        """(N, dim) → (N,) indices of the nearest codes, the lowest index on ties."""
        # |x|^2 does not change the order of the codes, so it is left out.
        scores = self.codebook.square().sum(1) - 2 * vectors @ self.codebook.T
        return scores.argmin(1)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, dim) → straight-through codes (N, dim), indices (N,), commitment loss, perplexity."""
        if self.training and not self.initialised:
            self._initialise(vectors.detach())
        index = self.assign(vectors)
        quantised = functional.embedding(index, self.codebook)
        commitment = functional.mse_loss(vectors, quantised.detach())
        usage = torch.bincount(index, minlength=len(self.codebook)).to(vectors.dtype)
        share = usage / usage.sum()
        perplexity = torch.exp(-(share * torch.log(share + 1e-7)).sum())
        if self.training:
            self._update(vectors.detach(), index, usage)
        return vectors + (quantised - vectors).detach(), index, commitment, perplexity

    def adopt_codebook(self) -> None:
        """Fills the EMA state to agree with the present codebook, for checkpoints that carry none.

        The count 1 / (1 - mu) is the steady state of one use per step; our own choice. Without this a resumed training
        would draw a new codebook from its first batch (a bug of the official code).
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


class _Networks(nn.Module):
    """Holds the parts under the name that prefixes all official keys."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quantizer = EMAQuantizer(config.codes, config.code_dim, config.decay, config.dead_below)


class MotionVQVAE(nn.Module):
    """Normalised motion features ↔ codes, ``config.frames_per_token`` frames per code.

    Frames beyond the last multiple of ``frames_per_token`` are dropped.
    """

    def __init__(self, config: VQVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or VQVAEConfig()
        self.vqvae = _Networks(self.config)

    @classmethod
    def from_official(cls, path: str | Path, config: VQVAEConfig | None = None) -> MotionVQVAE:
        """Reads an official T2M-GPT file, ``{"net": state_dict}``, without running code from it.

        Raises:
            CheckpointError: Keys are missing, unexpected or of another shape; all are listed.
            FileError, UnsafeFileError: The file is missing, damaged or holds more than tensors.
        """
        model = cls(config)
        load_into(model, load_weights(path, key="net"), where=path, optional=EMA_KEYS)
        model.vqvae.quantizer.adopt_codebook()
        return model.eval()

    def official_state_dict(self) -> dict[str, Tensor]:
        """The state under the official keys, i.e. without the EMA state."""
        return {key: value for key, value in self.state_dict().items() if key not in EMA_KEYS}

    def config_dict(self) -> dict[str, int | float]:
        return asdict(self.config)

    def encode_vectors(self, features: Tensor) -> Tensor:
        """(B, T, D) normalised features → encoder output (B, T // 4, code_dim) before quantisation."""
        if features.ndim != 3 or features.shape[2] != self.config.features:
            raise InputError(
                "motion features have the wrong shape",
                where="MotionVQVAE",
                expected=f"(B, T, {self.config.features})",
                got=tuple(features.shape),
            )
        if features.shape[1] < self.config.frames_per_token:
            raise InputError(
                "a motion must be at least one token long",
                where="MotionVQVAE",
                expected=f"T >= {self.config.frames_per_token}",
                got=features.shape[1],
            )
        return self.vqvae.encoder(features.transpose(1, 2)).transpose(1, 2)

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """(B, T, D) normalised features → (B, T // 4) int64 codes."""
        vectors = self.encode_vectors(features)
        return self.vqvae.quantizer.assign(vectors.flatten(0, 1)).view(vectors.shape[:2])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(B, N) codes → (B, 4 N, D) normalised features; each row on its own.

        Raises:
            InputError: A code lies outside the codebook, or there is none.
        """
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise InputError("codes must be (B, N) with N > 0", where="MotionVQVAE.decode", got=tuple(codes.shape))
        if codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < self.config.codes):
            raise InputError(
                "a code lies outside the codebook",
                where="MotionVQVAE.decode",
                expected=f"0 .. {self.config.codes - 1}",
                got=(int(codes.min()), int(codes.max())),
            )
        vectors = functional.embedding(codes, self.vqvae.quantizer.codebook)
        return self.vqvae.decoder(vectors.transpose(1, 2)).transpose(1, 2)

    def forward(self, features: Tensor) -> VQOutput:
        """Encodes, quantises (straight-through) and decodes (B, T, D); updates the codebook in training mode."""
        vectors = self.encode_vectors(features)
        # The codebook sums are float32 also under autocast.
        flat, index, commitment, perplexity = self.vqvae.quantizer(vectors.flatten(0, 1).float())
        decoded = self.vqvae.decoder(flat.view_as(vectors).transpose(1, 2)).transpose(1, 2)
        return VQOutput(decoded, index.view(vectors.shape[:2]), commitment, perplexity)
