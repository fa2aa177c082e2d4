"""Trains the shipped motion prior on the train split of the CMU pack.

    python tools/train_prior.py --data ../shared/data/cmu --work runs/prior

Stages: features and made-up motions (``prior_material.py``); tokeniser (closed form, then some steps for its decoder);
tokens; transformer; residual transformer. What each gives is kept in ``--work`` and reused when it is there, but for
the tokens; an interrupted training goes on where it stopped. Weights are chosen on the validation split; the test split
is only reported on. ``--warm`` starts the transformer from an earlier prior of the same sizes, as the shipped file did.
``--share 0.05`` with few steps shows in minutes that everything runs.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from prior_material import Material, add_arguments, prepare, scaled
from pytorch_lightning.callbacks import ModelCheckpoint

from posesyn.storage.checkpoints import load_into, load_weights, save_weights
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.quantizer import ResidualConfig
from posesyn.synthesis.motion.prior.text import HashTextEncoder, SentenceTextEncoder, paraphrase
from posesyn.synthesis.motion.prior.transformer import TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig
from posesyn.training.prior.data import (
    FeatureClip,
    FeatureWindows,
    MixedWindows,
    MotionDataModule,
    TokenClip,
    TokenRecipe,
    TokenWindows,
    reconstruction_error_mm,
    tokenize,
)
from posesyn.training.prior.modules import MotionTransformerModule, MotionVQVAEModule, TransformerRecipe, VQVAERecipe
from posesyn.training.prior.residual import MotionResidualModule, ResidualRecipe, start_from_data

VQVAE = VQVAEConfig(
    codes=512, code_dim=128, width=192, decay=0.998, dead_below=0.05, quantizers=12, beam=8, linear=True,
    convolutional_encoder=False, quantizer_dropout=0.6,
)  # fmt: skip
TRANSFORMER = {"codes": 512, "width": 192, "layers": 2, "heads": 6, "dropout": 0.25}
COMPOSED_SHARE = 0.18  # of the transformer's examples
GUIDANCE = 1.0
SHARPNESS = 1.25  # scores of the finished transformer are multiplied by it, so that temperature 1 draws as 0.8 would
MAX_RUN = 4  # tokens
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


def fit(module: pl.LightningModule, data: MotionDataModule, steps: int, folder: Path, every: int, monitor: str) -> None:
    """Trains, goes on where an interrupted run stopped, and leaves the best weights in ``module``."""
    best = ModelCheckpoint(folder, "best", monitor=monitor, save_weights_only=True, enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", every_n_train_steps=every, enable_version_counter=False)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=pl.loggers.CSVLogger(folder, name="log", version=""),
        callbacks=[best, last],
        gradient_clip_val=1.0,
        val_check_interval=every,
        log_every_n_steps=50,
        enable_progress_bar=True,
        enable_model_summary=False,
    )
    interrupted = folder / "last.ckpt"
    trainer.fit(module, data, ckpt_path=interrupted if interrupted.is_file() else None, weights_only=True)
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)


def patches_of(clips: Sequence[FeatureClip], start: int = 0) -> torch.Tensor:
    """(N, 4, 263) normalised frames of one token each."""
    return torch.cat(
        [
            torch.from_numpy(clip.features[start:][: (len(clip.features) - start) // 4 * 4]).reshape(-1, 4, 263)
            for clip in clips
        ]
    )


def train_vqvae(args: argparse.Namespace, material: Material) -> MotionVQVAE:
    path = args.work / "vqvae.safetensors"
    recipe = VQVAERecipe.small_data(args.vqvae_steps)
    module = MotionVQVAEModule(VQVAE, recipe, material.normalizer)
    if not path.is_file():
        recorded = material.scaled["train"]
        held = torch.from_numpy(material.held)[:, None].expand(-1, VQVAE.frames_per_token, -1)
        patches = [patches_of(recorded, 2), patches_of(material.perturbed), patches_of(material.perturbed, 2), held]
        patches.append(patches_of([clip for clip in recorded if clip.clip_id.endswith("x1")]))
        start_from_data(module.model, torch.cat(patches), seed=args.seed)
        still = np.concatenate([np.zeros(259, np.float32), np.ones(4, np.float32)])
        count = recipe.steps * recipe.batch_size
        windows = MixedWindows(
            FeatureWindows(recorded, recipe.window, count, args.seed),
            FeatureWindows(material.perturbed, recipe.window, count, args.seed + 1),
            material.held,
            scaled(material.normalizer, still),
        )
        val = FeatureWindows(material.scaled["val"], recipe.window, 256, seed=1)
        data = MotionDataModule(windows, val, recipe.batch_size)
        fit(module, data, recipe.steps, args.work / "vqvae", args.every, "val/mpjpe")
        save_weights(path, module.model.state_dict())
    load_into(module.model, load_weights(path), where=path)
    return module.model.eval()


def token_data(tokens: dict[str, list[TokenClip]], recipe, seed: int, val: int) -> MotionDataModule:
    """Examples of both transformers: recorded ones, and COMPOSED_SHARE of composed ones."""
    clips = tokens["train"] + tokens["composed"]
    weights = np.array([len(clip.phases[0]) ** 0.5 if clip.captions else 0.0 for clip in clips])
    own = len(tokens["train"])
    weights[own:] *= COMPOSED_SHARE / (1 - COMPOSED_SHARE) * weights[:own].sum() / weights[own:].sum()
    chosen = [(clip, weight) for clip, weight in zip(clips, weights) if clip.captions]
    plain = TokenRecipe(held_share=0.5, paraphrase_share=0.0, early_start_share=0.0)
    return MotionDataModule(
        TokenWindows(
            [clip for clip, _ in chosen],
            VQVAE.codes,
            recipe.steps * recipe.batch_size,
            seed,
            weights=[weight for _, weight in chosen],
        ),
        TokenWindows(tokens["val"], VQVAE.codes, val, seed=1, recipe=plain),
        recipe.batch_size,
    )


def train_transformer(
    args: argparse.Namespace, tokens: dict[str, list[TokenClip]], text: str, material: Material | None = None
) -> MotionTransformerModule:
    path = args.work / f"transformer-{text}.safetensors"
    encoder = HashTextEncoder() if text == "hash" else SentenceTextEncoder()
    recipe = TransformerRecipe.small_data(args.transformer_steps)
    module = MotionTransformerModule(encoder, TransformerConfig(text_dim=encoder.dim, **TRANSFORMER), recipe)
    if not path.is_file():
        if getattr(args, "warm", None) is not None and material is not None:
            warm_start(module, MotionPriorModel.load(args.warm), material.clips["train"], tokens["train"])
            schedule = replace(recipe.schedule, learning_rate=0.75 * recipe.schedule.learning_rate, warmup=60)
            module.recipe = replace(recipe, schedule=schedule)
        fit(module, token_data(tokens, recipe, args.seed, 256), recipe.steps, args.work / f"transformer-{text}",
            args.every, "val/loss")  # fmt: skip
        save_weights(path, module.state_dict())
    load_into(module, load_weights(path), where=path)
    return module.eval()


def warm_start(
    module: MotionTransformerModule, old: MotionPriorModel, clips: Sequence[FeatureClip], tokens: Sequence[TokenClip]
) -> None:
    """Weights of an earlier prior; a new code's rows are means of the old codes' rows seen at the same places."""
    codes = module.model.config.codes
    together = torch.zeros(codes, old.transformer.config.codes)
    for clip, token in zip(clips, tokens, strict=True):
        if clip.clip_id.endswith("x1"):
            before = old.encode(torch.from_numpy(clip.features)[None])[0]
            before = before if before.ndim == 1 else before[:, 0]
            now = torch.from_numpy(token.phases[0].reshape(len(token.phases[0]), -1)[:, 0])
            count = min(len(before), len(now))
            together.index_put_((now[:count], before[:count]), torch.ones(count), accumulate=True)
    share = together + 0.02 * together.sum(0) / together.sum()
    share = share / share.sum(1, keepdim=True)
    state = old.transformer.state_dict()
    for name in ("trans_base.tok_emb.weight", "trans_head.head.weight"):
        rows = old.transformer.config.codes
        state[name] = torch.cat([share @ state[name][:rows], state[name][rows:]])
    load_into(module.model, state, where="the earlier prior's transformer")
    load_into(module.text_encoder, old.text_encoder.state_dict(), where="the earlier prior's text encoder")


def train_residual(
    args: argparse.Namespace, tokens: dict[str, list[TokenClip]], vqvae: MotionVQVAE, encoder
) -> MotionResidualModule:
    path = args.work / "residual.safetensors"
    recipe = ResidualRecipe.small_data(args.residual_steps)
    sizes = ResidualConfig(VQVAE.quantizers, VQVAE.codes, VQVAE.code_dim, text_dim=encoder.dim)
    module = MotionResidualModule(vqvae.vqvae.quantizer, encoder, sizes, recipe)
    if not path.is_file():
        every = torch.from_numpy(np.concatenate([clip.phases[0] for clip in tokens["train"] + tokens["composed"]]))
        usage = torch.stack([torch.bincount(codes, minlength=VQVAE.codes) for codes in every.T])
        module.model.start_from(torch.stack([layer.codebook for layer in vqvae.vqvae.quantizer.layers]), usage.float())
        fit(module, token_data(tokens, recipe, args.seed, 128), recipe.steps, args.work / "residual", args.every,
            "val/loss")  # fmt: skip
        save_weights(path, module.model.state_dict())
    load_into(module.model, load_weights(path), where=path)
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
    add_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("posesyn/assets/motion_prior.safetensors"))
    parser.add_argument("--text", choices=("hash", "sentence"), default="hash")
    parser.add_argument("--vqvae-steps", type=int, default=1400)
    parser.add_argument("--transformer-steps", type=int, default=2000)
    parser.add_argument("--residual-steps", type=int, default=400)
    parser.add_argument("--warm", type=Path, help="an earlier prior to start the transformer from")
    parser.add_argument("--every", type=int, default=250, help="steps between validations")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pl.seed_everything(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)

    start = time.time()
    material = prepare(args)
    normalizer, clips = material.normalizer, material.scaled
    report: dict = {"frames": {split: sum(len(c.features) for c in own) for split, own in clips.items()}}
    report["seconds"] = {"features": round(time.time() - start)}
    vqvae = train_vqvae(args, material)
    report["seconds"]["vqvae"] = round(time.time() - start)
    report["reconstruction"] = {s: reconstruction_error_mm(vqvae, normalizer, clips[s]) for s in ("val", "test")}
    tokens = {split: tokenize(vqvae, normalizer, own) for split, own in clips.items()}
    report["seconds"]["tokens"] = round(time.time() - start)
    module = train_transformer(args, tokens, args.text, material)
    report["seconds"]["transformer"] = round(time.time() - start)
    residual = train_residual(args, tokens, vqvae, module.text_encoder)
    report["seconds"]["residual"] = round(time.time() - start)
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
    with torch.no_grad():
        module.model.trans_head.head.weight.mul_(SHARPNESS)
    prior = MotionPriorModel(
        vqvae, module.model, module.text_encoder, normalizer, "posesyn-cmu-2", GUIDANCE, residual.model, MAX_RUN
    )
    prior.save(args.out)
    report["megabytes"] = round(args.out.stat().st_size / 1e6, 2)
    (args.work / f"report-{args.text}.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
