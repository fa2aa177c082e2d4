"""Every kind of bad input that motion synthesis can meet, from the outside: a clear error, or what is documented."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.body.inverse_kinematics import fit_pose
from posesyn.data.motions.bvh import write_bvh
from posesyn.errors import CheckpointError, InputError
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.synthesis.motion.captions import choose_captions, describe_pose
from posesyn.synthesis.motion.prior.features import motion_features
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.types import Motion


@pytest.fixture
def synthesizer(tiny_prior, body):
    return MotionSynthesizer(tiny_prior, SynthesisSettings(max_frames=16, min_frames=8), body=body)


@pytest.mark.parametrize("caption", ["", "   ", "\n\t", "?!…", None, 7])
def test_empty_captions(synthesizer, caption):
    with pytest.raises(InputError, match="caption is empty"):
        synthesizer.from_captions([caption])


def test_ten_thousand_words_are_read_as_far_as_the_limit(synthesizer):
    """Documented: captions are cut after 2000 characters."""
    long = "a person walks and then " * 2000
    motion = synthesizer.from_captions([long])[0]
    assert len(motion) >= 8 and len(motion.caption) <= 2000
    same = synthesizer.from_captions([long + " and falls"])[0]
    np.testing.assert_array_equal(motion.pose_rotvec, same.pose_rotvec)


CAPTIONS = ["eine Person läuft schnell", "一个人在走路", "человек прыгает", "🏃 läuft", "a\x00b"]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_other_languages_are_words_like_others(synthesizer, caption):
    motion = synthesizer.from_captions([caption])[0]
    assert motion.caption == caption and np.isfinite(motion.pose_rotvec).all()


def test_zero_frames(body, tiny_prior):
    with pytest.raises(InputError, match="at least one frame"):
        Motion("m", np.zeros((0, 24, 3)), np.zeros((0, 3)), np.zeros(10), 20.0)
    with pytest.raises(InputError, match="T >= 1"):
        fit_pose(np.zeros((0, 22, 3)), body)
    with pytest.raises(InputError):
        motion_features(np.zeros((0, 22, 3)))
    with pytest.raises(InputError):
        tiny_prior.encode(torch.zeros(1, 0, 263))


@pytest.mark.parametrize("frames", [0, -1, -40])
def test_negative_length(synthesizer, frames):
    with pytest.raises(InputError, match="max_frames"):
        synthesizer.from_captions(["walk"], max_frames=frames)
    with pytest.raises(InputError, match="max_tokens"):
        synthesizer.prior.sample(synthesizer.prior.embed(["walk"]), max_tokens=frames)


def test_poses_with_nan(synthesizer, body, standing, tmp_path):
    broken = standing.copy()
    broken[4, 1] = np.nan
    with pytest.raises(InputError, match="finite"):
        describe_pose(broken)
    with pytest.raises(InputError, match=r"NaN.*frames \[0\]"):
        fit_pose(broken[None], body)
    with pytest.raises(InputError):
        synthesizer.prefix_codes(broken)
    pose = np.zeros((2, 24, 3))
    pose[1, 3] = np.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        write_bvh(tmp_path / "m.bvh", Motion("m", pose, np.zeros((2, 3)), np.zeros(10), 20.0), body)


def test_features_with_nan_have_no_code(tiny_prior):
    features = torch.zeros(2, 8, 263)
    features[1, 3, 50] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        tiny_prior.encode(features)
    with pytest.raises(InputError, match="NaN or infinite"):
        tiny_prior.sample(torch.full((1, tiny_prior.text_encoder.dim), torch.nan))


def test_prefixes_longer_than_the_context(synthesizer, tiny_prior):
    text = tiny_prior.embed(["walk"])
    with pytest.raises(InputError, match="prefix is too long"):
        tiny_prior.sample(text, [torch.zeros(51, dtype=torch.int64)])
    full = tiny_prior.sample(text, [torch.zeros(50, dtype=torch.int64)])[0]
    assert full.tolist() == [0] * 50  # nothing is left to draw
    with pytest.raises(InputError, match="prefix is too long"):
        MotionSynthesizer(tiny_prior, SynthesisSettings(prefix_frames=204), body=synthesizer.body)


def test_checkpoints_of_another_size(tmp_path):
    small = MotionTransformer(TransformerConfig(codes=16, width=8, text_dim=4, layers=1, heads=2))
    torch.save({"trans": small.state_dict()}, tmp_path / "transformer.pth")
    with pytest.raises(CheckpointError, match=r"transformer\.pth"):
        MotionTransformer.from_official(
            tmp_path / "transformer.pth", TransformerConfig(codes=16, width=16, text_dim=4, layers=1, heads=2)
        )
    vqvae = MotionVQVAE(VQVAEConfig(codes=16, code_dim=8, width=8))
    torch.save({"net": vqvae.state_dict()}, tmp_path / "vqvae.pth")
    with pytest.raises(CheckpointError, match=r"vqvae\.pth"):
        MotionVQVAE.from_official(tmp_path / "vqvae.pth")


def test_statistics_of_another_normaliser(tiny_prior, tmp_path):
    tiny_prior.save(tmp_path / "prior.safetensors", half=False)
    own = tiny_prior.normalizer
    std = own.std.copy()
    std[:4] /= 25  # the trap of the published files
    other = Normalizer("mdm", own.mean, std)
    with pytest.raises(CheckpointError, match=r"another normaliser.*mdm"):
        MotionPriorModel.load(tmp_path / "prior.safetensors", normalizer=other)
    assert MotionPriorModel.load(tmp_path / "prior.safetensors", normalizer=own).normalizer.name == own.name


def test_the_users_caption_wins_over_all(standing):
    assert choose_captions("she falls", "she runs", ("someone walks",), standing, "p") == (["she falls"], "user")
    assert choose_captions(None, "she runs", ("someone walks",), standing, "p") == (["she runs"], "model")
    assert choose_captions(None, None, ("", "someone walks"), standing, "p") == (["someone walks"], "person")
    assert choose_captions(None, None, ("…",), standing, "p") == ([describe_pose(standing)], "pose")
