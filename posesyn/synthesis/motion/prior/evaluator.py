"""How good generated motions are: figures over embeddings and joints, and the network that embeds motions and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import CheckpointError, InputError
from posesyn.storage.checkpoints import load_into, load_metadata, load_weights, save_weights
from posesyn.synthesis.motion.prior.features import FPS
from posesyn.synthesis.motion.prior.normalizer import FEATURE_DIM, Normalizer
from posesyn.synthesis.motion.prior.text import HashTextConfig, HashTextEncoder

_TOES = (10, 11)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of Gaussians fitted to two sets of embeddings (N, D) and (M, D).

    ``|mean1 - mean2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``. Biased upwards for few rows: compare sets of one size.

    Raises:
        InputError: Fewer than two rows, or other widths.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        what, got = "the Fréchet distance needs two sets of embeddings", (first.shape, second.shape)
        raise InputError(what, where="frechet_distance", expected="(N >= 2, D) twice", got=got)
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The root of a product of covariances has the eigenvalues of a symmetric matrix: no complex leftovers.
    root = np.real(linalg.sqrtm(covariances[0]))
    values = np.linalg.eigvalsh(root @ covariances[1] @ root)
    shift = np.square(first.mean(0) - second.mean(0)).sum()
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(np.clip(values, 0, None)).sum()
    return float(max(shift + trace, 0.0))


def retrieval_precision(
    motions: np.ndarray, texts: np.ndarray, labels: np.ndarray, pool: int = 32, repeats: int = 50, seed: int = 0
) -> np.ndarray:
    """R-precision: (3,) shares of motions among whose 1, 2, 3 nearest captions of a pool is a right one.

    Args:
        motions, texts: (N, D) embeddings of motions and of their captions.
        labels: (N,) captions with the same label count as the same (in small data sets many are alike; where all
            differ this is the published figure).
        pool: Captions to choose from, one's own included. Random pools, ``repeats`` times all motions.

    Raises:
        InputError: Fewer motions than the pool, or arrays of different length.
    """
    motions, texts, labels = np.asarray(motions), np.asarray(texts), np.asarray(labels)
    if not len(motions) == len(texts) == len(labels) or len(motions) < pool:
        what, got = (
            "R-precision needs as many motions as the pool has captions",
            (len(motions), len(texts), len(labels)),
        )
        expected = f"at least {pool}, as many captions and labels"
        raise InputError(what, where="retrieval_precision", expected=expected, got=got)
    rng = np.random.default_rng(seed)
    distances = np.linalg.norm(motions[:, None] - texts[None], axis=-1)
    hits = np.zeros(3)
    for _ in range(repeats):
        for row in range(len(motions)):
            chosen = np.append(row, rng.permutation(np.delete(np.arange(len(motions)), row))[: pool - 1])
            order = chosen[np.argsort(distances[row, chosen], kind="stable")][:3]
            right = np.cumsum(labels[order] == labels[row]) > 0
            hits[: len(right)] += right
    return hits / (repeats * len(motions))


def matching_distance(motions: np.ndarray, texts: np.ndarray) -> float:
    """MM-distance: mean distance between the embeddings of motions and of their captions, (N, D) each."""
    return float(np.linalg.norm(np.asarray(motions) - np.asarray(texts), axis=-1).mean())


def diversity(motions: np.ndarray, pairs: int = 300, seed: int = 0) -> float:
    """Mean distance of ``pairs`` random pairs of different embeddings (N >= 2, D)."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(motions), size=pairs)
    second = (first + rng.integers(1, len(motions), size=pairs)) % len(motions)
    return float(np.linalg.norm(np.asarray(motions)[first] - np.asarray(motions)[second], axis=-1).mean())


def foot_skating(joints: np.ndarray, height: float = 0.05, slide: float = 0.025) -> float:
    """Share of foot contacts that slide: toes low in two frames in a row that move further than ``slide`` between them.

    The floor is the lowest joint of the motion; metres and horizontal metres per frame of 1/20 s, the thresholds of GMD
    (Karunratanakul et al. 2023). 0 where no toe touches the floor.

    Args:
        joints: (T, 22, 3) metres, y up.
    """
    joints = np.asarray(joints)
    toes = joints[:, _TOES] - [0.0, joints[..., 1].min(), 0.0]
    low = (toes[1:, :, 1] < height) & (toes[:-1, :, 1] < height)
    moved = np.linalg.norm(np.diff(toes, axis=0)[..., [0, 2]], axis=-1)
    return float((low & (moved > slide)).sum() / max(low.sum(), 1))


def mean_speed(joints: np.ndarray) -> float:
    """Mean joint speed of (T, 22, 3) at 20 fps, m/s."""
    return float(np.linalg.norm(np.diff(np.asarray(joints), axis=0), axis=-1).mean() * FPS)


def mean_jerk(joints: np.ndarray) -> float:
    """Mean size of the third difference of (T, 22, 3) at 20 fps, m/s^3: large for jitter."""
    return float(np.linalg.norm(np.diff(np.asarray(joints), 3, axis=0), axis=-1).mean() * FPS**3)


FORMAT = "posesyn-motion-evaluator-1"
_FIRST = 3  # modules of the stem up to the first convolution's activation
_USED = 67  # yaw step, root velocity, height, positions: what joints are recovered from


@dataclass(frozen=True)
class EvaluatorConfig:
    """Sizes; our own choice. ``dim`` is small because the Fréchet distance needs more motions than dimensions."""

    dim: int = 64
    width: int = 128
    dropout: float = 0.2


class MotionTextEvaluator(nn.Module):
    """Embeds motions and captions as unit vectors of ``config.dim`` numbers."""

    def __init__(self, normalizer: Normalizer, config: EvaluatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or EvaluatorConfig()
        self.normalizer = normalizer
        width, drop = self.config.width, self.config.dropout
        self.stem = nn.Sequential(
            nn.Dropout(0.1),
            nn.Conv1d(_USED, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Dropout(drop),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Dropout(drop),
        )
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.LayerNorm(2 * width), nn.Dropout(drop), nn.Linear(2 * width, self.config.dim))
        self.text = HashTextEncoder(HashTextConfig(buckets=2048, width=48, dim=self.config.dim, word_dropout=0.25))
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def embed_motions(self, motions: Sequence[Tensor]) -> Tensor:
        """B features (T_i, 263), not normalised, T_i >= 4 → (B, dim); each motion on its own, padding plays no part."""
        for index, motion in enumerate(motions):
            if motion.ndim != 2 or motion.shape[1] != FEATURE_DIM or len(motion) < 4:
                where, expected = f"MotionTextEvaluator, motion {index}", f"(T >= 4, {FEATURE_DIM})"
                what = "a motion to judge has the wrong shape"
                raise InputError(what, where=where, expected=expected, got=tuple(motion.shape))
        lengths = torch.tensor([len(motion) // 4 * 4 for motion in motions])
        scaled = [self.normalizer.normalize(motion[: int(n)])[:, :_USED] for motion, n in zip(motions, lengths)]
        x = nn.utils.rnn.pad_sequence(scaled, batch_first=True).transpose(1, 2)
        x = self.stem[:_FIRST](x)
        # What the first convolution makes of the padding must not reach the second.
        x = x * (torch.arange(x.shape[2]) < (lengths // 2)[:, None])[:, None]
        x = self.stem[_FIRST:](x).transpose(1, 2)
        steps = lengths // 4
        states, last = self.gru(nn.utils.rnn.pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False))
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
        mean = states.sum(1) / steps[:, None]
        return functional.normalize(self.head(torch.cat([mean, last[0], last[1]], 1)), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """B captions → (B, dim)."""
        return functional.normalize(self.text(texts), dim=1)

    def loss(self, motions: Sequence[Tensor], texts: Sequence[str], same: Tensor) -> tuple[Tensor, Tensor]:
        """Symmetric InfoNCE, and the share of motions whose own caption is the nearest.

        Args:
            motions, texts: B pairs.
            same: (B, B) bool, pairs that say the same: they are all taken as right (TMR leaves them out instead).
        """
        scores = self.log_scale.exp() * self.embed_motions(motions) @ self.embed_texts(texts).T
        right = same | torch.eye(len(same), dtype=torch.bool, device=same.device)
        share = right / right.sum(1, keepdim=True)
        loss = -(share * scores.log_softmax(1)).sum(1).mean() - (share.T * scores.log_softmax(0)).sum(0).mean()
        hits = right.gather(1, scores.argmax(1, keepdim=True)).float().mean()
        return loss / 2, hits

    def save(self, path: str | Path) -> None:
        """Writes safetensors with weights, sizes and statistics."""
        weights = {**self.state_dict(), "normalizer.mean": torch.from_numpy(self.normalizer.mean)}
        weights["normalizer.std"] = torch.from_numpy(self.normalizer.std)
        settings: dict[str, Any] = {"format": FORMAT, "sizes": asdict(self.config), "normalizer": self.normalizer.name}
        save_weights(path, weights, settings)

    @classmethod
    def load(cls, path: str | Path) -> MotionTextEvaluator:
        """Reads what :meth:`save` wrote; FileError: missing or damaged; CheckpointError: not an evaluator."""
        settings, weights = load_metadata(path), load_weights(path)
        if settings.get("format") != FORMAT:
            what, got = "the file is not a motion evaluator", settings.get("format")
            raise CheckpointError(what, where=path, expected=FORMAT, got=got)
        arrays = [weights.pop(f"normalizer.{name}").numpy() for name in ("mean", "std")]
        model = cls(Normalizer(settings["normalizer"], *arrays), EvaluatorConfig(**settings["sizes"]))
        load_into(model, weights, where=path)
        return model.eval()
