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
from posesyn.synthesis.motion.prior.quantizer import EMAQuantizer, ResidualQuantizer, check_codes

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
        quantizers: Codebooks per token. 1 is the published network; with more of them (MoMask's residual
            quantisation) codes have one more dimension, (B, N, quantizers).
        quantizer_dropout, beam: See :class:`~posesyn.synthesis.motion.prior.quantizer.ResidualQuantizer`.
        linear: A linear map of 4 frames to a code and back runs beside the convolutions. Fitted in closed form
            (:func:`start_from_data`) it keeps poses unlike the training data in shape; our own choice.
        convolutional_encoder: False leaves the linear path alone to encode.
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
    quantizers: int = 1
    quantizer_dropout: float = 0.2
    beam: int = 1
    linear: bool = False
    convolutional_encoder: bool = True

    def __post_init__(self) -> None:
        if not self.convolutional_encoder and not self.linear:
            raise InputError("a tokeniser needs an encoder", where="VQVAEConfig", expected="linear=True")

    @property
    def frames_per_token(self) -> int:
        return 2**self.down


@dataclass(frozen=True, eq=False)
class VQOutput:
    """Result of a forward pass: reconstruction (B, T, D), codes as of ``encode``, commitment loss and perplexity."""

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


class _Stack(nn.Module):
    """Layers under the name ``model``, as the official keys have it."""

    model: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _ResidualStack(_Stack):
    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        dilations = [config.dilation_growth**i for i in reversed(range(config.depth))]
        self.model = nn.Sequential(*(_ResidualBlock(config.width, dilation) for dilation in dilations))


class _Encoder(_Stack):
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


class _Decoder(_Stack):
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


class _LinearPath(nn.Module):
    """Linear map of every 4 frames to a code and back, beside the convolutions; see ``VQVAEConfig.linear``."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        step = config.frames_per_token
        self.encoder = nn.Conv1d(config.features, config.code_dim, step, stride=step)
        self.decoder = nn.ConvTranspose1d(config.code_dim, config.features, step, stride=step)


class _Networks(nn.Module):
    """Holds the parts under the name that prefixes all official keys."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        if config.convolutional_encoder:
            self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        sizes = (config.codes, config.code_dim, config.decay, config.dead_below)
        self.quantizer: EMAQuantizer | ResidualQuantizer = (
            EMAQuantizer(*sizes)
            if config.quantizers == 1
            else ResidualQuantizer(config.quantizers, *sizes, config.quantizer_dropout, config.beam)
        )
        if config.linear:
            self.linear = _LinearPath(config)


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
        where, step, got = "MotionVQVAE", self.config.frames_per_token, tuple(features.shape)
        if features.ndim != 3 or features.shape[2] != self.config.features:
            expected = f"(B, T, {self.config.features})"
            raise InputError("motion features have the wrong shape", where=where, expected=expected, got=got)
        if got[1] < step:
            expected = f"T >= {step}"
            raise InputError("a motion must be at least one token long", where=where, expected=expected, got=got[1])
        # The convolutions would let frames beyond the last whole token into the tokens before.
        features = features[:, : got[1] // step * step].transpose(1, 2)
        paths = [self.vqvae.encoder] if self.config.convolutional_encoder else []
        if self.config.linear:
            paths.append(self.vqvae.linear.encoder)
        return sum(path(features) for path in paths).transpose(1, 2)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """(B, N, code_dim), quantised or not → (B, 4 N, D) normalised features, differentiable."""
        vectors = vectors.transpose(1, 2)
        features = self.vqvae.decoder(vectors)
        if self.config.linear:
            features = features + self.vqvae.linear.decoder(vectors)
        return features.transpose(1, 2)

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """(B, T, D) normalised features → int64 codes (B, T // 4); (B, T // 4, quantizers) with several codebooks.

        Raises:
            InputError: Wrong shape, less than one token, or NaN.
        """
        if not torch.isfinite(features).all():  # the nearest code to NaN would be any
            raise InputError("motion features have NaN or infinite values", where="MotionVQVAE.encode")
        vectors = self.encode_vectors(features)
        return self.vqvae.quantizer.assign(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2])

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes as of :meth:`encode` → (B, N, code_dim) vectors; of several codebooks the first ones will do.

        Raises:
            InputError: A code lies outside the codebook, there is none, or the shape is wrong.
        """
        layers = self.config.quantizers
        fits = codes.ndim == 2 if layers == 1 else codes.ndim == 3 and 1 <= codes.shape[2] <= layers
        if not fits or codes.shape[1] == 0:
            expected, got = "(B, N), N > 0" if layers == 1 else f"(B, N, 1 to {layers}), N > 0", tuple(codes.shape)
            raise InputError("codes have the wrong shape", where="MotionVQVAE.decode", expected=expected, got=got)
        check_codes(codes, self.config.codes, "a code", "MotionVQVAE.decode")
        return self.vqvae.quantizer.lookup(codes)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes as of :meth:`encode` → (B, 4 N, D) normalised features; each row on its own. Errors: :meth:`lookup`."""
        return self.decode_vectors(self.lookup(codes))

    def forward(self, features: Tensor) -> VQOutput:
        """Encodes, quantises (straight-through) and decodes (B, T, D); updates the codebook in training mode."""
        vectors = self.encode_vectors(features)
        # The codebook sums are float32 also under autocast.
        flat, index, commitment, perplexity = self.vqvae.quantizer(vectors.flatten(0, 1).float())
        decoded = self.decode_vectors(flat.view_as(vectors))
        return VQOutput(decoded, index.unflatten(0, vectors.shape[:2]), commitment, perplexity)


# Weight of each normalised feature in the squared error of a start from data: positions count 1. The yaw step counts 5,
# because its errors add up over the motion; rotations and velocities little, because joints come from positions.
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
        patches: (N, 4, 263) normalised frames of one token each, N at least the number of codes and of ``code_dim``.
        rounds: Of Lloyd's algorithm.
        seed: Of the first centres.

    Raises:
        InputError: No linear path, or too few or misshapen patches.
    """
    config = vqvae.config
    step, dims = config.frames_per_token, config.features
    if not config.linear:
        raise InputError("the tokeniser has no linear path", where="start_from_data", fix="VQVAEConfig(linear=True)")
    least = max(config.codes, config.code_dim)
    if patches.shape[1:] != (step, dims) or len(patches) < least:
        expected, got = f"(N >= {least}, {step}, {dims})", tuple(patches.shape)
        raise InputError("too few or misshapen patches", where="start_from_data", expected=expected, got=got)
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
