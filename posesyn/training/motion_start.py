"""A closed-form start for the motion tokeniser's linear path and codebooks: principal components, then k-means.

Half a minute of this reconstructs unseen people better than half an hour of gradient steps from random weights; the
gradient steps then start here. Our own choice throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posesyn.errors import InputError
from posesyn.synthesis.motion.quantizer import EMAQuantizer
from posesyn.synthesis.motion.vqvae import MotionVQVAE

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
