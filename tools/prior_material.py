"""The CMU pack for the tools that train on it: mocap by split, and its features, kept in ``--work``.

Only captions of the sources ``cmu-index`` and ``rewritten`` are used (see data/cmu/README.md) and wordings of our own;
no other data set plays a part.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from posesyn.body import load_body
from posesyn.data.motions.captions import CaptionedMotion, load_mocap
from posesyn.settings import PriorSettings
from posesyn.synthesis.motion.prior.features import body_offsets
from posesyn.training.prior.data import FeatureClip, features_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument("--work", type=Path, default=Path("runs/prior"), help="what is made is kept here")
    parser.add_argument("--offsets", type=Path, help="(22, 3) bone vectors .npy instead of the free body's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of all motions; less only to try the tools out")


def offsets_of(args: argparse.Namespace) -> np.ndarray:
    return np.load(args.offsets) if args.offsets else body_offsets(load_body("anny", size="small"))


def recorded(args: argparse.Namespace, split: str) -> list[CaptionedMotion]:
    """Motions of a split, those for training with their mirror images."""
    motions = load_mocap(args.data, split, min_frames=24, mirrored=split == "train")
    return motions[:: max(1, round(1 / args.share))]


def raw_features(args: argparse.Namespace) -> dict[str, list[FeatureClip]]:
    """Features by split, not normalised; those for training at all speeds."""
    path = args.work / "features.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            index = json.loads(str(stored["index"]))
            return {
                split: [FeatureClip(n, stored[f"{split}{i}"], tuple(c)) for i, (n, c) in enumerate(own)]
                for split, own in index.items()
            }
    clips = {}
    for split in ("train", "val", "test"):
        speeds = PriorSettings.speeds if split == "train" else (1.0,)
        clips[split] = features_of(recorded(args, split), offsets_of(args), speeds)
    arrays = {f"{split}{i}": c.features for split, own in clips.items() for i, c in enumerate(own)}
    index = {split: [(c.clip_id, c.captions) for c in own] for split, own in clips.items()}
    args.work.mkdir(parents=True, exist_ok=True)
    np.savez(path, index=json.dumps(index), **arrays)
    return clips
