"""An interrupted residual transformer ends as an uninterrupted one."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
import torch

from posesyn.synthesis.motion.prior.quantizer import ResidualConfig, ResidualQuantizer
from posesyn.synthesis.motion.prior.text import HashTextConfig, HashTextEncoder
from posesyn.training.prior.data import MotionDataModule, TokenClip, TokenWindows
from posesyn.training.prior.modules import MotionResidualModule, ResidualRecipe, Schedule


def test_a_resumed_residual_transformer_equals_an_uninterrupted_one(tmp_path, rng):
    codes = rng.integers(0, 12, (40, 3))
    clip = TokenClip("m", (codes,), np.stack([codes, codes], 1), ("a person walks",))

    def fit(until, resume=None):
        torch.manual_seed(0)
        quantizer = ResidualQuantizer(3, 12, 8).eval()
        for layer in quantizer.layers:
            layer.codebook.normal_()
        encoder = HashTextEncoder(HashTextConfig(64, 8, 10)).eval()
        sizes = ResidualConfig(3, 12, 8, 10, width=16, layers=1, heads=2, dropout=0.3)
        module = MotionResidualModule(quantizer, encoder, sizes, ResidualRecipe(Schedule(1e-2), batch_size=4))
        torch.manual_seed(torch.seed())  # what came before must not matter
        data = MotionDataModule(TokenWindows([clip], 12, 40), TokenWindows([clip], 12, 4, 1), 4)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        quiet |= {"enable_model_summary": False, "default_root_dir": tmp_path}
        run = pl.Trainer(max_steps=until, val_check_interval=2, accelerator="cpu", **quiet)
        run.fit(module, data, ckpt_path=resume, weights_only=True)
        run.save_checkpoint(tmp_path / f"{until}.ckpt")
        assert {"val/loss", "val/level1", "val/level2"} <= set(run.callback_metrics)
        return torch.load(tmp_path / f"{until}.ckpt", weights_only=True)

    whole = fit(9)
    fit(4)
    resumed = fit(9, tmp_path / "4.ckpt")
    assert whole["global_step"] == resumed["global_step"] == 9
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key
