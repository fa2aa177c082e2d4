from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from posesyn.errors import CheckpointError, FileError, InputError
from posesyn.storage.checkpoints import load_metadata, load_weights, save_weights
from posesyn.synthesis.motion.prior.prior import SHIPPED, MotionPriorModel
from posesyn.synthesis.motion.prior.text import HashTextConfig, HashTextEncoder
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig


def test_features_pass_through_with_the_priors_own_statistics(tiny_prior):
    features = torch.from_numpy(tiny_prior.normalizer.mean).expand(2, 12, 263) + 0.05 * torch.randn(2, 12, 263)
    codes = tiny_prior.encode(features)
    assert codes.shape == (2, 3)
    normalised = (features - torch.from_numpy(tiny_prior.normalizer.mean)) / 0.05
    torch.testing.assert_close(codes, tiny_prior.vqvae.encode(normalised))
    decoded = tiny_prior.decode(codes)
    expected = tiny_prior.vqvae.decode(codes) * 0.05 + torch.from_numpy(tiny_prior.normalizer.mean)
    torch.testing.assert_close(decoded, expected)


@pytest.mark.parametrize("half", [True, False])
def test_a_saved_prior_is_the_same(tiny_prior, tmp_path, half):
    tiny_prior.vqvae.vqvae.quantizer.ema_count.fill_(3.25)
    tiny_prior.guidance, tiny_prior.max_run = 1.5, 3
    tiny_prior.save(tmp_path / "ä.safetensors", half=half)
    loaded = MotionPriorModel.load(tmp_path / "ä.safetensors")
    assert (loaded.name, loaded.guidance, loaded.max_run, loaded.normalizer.name) == ("tiny", 1.5, 3, "test")
    np.testing.assert_array_equal(loaded.normalizer.std, tiny_prior.normalizer.std)
    tolerance = {"atol": 2e-3, "rtol": 2e-3} if half else {"atol": 0, "rtol": 0}
    for name, value in tiny_prior.state_dict().items():
        exact = name.split(".")[-1] in ("ema_count", "codebook", "embed")
        torch.testing.assert_close(loaded.state_dict()[name], value, **({"atol": 0, "rtol": 0} if exact else tolerance))
    assert load_metadata(tmp_path / "ä.safetensors")["vqvae"]["codes"] == 24


def test_other_files_are_refused(tiny_prior, tmp_path):
    with pytest.raises(FileError, match="no such motion prior"):
        MotionPriorModel.load(tmp_path / "none.safetensors")
    save_weights(tmp_path / "other.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="not a motion prior"):
        MotionPriorModel.load(tmp_path / "other.safetensors")
    tiny_prior.save(tmp_path / "prior.safetensors")
    settings = load_metadata(tmp_path / "prior.safetensors")
    arrays = {"normalizer.mean": torch.zeros(263), "normalizer.std": torch.ones(263)}
    save_weights(tmp_path / "exchanged.safetensors", arrays, settings)
    with pytest.raises(CheckpointError, match="statistics are not those"):
        MotionPriorModel.load(tmp_path / "exchanged.safetensors")
    save_weights(tmp_path / "new.safetensors", arrays, {**settings, "format": "posesyn-motion-prior-9"})
    with pytest.raises(CheckpointError, match="prior-9"):
        MotionPriorModel.load(tmp_path / "new.safetensors")
    del settings["statistics"]
    save_weights(tmp_path / "lacking.safetensors", arrays, settings)
    with pytest.raises(CheckpointError, match="missing"):
        MotionPriorModel.load(tmp_path / "lacking.safetensors")
    del settings["vqvae"]
    save_weights(tmp_path / "damaged.safetensors", arrays, settings)
    with pytest.raises(CheckpointError, match="settings"):
        MotionPriorModel.load(tmp_path / "damaged.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "prior.safetensors").read_bytes()[:-100])
    with pytest.raises(FileError):
        MotionPriorModel.load(tmp_path / "cut.safetensors")


def test_priors_of_the_first_format_are_read(tiny_prior, tmp_path):
    """They had one codebook, and none of the settings that came later."""
    tiny_prior.save(tmp_path / "now.safetensors", half=False)
    settings = load_metadata(tmp_path / "now.safetensors")
    for name in ("max_run", "residual", "statistics"):
        del settings[name]
    for name in ("quantizers", "quantizer_dropout", "beam", "linear", "convolutional_encoder"):
        del settings["vqvae"][name]
    settings["format"] = "posesyn-motion-prior-1"
    save_weights(tmp_path / "old.safetensors", load_weights(tmp_path / "now.safetensors"), settings)
    old = MotionPriorModel.load(tmp_path / "old.safetensors")
    assert old.residual is None and old.max_run is None
    text = tiny_prior.embed(["walk"])
    np.testing.assert_array_equal(old.sample(text, seed=1)[0], tiny_prior.sample(text, seed=1)[0])


def test_parts_that_do_not_fit_are_refused(tiny_prior):
    encoder = HashTextEncoder(HashTextConfig(buckets=8, width=4, dim=11))
    with pytest.raises(InputError, match="text encoder"):
        MotionPriorModel(tiny_prior.vqvae, tiny_prior.transformer, encoder, tiny_prior.normalizer)
    with pytest.raises(InputError, match="codebooks"):
        MotionPriorModel(
            MotionVQVAE(VQVAEConfig(codes=25, code_dim=8, width=12)),
            tiny_prior.transformer,
            tiny_prior.text_encoder,
            tiny_prior.normalizer,
        )


def test_foreign_text_encoders_are_not_saved_in_silence(tiny_prior, tmp_path):
    class Foreign:
        dim = 10

        def encode(self, texts):
            return torch.zeros(len(texts), 10)

    prior = MotionPriorModel(tiny_prior.vqvae, tiny_prior.transformer, Foreign(), tiny_prior.normalizer)
    with pytest.raises(InputError, match="cannot be saved"):
        prior.save(tmp_path / "prior.safetensors")


def test_official_files_make_a_prior(tmp_path, monkeypatch):
    from posesyn.synthesis.motion.prior import prior as module

    sizes = (
        VQVAEConfig(codes=6, code_dim=4, width=4),
        TransformerConfig(codes=6, width=8, text_dim=5, layers=1, heads=2),
    )
    vqvae, transformer = MotionVQVAE(sizes[0]), MotionTransformer(sizes[1])
    torch.save({"net": vqvae.official_state_dict()}, tmp_path / "net.pth")
    torch.save({"trans": transformer.state_dict()}, tmp_path / "trans.pth")
    np.save(tmp_path / "mean.npy", np.zeros(263))
    np.save(tmp_path / "std.npy", np.ones(263))

    class Clip:
        dim = 5

        def __init__(self, folder):
            self.folder = folder

    monkeypatch.setattr(module, "ClipTextEncoder", Clip)
    monkeypatch.setattr(MotionVQVAE, "__init__", _with_default(MotionVQVAE.__init__, sizes[0]))
    monkeypatch.setattr(MotionTransformer, "__init__", _with_default(MotionTransformer.__init__, sizes[1]))
    paths = [tmp_path / name for name in ("net.pth", "trans.pth", "mean.npy", "std.npy")]
    prior = MotionPriorModel.from_official(*paths, clip=tmp_path)
    assert prior.name == "t2mgpt-official" and prior.guidance == 1
    assert prior.normalizer.name.startswith("t2mgpt-")
    with pytest.raises(FileError, match="statistics"):
        MotionPriorModel.from_official(*paths[:2], tmp_path / "none.npy", paths[3], clip=tmp_path)


def _with_default(init, config):
    return lambda self, given=None: init(self, given or config)


def test_the_shipped_prior_is_small_and_walks():
    if not SHIPPED.is_file():
        pytest.skip("the motion prior has not been built")
    assert SHIPPED.stat().st_size <= 20_000_000
    assert json.dumps(load_metadata(SHIPPED))
    prior = MotionPriorModel.load()
    from posesyn.synthesis.motion.prior.features import recover_joints

    codes = prior.sample(prior.embed(["a person walks forward"]), num_samples=4, seed=0, min_tokens=10, max_tokens=15)
    for row in codes:
        joints = recover_joints(prior.decode(row[None]))[0].numpy()
        height = joints[:, 15, 1] - joints[:, [10, 11], 1].min(1)
        assert (height > 1.2).mean() > 0.9  # upright, of human size
        assert np.linalg.norm(joints[-1, 0, [0, 2]] - joints[0, 0, [0, 2]]) > 0.3  # and gets somewhere


def test_the_shipped_prior_keeps_poses_and_moves():
    """Poses held as the synthesizer prompts survive the tokens, and motions are as lively as recorded ones."""
    if not SHIPPED.is_file():
        pytest.skip("the motion prior has not been built")
    from posesyn.synthesis.motion.prior.features import recover_joints

    prior = MotionPriorModel.load()
    codes = prior.sample(prior.embed(["a person boxes", "a person dances salsa"]), num_samples=3, seed=0, min_tokens=15,
                         max_tokens=15)  # fmt: skip
    speeds = []
    for row in codes:
        assert row.shape == (15, prior.vqvae.config.quantizers)
        joints = recover_joints(prior.decode(row[None]))[0].numpy()
        speeds.append(np.linalg.norm(np.diff(joints, axis=0), axis=-1).mean() * 20)
    assert 0.2 < np.median(speeds) < 2.5
