from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.data.motions.captions import CaptionedMotion
from posesyn.errors import InputError, RunError
from posesyn.settings import PriorSettings
from posesyn.storage.checkpoints import load_metadata, load_weights
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.training.prior import material
from posesyn.training.prior.data import features_of
from posesyn.training.prior.modules import MotionTransformerModule
from posesyn.training.prior.run import PRIOR, train_prior

TINY = PriorSettings(
    name="tiny-run", tokeniser_steps=4, transformer_steps=4, residual_steps=2, checkpoint_every=2, codes=24,
    code_dim=12, quantizers=2, beam=2, tokeniser_width=8, width=16, layers=1, heads=2, speeds=(1.0, 0.85),
    perturbed_frames=400, held_poses=20,
)  # fmt: skip
HALF = {
    0: (0, 0), 3: (0, 0.12), 6: (0, 0.26), 9: (0, 0.31), 12: (0, 0.52), 15: (0, 0.62), 1: (0.07, -0.09),
    4: (0.1, -0.47), 7: (0.09, -0.87), 10: (0.1, -0.92), 13: (0.08, 0.43), 16: (0.19, 0.45), 18: (0.25, 0.2),
    20: (0.27, -0.05),
}  # fmt: skip


def swaying(number: int, frames: int = 110) -> CaptionedMotion:
    """A person who stands, sways and waves, each in a rhythm of its own."""
    joints = np.zeros((22, 3))
    mirror = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}
    for index, (x, y) in HALF.items():
        joints[index, :2] = x, y
        if index in mirror:
            joints[mirror[index], :2] = -x, y
    joints[[10, 11], 2] = 0.13
    motion = np.repeat(joints[None], frames, 0) + np.array([0, 0.95, 0])
    time = np.arange(frames)[:, None]
    motion[:, [18, 20], 2] += 0.2 * np.sin(time / (4 + number))
    motion[:, 12:16, 0] += 0.1 * np.sin(time / (6 + number))
    return CaptionedMotion(
        f"m{number}", motion.astype(np.float32), 20.0, (f"a person waves {number} times",), "", "", ""
    )


@pytest.fixture(scope="module")
def motions():
    return [swaying(number) for number in range(3)]


@pytest.fixture(scope="module")
def whole(motions, tmp_path_factory):
    return train_prior(motions, tmp_path_factory.mktemp("prior"), TINY, [swaying(9)], seed=3, progress=False)


def test_the_prior_makes_motions(whole):
    synthesizer = MotionSynthesizer.from_pretrained(whole, max_frames=24, device="cpu")
    made = synthesizer.from_captions(["a person waves"], num_motions=2)
    assert len(made) == 2 and all(len(motion) <= 24 for motion in made)
    prior = synthesizer.prior
    assert (prior.name, prior.max_run, prior.vqvae.config.quantizers) == ("tiny-run", 4, 2)
    tokeniser = load_weights(whole.parent / "tokeniser" / "weights.safetensors")
    kept = prior.vqvae.state_dict()["vqvae.decoder.model.0.weight"]
    torch.testing.assert_close(tokeniser["vqvae.decoder.model.0.weight"], kept, atol=1e-3, rtol=1e-3)
    for stage, monitor in (("tokeniser", "val/mpjpe"), ("transformer", "val/loss"), ("residual", "val/loss")):
        assert monitor in (whole.parent / stage / "curves.csv").read_text().splitlines()[0]


def test_an_interrupted_run_goes_on_to_the_same_weights(whole, motions, tmp_path, monkeypatch):
    usual = MotionTransformerModule.training_step

    def stops(self, batch, index):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return usual(self, batch, index)

    monkeypatch.setattr(MotionTransformerModule, "training_step", stops)
    with pytest.raises(KeyboardInterrupt):
        train_prior(motions, tmp_path, TINY, [swaying(9)], seed=3, progress=False)
    assert not (tmp_path / PRIOR).exists() and (tmp_path / "transformer" / "last.ckpt").is_file()
    monkeypatch.setattr(MotionTransformerModule, "training_step", usual)
    monkeypatch.setattr(material, "perturbed", None)  # what was made up is read, not made again
    path = train_prior(motions, tmp_path, TINY, [swaying(9)], seed=3, progress=False)
    assert load_metadata(path) == load_metadata(whole)
    weights, truth = load_weights(path), load_weights(whole)
    assert weights.keys() == truth.keys()
    assert all(torch.equal(value, truth[name]) for name, value in weights.items())


def test_a_training_that_an_earlier_version_began_is_refused(motions, tmp_path):
    """It would go on with other random numbers than it began with."""
    (tmp_path / "config.json").write_text('{"kind": "motion prior", "seed": 3}')
    with pytest.raises(RunError, match="cannot continue"):
        train_prior(motions, tmp_path, TINY, [swaying(9)], seed=3)


def test_another_training_in_the_folder_is_refused(whole, motions):
    held_out = [swaying(9)]
    with pytest.raises(RunError, match="seed"):
        train_prior(motions, whole.parent, TINY, held_out, seed=4)
    with pytest.raises(RunError, match="codes"):
        train_prior(motions, whole.parent, TINY, held_out, seed=3, codes=25)
    with pytest.raises(RunError, match="motions"):
        train_prior(motions[:2], whole.parent, TINY, held_out, seed=3)
    with pytest.raises(RunError, match="checkpoint_every"):  # decides which weights are validated, so which are kept
        train_prior(motions, whole.parent, TINY, held_out, seed=3, checkpoint_every=1)
    assert train_prior(motions, whole.parent, TINY, held_out, seed=3) == whole  # finished


def test_clips_of_a_reader_do_as_well_as_mocap(motions, tmp_path):
    clips = features_of(motions, None)
    gathered = material.gather(clips, clips[:1], np.zeros((22, 3)), TINY, 0, tmp_path)
    assert [clip.clip_id for clip in gathered.recorded[:2]] == ["m0x1x1", "m0x1x0.85"]
    assert len(gathered.recorded[1].features) > len(gathered.recorded[0].features)
    np.testing.assert_allclose(
        gathered.normalizer.denormalize(gathered.own[0].features), clips[0].features, atol=1e-4, rtol=1e-4
    )
    assert sum(len(clip.features) for clip in gathered.perturbed) >= 400 and gathered.held.shape == (20, 263)


def test_a_later_training_may_start_from_a_prior(whole, motions, tmp_path):
    later = train_prior(motions, tmp_path, TINY, [swaying(9)], progress=False, warm=whole, transformer_steps=2)
    tables = [MotionPriorModel.load(path).text_encoder.table.weight.detach() for path in (whole, later)]
    assert float((tables[0] - tables[1]).abs().max()) < 0.05  # a cold start would draw them anew


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"width": 15}, "multiple"),
        ({"speeds": (0.9,)}, "speeds"),
        ({"text": "words"}, "text"),
        ({"quantizers": 1}, "quantizers"),
        ({"composed_share": 1.0}, "composed_share"),
        ({"code": 3}, "codes"),
    ],
)
def test_settings_that_cannot_be_are_refused(motions, tmp_path, change, match):
    with pytest.raises(InputError, match=match):
        train_prior(motions, tmp_path / "out", **change)


def test_motions_that_cannot_be_learnt_from_are_refused(motions, tmp_path):
    with pytest.raises(InputError, match="walking"):
        train_prior(motions, tmp_path / "a", TINY, motions[:1], composed=3, progress=False)
    with pytest.raises(InputError, match="no training motion"):
        train_prior([], tmp_path / "b", TINY, progress=False)
    with pytest.raises(InputError, match="too short"):
        train_prior([swaying(1, 40)], tmp_path / "c", TINY, motions[:1], progress=False)
