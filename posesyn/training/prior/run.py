"""Trains a whole motion prior in one folder: tokeniser, transformer, and the transformer of the residual codes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posesyn.body import load_body
from posesyn.data.motions.captions import CaptionedMotion
from posesyn.errors import InputError
from posesyn.settings.base import identity, with_changes
from posesyn.settings.training import PriorSettings, TrainerSettings
from posesyn.storage.checkpoints import load_into, load_weights, save_weights
from posesyn.storage.ledger import RunLedger
from posesyn.synthesis.motion.prior.features import body_offsets
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.quantizer import ResidualConfig
from posesyn.synthesis.motion.prior.text import HashTextEncoder, SentenceTextEncoder
from posesyn.synthesis.motion.prior.transformer import TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig, start_from_data
from posesyn.training.prior.data import (
    FeatureClip,
    FeatureWindows,
    MixedWindows,
    MotionDataModule,
    TokenClip,
    TokenRecipe,
    TokenWindows,
    tokenize,
)
from posesyn.training.prior.material import Material, fingerprint, gather
from posesyn.training.prior.modules import (
    MotionResidualModule,
    MotionTransformerModule,
    MotionVQVAEModule,
    ResidualRecipe,
    TransformerRecipe,
    VQVAERecipe,
)
from posesyn.training.runs import lowest, run_training

PRIOR, WEIGHTS = "prior.safetensors", "weights.safetensors"
LAYOUT = 2  # of the folder; changed where one of before would go on with other random numbers


def train_prior(
    motions: Sequence[FeatureClip | CaptionedMotion],
    out: str | os.PathLike[str],
    settings: PriorSettings | None = None,
    validation: Sequence[FeatureClip | CaptionedMotion] | None = None,
    seed: int = 0,
    progress: bool = True,
    *,
    body: Any = None,
    trainer: TrainerSettings | None = None,
    **changes: Any,
) -> Path:
    """Trains a motion prior on captioned motions and writes ``out/prior.safetensors``.

    The stages have a folder each, ``tokeniser``, ``transformer`` and ``residual``, with weights, ``curves.csv`` and
    ``last.ckpt``. A run that was interrupted goes on in the stage where it stopped and ends with the numbers it would
    have had. Of every stage the weights with the lowest validation error are kept.

    Args:
        motions: Clips of a reader of :mod:`posesyn.training.prior.sources` (features as they are, not normalised), or
            mocap of :func:`posesyn.data.motions.captions.load_mocap` at 20 frames per second.
        out: Folder.
        settings: See :class:`~posesyn.settings.training.PriorSettings`.
        validation: Motions to choose the weights on, best of other people. None holds back every tenth motion.
        seed: Decides everything that is drawn.
        progress: Show bars.
        body: Whose bone lengths mocap gets; None is the free body, which :class:`MotionSynthesizer` moves.
        trainer: Device and precision.
        **changes: Fields of the settings by name.

    Returns:
        Path of the prior, for ``MotionSynthesizer.from_pretrained(path)``.

    Raises:
        InputError: No motion with a caption, too few or too short ones, or settings that do not fit together.
        RunError: The folder holds a training of other motions, settings or seed, or another process works in it.
        KeyboardInterrupt: The training was interrupted.
    """
    settings, out = with_changes(PriorSettings, settings, changes), Path(out)
    motions = list(motions)
    if validation is None:
        motions, validation = [m for i, m in enumerate(motions) if i % 10 != 9], motions[9::10] or motions[-1:]
    config = {
        "kind": "motion prior",
        "layout": LAYOUT,
        "settings": identity(settings),
        "seed": seed,
        "motions": fingerprint(motions),
        "validation": fingerprint(validation),
    }
    with RunLedger(out, config):
        path = out / PRIOR
        if path.is_file():
            return path
        offsets = body_offsets(load_body("anny", size="small") if body is None else body)
        material = gather(motions, validation, offsets, settings, seed, out)
        stages = _Stages(out, settings, seed, trainer, progress)
        vqvae = stages.tokeniser(material)
        parts = ("recorded", "composed", "validation")
        tokens = {name: tokenize(vqvae, material.normalizer, getattr(material, name)) for name in parts}
        transformer = stages.transformer(tokens, material)
        model, encoder = transformer.model, transformer.text_encoder
        residual = stages.residual(tokens, vqvae, encoder).model
        with torch.no_grad():
            model.trans_head.head.weight.mul_(settings.sharpness)
        sampled = (settings.name, settings.guidance, residual, settings.max_run)
        MotionPriorModel(vqvae, model, encoder, material.normalizer, *sampled).save(path)
    return path


class _Stages:
    """The three trainings of one folder."""

    def __init__(
        self, out: Path, settings: PriorSettings, seed: int, trainer: TrainerSettings | None, progress: bool
    ) -> None:
        self.out, self.settings, self.seed, self.trainer, self.progress = out, settings, seed, trainer, progress

    def tokeniser(self, material: Material) -> MotionVQVAE:
        settings, seed = self.settings, self.seed
        config = VQVAEConfig(
            codes=settings.codes, code_dim=settings.code_dim, width=settings.tokeniser_width, decay=0.998,
            dead_below=0.05, quantizers=settings.quantizers, beam=settings.beam, linear=True,
            convolutional_encoder=False, quantizer_dropout=0.6,
        )  # fmt: skip
        recipe = replace(VQVAERecipe.small_data(settings.tokeniser_steps), seed=seed)
        torch.manual_seed(seed)
        module = MotionVQVAEModule(config, recipe, material.normalizer)

        def data() -> MotionDataModule:
            held = torch.from_numpy(material.held)[:, None].expand(-1, config.frames_per_token, -1)
            made = material.perturbed
            patches = [_patches(material.recorded, 2), _patches(made), _patches(made, 2), held, _patches(material.own)]
            start_from_data(module.model, torch.cat(patches), seed=seed)
            still = np.concatenate([np.zeros(259, np.float32), np.ones(4, np.float32)])
            count = recipe.steps * recipe.batch_size
            windows = MixedWindows(
                FeatureWindows(material.recorded, recipe.window, count, seed),
                FeatureWindows(made, recipe.window, count, seed + 1),
                material.held,
                material.scaled(still),
            )
            checked = FeatureWindows(material.validation, recipe.window, 256, seed=1)
            return MotionDataModule(windows, checked, recipe.batch_size)

        return self._train("tokeniser", module, module.model, data, recipe.steps, "val/mpjpe")

    def transformer(self, tokens: dict[str, list[TokenClip]], material: Material) -> MotionTransformerModule:
        settings = self.settings
        torch.manual_seed(self.seed)
        encoder = HashTextEncoder() if settings.text == "hash" else SentenceTextEncoder()
        config = TransformerConfig(
            settings.codes, settings.width, encoder.dim, layers=settings.layers, heads=settings.heads,
            dropout=settings.dropout,
        )  # fmt: skip
        recipe = replace(TransformerRecipe.small_data(settings.transformer_steps), seed=self.seed)
        module = MotionTransformerModule(encoder, config, recipe)
        if settings.warm is not None:
            _warm_start(module, MotionPriorModel.load(settings.warm), material, tokens["recorded"])
            schedule = replace(recipe.schedule, learning_rate=0.75 * recipe.schedule.learning_rate, warmup=60)
            module.recipe = recipe = replace(recipe, schedule=schedule)

        def data() -> MotionDataModule:
            return self._token_data(tokens, recipe.steps, recipe.batch_size, 256)

        return self._train("transformer", module, module, data, recipe.steps, "val/loss")

    def residual(self, tokens: dict[str, list[TokenClip]], vqvae: MotionVQVAE, encoder: Any) -> MotionResidualModule:
        recipe = replace(ResidualRecipe.small_data(self.settings.residual_steps), seed=self.seed)
        config = vqvae.config
        sizes = ResidualConfig(config.quantizers, config.codes, config.code_dim, text_dim=encoder.dim)
        torch.manual_seed(self.seed)
        module = MotionResidualModule(vqvae.vqvae.quantizer, encoder, sizes, recipe)
        every = np.concatenate([clip.phases[0] for clip in tokens["recorded"] + tokens["composed"]])
        usage = torch.stack([torch.bincount(codes, minlength=config.codes) for codes in torch.from_numpy(every).T])
        module.model.start_from(torch.stack([book.codebook for book in vqvae.vqvae.quantizer.layers]), usage.float())

        def data() -> MotionDataModule:
            return self._token_data(tokens, recipe.steps, recipe.batch_size, 128)

        self._train("residual", module, module.model, data, recipe.steps, "val/loss")
        return module.eval()

    def _token_data(self, tokens: dict[str, list[TokenClip]], steps: int, size: int, checked: int) -> MotionDataModule:
        """Examples of both transformers: recorded ones, and a share of composed ones."""
        share, own = self.settings.composed_share, len(tokens["recorded"])
        clips = tokens["recorded"] + tokens["composed"]
        weights = np.array([len(clip.phases[0]) ** 0.5 if clip.captions else 0.0 for clip in clips])
        if len(clips) > own:
            weights[own:] *= share / (1 - share) * weights[:own].sum() / weights[own:].sum()
        chosen, codes = [row for row, clip in enumerate(clips) if clip.captions], self.settings.codes
        said = [clips[row] for row in chosen]
        train = TokenWindows(said, codes, steps * size, self.seed, weights=weights[chosen])
        plain = TokenRecipe(held_share=0.5, paraphrase_share=0.0, early_start_share=0.0)
        held_out = TokenWindows(tokens["validation"], codes, checked, seed=1, recipe=plain)
        return MotionDataModule(train, held_out, size)

    def _train(
        self, stage: str, module: Any, network: Any, data: Callable[[], MotionDataModule], steps: int, monitor: str
    ) -> Any:
        """``network`` with the best weights of one stage; a finished stage is read."""
        path = self.out / stage / WEIGHTS
        if not path.is_file():
            with warnings.catch_warnings():
                # Lightning does not know that MotionDataModule goes on at the right example.
                warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
                run_training(
                    module,
                    network,
                    path.parent,
                    {"kind": f"motion prior, {stage}", "settings": identity(self.settings), "seed": self.seed},
                    weights=WEIGHTS,
                    save=lambda file, kept: save_weights(file, network.state_dict()),
                    data=data(),
                    steps=steps,
                    every=self.settings.checkpoint_every,
                    offers=lowest(monitor, network),
                    trainer=self.trainer,
                    progress=self.progress,
                    name=stage,
                    gradient_clip_val=1.0,
                )
        load_into(network, load_weights(path), where=path)
        return network.eval()


def _patches(clips: Sequence[FeatureClip], start: int = 0, step: int = 4) -> torch.Tensor:
    """(N, 4, 263) frames of one token each."""
    whole = (clip.features[start:][: (len(clip.features) - start) // step * step] for clip in clips)
    return torch.cat([torch.from_numpy(part).reshape(-1, step, part.shape[1]) for part in whole])


def _warm_start(
    module: MotionTransformerModule, old: MotionPriorModel, material: Material, tokens: Sequence[TokenClip]
) -> None:
    """Weights of an earlier prior; a new code's rows are means of the old codes' rows seen at the same places."""
    codes, rows = module.model.config.codes, old.transformer.config.codes
    together = torch.zeros(codes, rows)
    for clip, token in zip(material.recorded, tokens, strict=True):
        if not clip.clip_id.endswith("x1"):
            continue
        before = old.encode(torch.from_numpy(material.normalizer.denormalize(clip.features))[None])[0]
        before = before if before.ndim == 1 else before[:, 0]
        now = torch.from_numpy(token.phases[0].reshape(len(token.phases[0]), -1)[:, 0])
        count = min(len(before), len(now))
        together.index_put_((now[:count], before[:count]), torch.ones(count), accumulate=True)
    if not together.sum() > 0:
        raise InputError("the earlier prior has no token in common with the motions", where="train_prior")
    share = together + 0.02 * together.sum(0) / together.sum()
    share = share / share.sum(1, keepdim=True)
    state = old.transformer.state_dict()
    for name in ("trans_base.tok_emb.weight", "trans_head.head.weight"):
        state[name] = torch.cat([share @ state[name][:rows], state[name][rows:]])
    load_into(module.model, state, where="the earlier prior's transformer")
    if isinstance(module.text_encoder, HashTextEncoder):
        load_into(module.text_encoder, old.text_encoder.state_dict(), where="the earlier prior's text encoder")
