"""Trains the evaluator of ``benchmarks/motion_prior.py`` on the train split of the CMU pack.

    python tools/train_motion_evaluator.py --work runs/prior --out runs/prior/evaluator.safetensors

Recorded motions only (with mirror images and other speeds), captions of the sources ``cmu-index`` and ``rewritten``,
reworded. The step with the best retrieval on the validation split is kept; the test split plays no part. The features
that ``tools/train_prior.py`` left in ``--work`` are used, or made.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from posesyn.synthesis.motion.prior.evaluator import MotionTextEvaluator, retrieval_precision
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.text import FILLERS, paraphrase, words_of
from posesyn.training.prior.data import FeatureClip

SHORTEST, LONGEST = 40, 196  # frames, as HumanML3D's evaluation


def telling_words(caption: str) -> frozenset[str]:
    return frozenset(word for word in words_of(caption) if word not in FILLERS)


def label_of(caption: str) -> str:
    """Captions that say the same get the same label: their telling words, those of plain walking all as one."""
    words = telling_words(caption)
    plain = {"walk", "walks", "walking", "takes", "several", "steps", "forward", "straight", "ahead", "line", "normal"}
    plain |= {"pace", "swinging", "arms", "at", "with"}
    walking = words & {"walk", "walks", "walking", "steps"}
    return "walk" if walking and words <= plain else " ".join(sorted(words))


def windows_of(clips: Sequence[FeatureClip]) -> list[tuple[torch.Tensor, tuple[str, ...]]]:
    """Pieces of SHORTEST to LONGEST frames of captioned clips, one after the other."""
    pieces = []
    for clip in clips:
        for start in range(0, max(1, len(clip.features) - SHORTEST + 1), LONGEST):
            piece = clip.features[start : start + LONGEST]
            if len(piece) >= SHORTEST and clip.captions:
                pieces.append((torch.from_numpy(piece), clip.captions))
    return pieces


def batch_of(clips: Sequence[FeatureClip], bounds: np.ndarray, size: int, rng: np.random.Generator) -> tuple:
    motions, texts, labels = [], [], []
    for _ in range(size):
        clip = clips[min(int(np.searchsorted(bounds, rng.random())), len(clips) - 1)]
        length = int(rng.integers(SHORTEST, min(LONGEST, len(clip.features)) + 1))
        start = int(rng.integers(len(clip.features) - length + 1))
        caption = clip.captions[rng.integers(len(clip.captions))]
        labels.append(label_of(clip.captions[0]))
        if rng.random() < 0.6:
            caption = paraphrase(caption, lambda n: int(rng.integers(n)))
        motions.append(torch.from_numpy(clip.features[start : start + length]))
        texts.append(caption)
    same = torch.tensor([[a == b for b in labels] for a in labels])
    return motions, texts, same


@torch.no_grad()
def retrieval(model: MotionTextEvaluator, pieces: Sequence, pool: int) -> np.ndarray:
    model.eval()
    motions = model.embed_motions([motion for motion, _ in pieces]).numpy()
    captions = [captions[0] for _, captions in pieces]
    texts = model.embed_texts(captions).numpy()
    model.train()
    return retrieval_precision(motions, texts, np.array([label_of(c) for c in captions]), pool=pool, repeats=10)


def train(clips: dict[str, list[FeatureClip]], steps: int, batch: int, seed: int) -> tuple[MotionTextEvaluator, dict]:
    """The evaluator of the best validation retrieval, and its figures. ``clips`` hold features not normalised."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    own = [clip for clip in clips["train"] if len(clip.features) >= SHORTEST and clip.captions]
    # As many batches for rare captions as for walking would be unfair to walking; the root lies between.
    counts: dict[str, int] = {}
    for clip in own:
        counts[label_of(clip.captions[0])] = counts.get(label_of(clip.captions[0]), 0) + 1
    weights = np.array([counts[label_of(clip.captions[0])] ** -0.5 for clip in own])
    bounds = np.cumsum(weights / weights.sum())
    model = MotionTextEvaluator(
        Normalizer.from_features("posesyn-cmu-train", [clip.features for clip in clips["train"]])
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    val = windows_of(clips["val"])
    pool = min(16, len(val))
    best, kept, report = -1.0, None, {}
    for step in range(1, steps + 1):
        motions, texts, same = batch_of(own, bounds, batch, rng)
        loss, hits = model.loss(motions, texts, same)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 50 == 0 or step == steps:
            scores = retrieval(model, val, pool)
            print(f"step {step}: loss {loss.item():.3f}, train {hits.item():.2f}, val {scores.round(3)}", flush=True)
            if scores.sum() >= best:
                best, kept = scores.sum(), {k: v.clone() for k, v in model.state_dict().items()}
                report = {"step": step, "val R-precision": scores.round(4).tolist(), "pool": pool, "val": len(val)}
    model.load_state_dict(kept)
    return model.eval(), report


def main() -> None:
    from prior_material import add_arguments, raw_features

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/prior/evaluator.safetensors"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    start = time.time()
    model, report = train(raw_features(args), args.steps, args.batch, args.seed)
    model.save(args.out)
    print(json.dumps({**report, "seconds": round(time.time() - start)}))


if __name__ == "__main__":
    main()
