"""Compares text encoders for the motion prior without training a transformer for each.

    python tools/compare_text_encoders.py --work runs/prior

A small head predicts from a caption's embedding which motion tokens the clip holds (its token histogram). That is what
a caption can tell the transformer, at a thousandth of the cost. Encoder and head are trained on the train split; the
numbers are cross-entropies on validation and test clips, with captions as written, reworded with words that occur in no
training caption, and exchanged between clips. ``--work`` is the folder that ``train_prior.py`` left.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from prior_material import add_arguments, raw_features
from torch import Tensor, nn
from train_prior import unseen

from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.text import HashTextEncoder, SentenceTextEncoder, paraphrase


def histograms(prior: MotionPriorModel, clips: list) -> tuple[list[tuple[str, ...]], Tensor]:
    """Captions and normalised histograms (N, codes) of the first codebook's tokens of the clips at their own speed."""
    rows, captions = [], []
    for clip in clips:
        if clip.captions and clip.clip_id.endswith("x1"):
            codes = prior.encode(torch.from_numpy(clip.features)[None])[0, :, 0]
            rows.append(torch.bincount(codes, minlength=prior.vqvae.config.codes).float() / len(codes))
            captions.append(clip.captions)
    return captions, torch.stack(rows)


def compare(kind: str, data: dict, steps: int, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder = HashTextEncoder() if kind == "hash" else SentenceTextEncoder()
    head = nn.Sequential(
        nn.Dropout(0.3),
        nn.Linear(encoder.dim, 128),
        nn.GELU(),
        nn.Dropout(0.3),
        nn.Linear(128, data["train"][1].shape[1]),
    )
    known: dict[str, Tensor] = {}

    def embed(texts: list[str]) -> Tensor:
        if isinstance(encoder, nn.Module):
            return encoder(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, encoder.encode(new)) if new else ())
        return torch.stack([known[text] for text in texts])

    def loss(texts: list[str], target: Tensor) -> Tensor:
        return -(torch.log_softmax(head(embed(texts)), 1) * target).sum(1).mean()

    learned = list(head.parameters()) + (list(encoder.parameters()) if isinstance(encoder, nn.Module) else [])
    optimizer = torch.optim.AdamW(learned, 2e-3, weight_decay=0.05)
    captions, target = data["train"]
    # A fixed pool of wordings, so that the frozen encoder reads each only once.
    pools = [(*own, *(paraphrase(own[0], lambda n: int(rng.integers(n))) for _ in range(4))) for own in captions]
    curve = []
    for step in range(steps):
        rows = rng.integers(len(pools), size=64)
        if isinstance(encoder, nn.Module):
            encoder.train()
        head.train()
        value = loss([pools[r][rng.integers(len(pools[r]))] for r in rows], target[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 50 == 49 or step == steps - 1:
            curve.append(evaluate(loss, encoder, head, data))
    return min(curve, key=lambda row: row["val as written"])  # chosen on validation, for both encoders alike


@torch.no_grad()
def evaluate(loss, encoder, head: nn.Module, data: dict) -> dict[str, float]:
    head.eval()
    if isinstance(encoder, nn.Module):
        encoder.eval()
    row = {}
    for split in ("val", "test"):
        captions, target = data[split]
        texts = [own[0] for own in captions]
        shuffled = np.random.default_rng(0).permutation(len(texts))
        for name, wording in (
            ("as written", texts),
            ("unseen words", [unseen(text) for text in texts]),
            ("wrong caption", [texts[i] for i in shuffled]),
        ):
            row[f"{split} {name}"] = round(float(loss(wording, target)), 4)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    prior = MotionPriorModel.load(args.work / "prior-hash" / "prior.safetensors")
    data = {split: histograms(prior, own) for split, own in raw_features(args).items()}
    results = {}
    for kind in ("hash", "sentence"):
        runs = [compare(kind, data, args.steps, seed) for seed in range(args.seeds)]
        results[kind] = {
            key: [round(float(f([r[key] for r in runs])), 4) for f in (np.mean, np.std)] for key in runs[0]
        }
    print(json.dumps(results, indent=1))
    (args.work / "text_encoders.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
