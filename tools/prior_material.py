"""What the motion prior is trained on: recorded motions of the CMU pack as features, and motions made from them.

Only captions of the sources ``cmu-index`` and ``rewritten`` are used (see data/cmu/README.md) and wordings of our own;
no other data set plays a part. Everything made is kept in ``--work`` and reused when it is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posesyn.body import load_body
from posesyn.data.motions.captions import load_mocap
from posesyn.synthesis.motion.prior.features import (
    body_offsets,
    bone_offsets,
    motion_features,
    recover_joints,
    still_features,
)
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.training.prior.augmentation import CaptionedJoints, composed, perturbed
from posesyn.training.prior.data import FeatureClip, features_of
from posesyn.training.prior.sources import normalised

SPEEDS = (1.0, 0.85, 1.15)
PERTURBED_FRAMES, HELD_POSES, COMPOSED = 300_000, 16_000, 360


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument("--work", type=Path, default=Path("runs/prior"), help="what is made is kept here")
    parser.add_argument("--offsets", type=Path, help="(22, 3) bone vectors .npy instead of the free body's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of all motions; less only to try the tools out")


@dataclass(frozen=True)
class Material:
    """What the stages are trained on; features of ``clips`` are not normalised, those of the others are."""

    normalizer: Normalizer
    clips: dict[str, list[FeatureClip]]
    scaled: dict[str, list[FeatureClip]]
    perturbed: list[FeatureClip]
    held: np.ndarray


def prepare(args: argparse.Namespace) -> Material:
    """Statistics, recorded features and made-up ones; kept in ``--work``."""
    clips = raw_features(args)
    normalizer = Normalizer.from_features("posesyn-cmu-train", [clip.features for clip in clips["train"]])
    clips["composed"] = [
        FeatureClip(f"composed{i}", motion_features(made.joints, None, continuous_heading=True), made.captions)
        for i, made in enumerate(composed(_recorded(clips["train"]), round(COMPOSED * args.share), args.seed))
    ]
    frames, lengths, held = made_up(args, clips["train"])
    parts = np.split(frames, np.cumsum(lengths)[:-1])
    made = [FeatureClip(f"perturbed{i}", scaled(normalizer, part), ()) for i, part in enumerate(parts)]
    recorded = {split: normalised(own, normalizer) for split, own in clips.items()}
    return Material(normalizer, clips, recorded, made, scaled(normalizer, held))


def scaled(normalizer: Normalizer, features: np.ndarray) -> np.ndarray:
    return normalizer.normalize(features).astype(np.float32)


def _recorded(clips: Sequence[FeatureClip]) -> list[CaptionedJoints]:
    return [CaptionedJoints(recover_joints(c.features), c.captions) for c in clips if c.clip_id.endswith("x1")]


def made_up(args: argparse.Namespace, clips: Sequence[FeatureClip]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of perturbed motions, one after the other, their lengths, and features of held poses."""
    path = args.work / "made_up.npz"
    if not path.is_file():
        rng = np.random.default_rng(args.seed)
        joints = [own.joints for own in _recorded(clips)]
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < PERTURBED_FRAMES * args.share:
            made = perturbed(joints, rng)
            if len(made) > 64:
                parts.append(motion_features(made, None, continuous_heading=True))
        poses = []
        for number in range(round(HELD_POSES * args.share)):
            if number % 2:
                source = joints[rng.integers(len(joints))]
                poses.append(source[rng.integers(len(source))])
            else:
                part = parts[rng.integers(len(parts))]
                frame = rng.integers(len(part))
                poses.append(recover_joints(part[frame : frame + 1])[0])
        noisy = rng.random(len(poses)) < 0.6  # as estimators' poses are
        noise = rng.normal(size=(len(poses), 22, 3)) * (noisy * rng.uniform(0.01, 0.06, len(poses)))[:, None, None]
        held = still_features(np.stack(poses) + noise, bone_offsets(joints[0][0]))
        np.savez(path, frames=np.concatenate(parts), lengths=[len(part) for part in parts], held=held)
    with np.load(path, allow_pickle=False) as stored:
        return stored["frames"], stored["lengths"], stored["held"]


def raw_features(args: argparse.Namespace) -> dict[str, list[FeatureClip]]:
    path = args.work / "features.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            index = json.loads(str(stored["index"]))
            return {
                split: [FeatureClip(n, stored[f"{split}{i}"], tuple(c)) for i, (n, c) in enumerate(own)]
                for split, own in index.items()
            }
    offsets = np.load(args.offsets) if args.offsets else body_offsets(load_body("anny", size="small"))
    clips = {}
    for split in ("train", "val", "test"):
        train = split == "train"
        motions = load_mocap(args.data, split, min_frames=24, mirrored=train)
        motions = motions[:: max(1, round(1 / args.share))]
        clips[split] = features_of(motions, offsets, SPEEDS if train else (1.0,))
    arrays = {f"{split}{i}": c.features for split, own in clips.items() for i, c in enumerate(own)}
    index = {split: [(c.clip_id, c.captions) for c in own] for split, own in clips.items()}
    np.savez(path, index=json.dumps(index), **arrays)
    return clips
