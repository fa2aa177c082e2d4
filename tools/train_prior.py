"""Trains the shipped motion prior on the train split of the CMU pack.

    python tools/train_prior.py --data ../shared/data/cmu --work runs/prior

Only captions of the sources ``cmu-index`` and ``rewritten`` are used (see data/cmu/README.md), with mirrored copies,
time warping and reworded captions. Weights are chosen on the validation split; the test split is only reported on.
The shipped file took about 25 minutes for each stage on one busy core. A finished stage in ``--work`` is reused; an
interrupted tokeniser goes on from its best weights, for ``--vqvae-steps`` more.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from posesyn.body import load_body
from posesyn.data.motion_captions import load_mocap
from posesyn.storage.checkpoints import load_into, load_weights, save_weights
from posesyn.synthesis.motion.features import body_offsets
from posesyn.synthesis.motion.lexicon import paraphrase
from posesyn.synthesis.motion.normalizer import Normalizer
from posesyn.synthesis.motion.prior import MotionPriorModel
from posesyn.synthesis.motion.text import HashTextEncoder, SentenceTextEncoder
from posesyn.synthesis.motion.transformer import TransformerConfig
from posesyn.synthesis.motion.vqvae import MotionVQVAE, VQVAEConfig
from posesyn.training.motion import MotionTransformerModule, MotionVQVAEModule, TransformerRecipe, VQVAERecipe
from posesyn.training.motion_data import (
    FeatureClip,
    FeatureWindows,
    MotionDataModule,
    TokenRecipe,
    TokenWindows,
    features_of,
    reconstruction_error_mm,
    tokenize,
)

VQVAE = VQVAEConfig(codes=512, code_dim=128, width=128, dead_below=0.05)
TRANSFORMER = {"codes": 512, "width": 192, "layers": 2, "heads": 6, "dropout": 0.25}
SPEEDS = (1.0, 0.85, 1.15)
GUIDANCE = 1.0  # more makes motions stand still: it prefers the likeliest tokens
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


def prepare(args: argparse.Namespace) -> tuple[Normalizer, dict[str, list[FeatureClip]]]:
    """Normaliser and normalised features of the three splits; kept in ``--work``."""
    clips = raw_features(args)
    normalizer = Normalizer.from_features("posesyn-cmu-train", [clip.features for clip in clips["train"]])
    scaled = {
        split: [FeatureClip(c.clip_id, normalizer.normalize(c.features), c.captions) for c in own]
        for split, own in clips.items()
    }
    return normalizer, scaled


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
        clips[split] = features_of(motions, offsets, SPEEDS if train else (1.0,))
    arrays = {f"{split}{i}": c.features for split, own in clips.items() for i, c in enumerate(own)}
    index = {split: [(c.clip_id, c.captions) for c in own] for split, own in clips.items()}
    np.savez(path, index=json.dumps(index), **arrays)
    return clips


def fit(module: pl.LightningModule, data: MotionDataModule, steps: int, folder: Path, every: int) -> None:
    """Trains and leaves the weights of the lowest validation loss in ``module``."""
    best = ModelCheckpoint(folder, "best", monitor="val/loss", save_weights_only=True, enable_version_counter=False)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=pl.loggers.CSVLogger(folder, name="log", version=""),
        callbacks=[best],
        gradient_clip_val=1.0,
        val_check_interval=every,
        log_every_n_steps=50,
        enable_progress_bar=True,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)


def train_vqvae(args: argparse.Namespace, clips: dict[str, list[FeatureClip]]) -> MotionVQVAE:
    path = args.work / "vqvae.safetensors"
    module = MotionVQVAEModule(VQVAE, VQVAERecipe.small_data(args.vqvae_steps))
    if not path.is_file():
        recipe = module.recipe
        data = MotionDataModule(
            FeatureWindows(clips["train"], recipe.window, recipe.steps * recipe.batch_size, args.seed),
            FeatureWindows(clips["val"], recipe.window, 256, seed=1),
            recipe.batch_size,
        )
        interrupted = args.work / "vqvae" / "best.ckpt"
        if interrupted.is_file():
            load_into(module, load_weights(interrupted, key="state_dict"), where=interrupted)
        fit(module, data, recipe.steps, args.work / "vqvae", every=args.every)
        save_weights(path, module.model.state_dict())
    load_into(module.model, load_weights(path), where=path)
    return module.model.eval()


def train_transformer(args: argparse.Namespace, tokens: dict[str, list], text: str) -> MotionTransformerModule:
    path = args.work / f"transformer-{text}.safetensors"
    encoder = HashTextEncoder() if text == "hash" else SentenceTextEncoder()
    recipe = TransformerRecipe.small_data(args.transformer_steps)
    module = MotionTransformerModule(encoder, TransformerConfig(text_dim=encoder.dim, **TRANSFORMER), recipe)
    if not path.is_file():
        plain = TokenRecipe(held_share=0.5, paraphrase_share=0.0, early_start_share=0.0)
        data = MotionDataModule(
            TokenWindows(tokens["train"], VQVAE.codes, recipe.steps * recipe.batch_size, args.seed),
            TokenWindows(tokens["val"], VQVAE.codes, 256, seed=1, recipe=plain),
            recipe.batch_size,
        )
        fit(module, data, recipe.steps, args.work / f"transformer-{text}", every=args.every)
        save_weights(path, module.state_dict())
    load_into(module, load_weights(path), where=path)
    return module.eval()


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
    data = MotionDataModule(None, TokenWindows(clips, VQVAE.codes, 512, seed=2, recipe=recipe), 64)
    results = []
    for batch in data.val_dataloader():
        texts = batch["text"]
        batch["text"] = [reword(text) for text in texts] if reword else texts[1:] + texts[:1]
        results.append([float(value) for value in module.loss(batch)])
    loss, accuracy = np.mean(results, 0)
    return {"cross-entropy": round(float(loss), 4), "accuracy": round(float(accuracy), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument("--work", type=Path, default=Path("runs/prior"))
    parser.add_argument("--out", type=Path, default=Path("posesyn/assets/motion_prior.safetensors"))
    parser.add_argument("--text", choices=("hash", "sentence"), default="hash")
    parser.add_argument("--vqvae-steps", type=int, default=3000)
    parser.add_argument("--transformer-steps", type=int, default=2500)
    parser.add_argument("--every", type=int, default=250, help="steps between validations")
    parser.add_argument("--offsets", type=Path, help="(22, 3) bone vectors .npy instead of the free body's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pl.seed_everything(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)

    start = time.time()
    normalizer, clips = prepare(args)
    report: dict = {"frames": {split: sum(len(c.features) for c in own) for split, own in clips.items()}}
    report["seconds"] = {"features": round(time.time() - start)}
    vqvae = train_vqvae(args, clips)
    report["seconds"]["vqvae"] = round(time.time() - start)
    report["reconstruction"] = {s: reconstruction_error_mm(vqvae, normalizer, clips[s]) for s in ("val", "test")}
    tokens = {split: tokenize(vqvae, normalizer, own) for split, own in clips.items()}
    module = train_transformer(args, tokens, args.text)
    report["seconds"]["transformer"] = round(time.time() - start)
    rng = np.random.default_rng(3)
    wordings = {
        "as written": str,
        "templates": lambda text: paraphrase(text, lambda n: int(rng.integers(n))),
        "unseen words": unseen,
        "wrong caption": None,
    }
    report["held out"] = {
        split: {name: held_out_loss(module, tokens[split], reword) for name, reword in wordings.items()}
        for split in ("val", "test")
    }
    prior = MotionPriorModel(
        vqvae, module.model, module.text_encoder, normalizer, "posesyn-cmu-small", guidance=GUIDANCE
    )
    prior.save(args.out)
    report["megabytes"] = round(args.out.stat().st_size / 1e6, 2)
    (args.work / f"report-{args.text}.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
