"""A motion and a text encoder with one embedding space, to judge generated motions by; trained by contrast.

In the manner of TMR (Petrovich et al. 2023), small: features and captions go to unit vectors that agree for a motion
and its own caption. Made by ``tools/train_motion_evaluator.py``; not shipped, and never used to make motions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import CheckpointError, InputError
from posesyn.storage.checkpoints import load_into, load_metadata, load_weights, save_weights
from posesyn.synthesis.motion.normalizer import FEATURE_DIM, Normalizer
from posesyn.synthesis.motion.text import HashTextConfig, HashTextEncoder

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
                raise InputError(
                    "a motion to judge has the wrong shape",
                    where=f"MotionTextEvaluator, motion {index}",
                    expected=f"(T >= 4, {FEATURE_DIM})",
                    got=tuple(motion.shape),
                )
        lengths = torch.tensor([len(motion) // 4 * 4 for motion in motions])
        scaled = [self.normalizer.normalize(motion[: int(n)])[:, :_USED] for motion, n in zip(motions, lengths)]
        x = nn.utils.rnn.pad_sequence(scaled, batch_first=True).transpose(1, 2)
        x = self.stem[:_FIRST](x)
        # What the first convolution makes of the padding must not reach the second.
        x = x * (torch.arange(x.shape[2]) < (lengths // 2)[:, None])[:, None]
        x = self.stem[_FIRST:](x).transpose(1, 2)
        steps = lengths // 4
        packed = nn.utils.rnn.pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False)
        states, last = self.gru(packed)
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
        """Reads what :meth:`save` wrote.

        Raises:
            FileError: Missing or damaged.
            CheckpointError: Not an evaluator.
        """
        settings, weights = load_metadata(path), load_weights(path)
        if settings.get("format") != FORMAT:
            raise CheckpointError(
                "the file is not a motion evaluator", where=path, expected=FORMAT, got=settings.get("format")
            )
        arrays = [weights.pop(f"normalizer.{name}").numpy() for name in ("mean", "std")]
        model = cls(Normalizer(settings["normalizer"], *arrays), EvaluatorConfig(**settings["sizes"]))
        load_into(model, weights, where=path)
        return model.eval()
