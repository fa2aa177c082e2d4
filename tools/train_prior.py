"""Trains the shipped motion prior on the train split of the CMU pack.

    python tools/train_prior.py --data ../shared/data/cmu --work runs/prior

The recipe is :func:`posesyn.training.train_prior`; this script reads the mocap, asks for the motions put together of
recorded ones, and reports on held-out people. An interrupted training goes on where it stopped. Weights are chosen on
the validation split; the test split is only reported on. ``--warm`` starts the transformer from an earlier prior of the
same sizes, as the shipped file did. ``--share 0.05`` with few steps shows in minutes that everything runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from prior_material import add_arguments, offsets_of, recorded

from posesyn.settings import PriorSettings, TrainerSettings
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.text import paraphrase
from posesyn.training import train_prior
from posesyn.training.prior.data import (
    MotionDataModule,
    TokenRecipe,
    TokenWindows,
    features_of,
    reconstruction_error_mm,
    tokenize,
)
from posesyn.training.prior.modules import MotionTransformerModule
from posesyn.training.prior.sources import normalised

COMPOSED = 360
UNSEEN = {  # wordings for the comparison of text encoders
    "walk": ("a guy is ambling along", "the lady heads off on foot", "they saunter down the road"),
    "steps": ("a guy is ambling along", "the lady heads off on foot", "they saunter down the road"),
    "jog": ("the athlete goes at a trot", "hurrying along to catch the bus"),
    "run": ("the athlete goes at a trot", "hurrying along to catch the bus"),
    "jump": ("springing off the ground", "a pogo-like bouncing movement"),
    "punch": ("a brawler lashes out with the fists", "shadowboxing an opponent"),
    "sword": ("brandishing a sabre", "duelling with a blade"),
    "bend": ("stooping to fetch an object that fell", "a worker hunches over"),
    "wash": ("soaping the skin under a shower", "rubbing the body clean"),
    "danc": ("moving rhythmically to music", "a ballerina performs on stage"),
    "kick": ("swinging a foot at a target", "a footstrike at head height"),
    "climb": ("scaling a wall", "going up the rungs"),
}


def unseen(caption: str) -> str:
    """A wording whose telling words occur in no training caption, for captions of the commonest actions."""
    for word, wordings in UNSEEN.items():
        if word in caption.lower():
            return wordings[zlib.crc32(caption.encode()) % len(wordings)]
    return caption


@torch.no_grad()
def held_out_loss(module: MotionTransformerModule, clips: list, reword: Callable[[str], str] | None = None) -> dict:
    """Cross-entropy and accuracy on 512 held-out examples; without ``reword`` every example gets a wrong caption."""
    recipe = TokenRecipe(held_share=0.0, paraphrase_share=0.0, early_start_share=0.0)
    data = MotionDataModule(None, TokenWindows(clips, module.model.config.codes, 512, seed=2, recipe=recipe), 64)
    results = []
    for batch in data.val_dataloader():
        texts = batch["text"]
        batch["text"] = [reword(text) for text in texts] if reword else texts[1:] + texts[:1]
        results.append([float(value) for value in module.loss(batch)])
    loss, accuracy = np.mean(results, 0)
    return {"cross-entropy": round(float(loss), 4), "accuracy": round(float(accuracy), 4)}


def report_on(prior: MotionPriorModel, sharpness: float, mocap: dict[str, list], offsets: np.ndarray) -> dict:
    """Errors of the tokeniser and of the transformer, before it was sharpened, on held-out people."""
    module = MotionTransformerModule(prior.text_encoder, prior.transformer.config).eval()
    module.model.load_state_dict(prior.transformer.state_dict())
    with torch.no_grad():
        module.model.trans_head.head.weight.div_(sharpness)
    rng = np.random.default_rng(3)
    wordings = {
        "as written": str,
        "templates": lambda text: paraphrase(text, lambda n: int(rng.integers(n))),
        "unseen words": unseen,
        "wrong caption": None,
    }
    report: dict = {"reconstruction": {}, "held out": {}}
    for split in ("val", "test"):
        clips = normalised(features_of(mocap[split], offsets), prior.normalizer)
        report["reconstruction"][split] = reconstruction_error_mm(prior.vqvae, prior.normalizer, clips)
        tokens = tokenize(prior.vqvae, prior.normalizer, clips)
        report["held out"][split] = {name: held_out_loss(module, tokens, word) for name, word in wordings.items()}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("posesyn/assets/motion_prior.safetensors"))
    parser.add_argument("--text", choices=("hash", "sentence"), default="hash")
    parser.add_argument("--vqvae-steps", type=int, default=PriorSettings.tokeniser_steps)
    parser.add_argument("--transformer-steps", type=int, default=PriorSettings.transformer_steps)
    parser.add_argument("--residual-steps", type=int, default=PriorSettings.residual_steps)
    parser.add_argument("--warm", type=Path, help="an earlier prior to start the transformer from")
    parser.add_argument("--every", type=int, default=250, help="steps between validations")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = PriorSettings(
        name="posesyn-cmu-2",
        tokeniser_steps=args.vqvae_steps,
        transformer_steps=args.transformer_steps,
        residual_steps=args.residual_steps,
        checkpoint_every=args.every,
        text=args.text,
        perturbed_frames=max(1, round(PriorSettings.perturbed_frames * args.share)),
        held_poses=max(2, round(PriorSettings.held_poses * args.share)),
        composed=round(COMPOSED * args.share),
        warm=args.warm,
    )
    start = time.time()
    mocap = {split: recorded(args, split) for split in ("train", "val", "test")}
    folder = args.work / f"prior-{args.text}"
    trainer = TrainerSettings(accelerator="cpu")
    path = train_prior(mocap["train"], folder, settings, mocap["val"], args.seed, trainer=trainer)
    report = report_on(MotionPriorModel.load(path), settings.sharpness, mocap, offsets_of(args))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, args.out)
    report |= {"seconds": round(time.time() - start), "megabytes": round(args.out.stat().st_size / 1e6, 2)}
    (args.work / f"report-{args.text}.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
