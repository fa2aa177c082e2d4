"""How good is the motion prior on people it has never seen? Figures beside those of real motions and two baselines.

    python benchmarks/motion_prior.py --work runs/prior --json runs/prior/motion_prior.json

Per test clip (pieces of 40 to 196 frames): the motion itself; the motion after encoding and decoding; motions that the
prior makes from the caption, as long as the clip, as decoded and as the synthesizer hands them out (smoothed, feet in
place); the training motion with the nearest caption (cosine of the prior's own text embedding); and a training walk.
They are compared by an evaluator of our own (``tools/train_motion_evaluator.py``; trained when it is absent from
``--work``). R-precision counts captions that say the same as one, in pools of 32. Nothing is chosen by the figures of
the test split: choices are made with ``--split val``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from posesyn.synthesis.motion.prior.evaluator import (
    MotionTextEvaluator,
    diversity,
    foot_skating,
    frechet_distance,
    matching_distance,
    mean_jerk,
    mean_speed,
    retrieval_precision,
)
from posesyn.synthesis.motion.prior.features import motion_features, recover_joints, still_features
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.sampler import settled
from posesyn.training.prior.data import FeatureClip, reconstruction_error_mm

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from prior_material import add_arguments, raw_features
from train_motion_evaluator import label_of, train, windows_of

Pieces = list[tuple[torch.Tensor, tuple[str, ...]]]


def judged(evaluator: MotionTextEvaluator, motions: Sequence[torch.Tensor], pieces: Pieces, pool: int) -> dict:
    """All figures of one set of motions, made for the captions of ``pieces``, against the real ones."""
    captions = [captions[0] for _, captions in pieces]
    labels = np.array([label_of(caption) for caption in captions])
    with torch.no_grad():
        embedded = evaluator.embed_motions(motions).numpy()
        real = evaluator.embed_motions([motion for motion, _ in pieces]).numpy()
        texts = evaluator.embed_texts(captions).numpy()
    joints = [recover_joints(motion).numpy() for motion in motions]
    precision = retrieval_precision(embedded, texts, labels, pool=min(pool, len(texts)))
    return {
        **{f"R@{k + 1}": float(value) for k, value in enumerate(precision)},
        "FID": frechet_distance(real, embedded),
        "MM-dist": matching_distance(embedded, texts),
        "diversity": diversity(embedded),
        "skating": float(np.mean([foot_skating(j) for j in joints])),
        "speed m/s": float(np.mean([mean_speed(j) for j in joints])),
        "jerk m/s3": float(np.mean([mean_jerk(j) for j in joints if len(j) > 3])),
    }


@torch.no_grad()
def generated(
    prior: MotionPriorModel, pieces: Pieces, seed: int, options: dict, smoothing: float | None = None
) -> list[torch.Tensor]:
    """One motion per piece, of its length (whole tokens), without a pose to start from."""
    step = prior.frames_per_token
    lengths = [min(len(motion) // step, prior.max_tokens) for motion, _ in pieces]
    embedded = prior.embed([captions[0] for _, captions in pieces])
    made: list[torch.Tensor] = [torch.empty(0)] * len(pieces)
    for length in sorted(set(lengths)):
        rows = [row for row, own in enumerate(lengths) if own == length]
        codes = prior.sample(
            embedded[rows],
            seed=[seed * 100_003 + row for row in rows],
            max_tokens=length,
            min_tokens=length,
            **options,
        )
        for row, motion in zip(rows, prior.decode(torch.stack(codes))):
            made[row] = motion if smoothing is None else settled_features(motion, smoothing)
    return made


def settled_features(motion: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The motion as the synthesizer hands it out, smoothed and on the floor; the last frame is there twice."""
    joints = settled(recover_joints(motion).numpy(), smoothing)
    features = torch.from_numpy(motion_features(joints, None, continuous_heading=True)).float()
    return torch.cat([features, features[-1:]])


def nearest_in_training(prior: MotionPriorModel, train_pieces: Pieces, pieces: Pieces, rng) -> list[torch.Tensor]:
    """For each piece a training motion with the caption nearest to its own, cut to its length where it is longer."""
    known = list(dict.fromkeys(captions[0] for _, captions in train_pieces))
    bank = torch.nn.functional.normalize(prior.embed(known), dim=1)
    asked = torch.nn.functional.normalize(prior.embed([captions[0] for _, captions in pieces]), dim=1)
    found = []
    for row, (motion, _) in zip((asked @ bank.T).argmax(1).tolist(), pieces):
        same = [own for own, captions in train_pieces if captions[0] == known[row]]
        found.append(same[rng.integers(len(same))][: len(motion)])
    return found


def walking(train_pieces: Pieces, pieces: Pieces, rng) -> list[torch.Tensor]:
    walks = [motion for motion, captions in train_pieces if label_of(captions[0]) == "walk"]
    return [walks[rng.integers(len(walks))][: len(motion)] for motion, _ in pieces]


def held_pose_error(prior: MotionPriorModel, clips: Sequence[FeatureClip], noise: float, seed: int = 0) -> float:
    """mm by which poses held for 8 frames move on their way through the tokens, pelvis on pelvis.

    Every tenth pose of the clips; ``noise`` metres of Gaussian noise on the joints, bone lengths kept.
    """
    from posesyn.synthesis.motion.prior.features import bone_offsets

    rng = np.random.default_rng(seed)
    poses = np.concatenate([recover_joints(clip.features)[::10] for clip in clips])
    still = still_features(poses + rng.normal(0, noise, poses.shape) * (noise > 0), bone_offsets(poses[0]))
    features = torch.from_numpy(np.repeat(still[:, None], 8, 1))
    before, after = recover_joints(features), recover_joints(prior.decode(prior.encode(features)))
    return float(((after - after[..., :1, :]) - (before - before[..., :1, :])).norm(dim=-1).mean() * 1000)


def spread(rows: Sequence[dict]) -> dict:
    return {key: (float(np.mean([r[key] for r in rows])), float(np.std([r[key] for r in rows]))) for key in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--prior", type=Path, help="a prior's file; the shipped one by default")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--guidance", type=float, help="the prior's own by default")
    parser.add_argument("--residual-temperature", type=float, default=0.0)
    parser.add_argument("--smoothing", type=float, default=1.0, help="as SynthesisSettings.smoothing")
    parser.add_argument("--evaluator-steps", type=int, default=600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)

    clips = raw_features(args)
    stored = args.work / "evaluator.safetensors"
    if not stored.is_file():
        train(clips, args.evaluator_steps, 48, 0)[0].save(stored)
    evaluator = MotionTextEvaluator.load(stored)
    prior = MotionPriorModel.load(args.prior)
    pieces, train_pieces = windows_of(clips[args.split]), windows_of(clips["train"])
    pieces = [(motion[: len(motion) // 4 * 4], captions) for motion, captions in pieces]
    options = {"temperature": args.temperature, "top_k": args.top_k}
    if prior.residual is not None:
        options["residual_temperature"] = args.residual_temperature
    if args.guidance is not None:
        options["guidance"] = args.guidance

    start = time.time()
    with torch.no_grad():
        rebuilt = [prior.decode(prior.encode(motion[None]))[0] for motion, _ in pieces]
    normalised = [
        FeatureClip(c.clip_id, prior.normalizer.normalize(c.features).astype(np.float32), c.captions)
        for c in clips[args.split]
    ]
    results: dict = {
        "split": args.split,
        "pieces": len(pieces),
        "frames": sum(len(motion) for motion, _ in pieces),
        "reconstruction, windows of 64": reconstruction_error_mm(prior.vqvae, prior.normalizer, normalised, 64),
        "reconstruction, clips up to 196": reconstruction_error_mm(prior.vqvae, prior.normalizer, normalised, 196),
        "held pose [mm]": {
            f"{noise * 1000:.0f} mm of noise": held_pose_error(prior, clips[args.split], noise)
            for noise in (0.0, 0.02, 0.05)
        },
    }
    seeds = range(args.seeds)
    rngs = [np.random.default_rng(seed) for seed in seeds]
    table = {
        "real": [judged(evaluator, [motion for motion, _ in pieces], pieces, 32)],
        "tokens and back": [judged(evaluator, rebuilt, pieces, 32)],
        "decoded only": [judged(evaluator, generated(prior, pieces, seed, options), pieces, 32) for seed in seeds],
        "generated": [
            judged(evaluator, generated(prior, pieces, seed, options, args.smoothing), pieces, 32) for seed in seeds
        ],
        "nearest caption": [
            judged(evaluator, nearest_in_training(prior, train_pieces, pieces, rng), pieces, 32) for rng in rngs
        ],
        "walk only": [judged(evaluator, walking(train_pieces, pieces, rng), pieces, 32) for rng in rngs],
    }
    results["motions"] = {name: spread(rows) for name, rows in table.items()}
    results["options"] = {
        **options,
        "smoothing": args.smoothing,
        "seeds": args.seeds,
        "seconds": round(time.time() - start),
    }
    columns = list(table["real"][0])
    print(f"{args.split}: {len(pieces)} pieces, {results['frames']} frames; mean ± sd over {args.seeds} seeds")
    print(f"{'':16}" + "".join(f"{column:>16}" for column in columns))
    for name, row in results["motions"].items():
        print(f"{name:16}" + "".join(f"{row[c][0]:>9.3f} ±{row[c][1]:5.3f}" for c in columns))
    for name in ("reconstruction, windows of 64", "reconstruction, clips up to 196", "held pose [mm]"):
        print(name, {key: round(value, 1) for key, value in results[name].items()})
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
