"""Motions longer than the prior holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.synthesis.motion.long_motions import long_motions, seam_jump
from posesyn.synthesis.motion.prior.features import motion_features, recover_joints
from posesyn.synthesis.motion.prior.prior import continue_codes
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer


def test_codes_have_the_length_asked_for(tiny_prior):
    texts = [["a person walks"], ["she jumps"]]
    for count, context, seams in ((7, None, []), (50, None, []), (51, None, [50]), (130, 20, [50, 80, 110])):
        codes, found = continue_codes(tiny_prior, texts, count, seeds=[1, 2], context_tokens=context)
        assert [len(row) for row in codes] == [count, count] and found == seams
        assert all(set(row.tolist()) <= set(range(24)) for row in codes)


def test_windows_see_the_end_of_the_motion_so_far(tiny_prior):
    """The second window is the prior's own continuation of the last tokens of the first."""
    text = ["a person walks"]
    long, seams = continue_codes(tiny_prior, [text], 60, context_tokens=12, seeds=[0], greedy=True)
    again = tiny_prior.sample(
        tiny_prior.embed(text), [long[0][38:50]], max_tokens=22, min_tokens=22, greedy=True, seed=[0]
    )[0]
    assert seams == [50] and long[0][38:].tolist() == again.tolist()
    first = tiny_prior.sample(tiny_prior.embed(text), max_tokens=50, min_tokens=50, greedy=True)[0]
    assert long[0][:50].tolist() == first.tolist()


def test_prefixes_stay_and_rows_do_not_depend_on_each_other(tiny_prior):
    prefixes = [torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])]
    codes, seams = continue_codes(tiny_prior, [["walk"], ["run"]], 70, prefixes, seeds=[5, 6])
    assert [row[:3].tolist() for row in codes] == [[1, 2, 3], [4, 5, 6]] and seams[0] == 3
    alone, _ = continue_codes(tiny_prior, [["run"]], 70, prefixes[1:], seeds=[6])
    assert alone[0].tolist() == codes[1].tolist()


def test_prefixes_longer_than_the_context(tiny_prior):
    prefix = torch.arange(80) % 24
    codes, seams = continue_codes(tiny_prior, [["walk"]], 100, [prefix], seeds=[0])
    assert codes[0][:80].tolist() == prefix.tolist() and len(codes[0]) == 100 and seams == [80]


def test_captions_follow_each_other(tiny_prior, monkeypatch):
    asked = []
    embed = type(tiny_prior).embed
    monkeypatch.setattr(type(tiny_prior), "embed", lambda self, texts: asked.append(list(texts)) or embed(self, texts))
    continue_codes(tiny_prior, [["walk", "sit"], ["run"]], 100, seeds=[0, 1])
    assert asked == [["walk", "run"], ["sit", "run"], ["sit", "run"]]


def test_long_motions(tiny_prior, body):
    synthesizer = MotionSynthesizer(tiny_prior, SynthesisSettings(max_frames=24, min_frames=16), body=body)
    motions = long_motions(synthesizer, ["a person walks", ["walk", "sit"]], 333, num_motions=2, seed=3)
    assert [len(motion) for motion in motions] == [333] * 4
    assert motions[0].meta["seams"] == [200, 300] and motions[2].caption == "walk, then sit"
    assert motions[0].joints_world[..., 1].min() > -0.01
    again = long_motions(synthesizer, [["walk", "sit"]], 333, num_motions=2, seed=3)
    np.testing.assert_array_equal(again[1].pose_rotvec, motions[3].pose_rotvec)
    assert not np.array_equal(motions[0].pose_rotvec, motions[1].pose_rotvec)
    assert len(motions[0].resampled(30)) == 499
    assert long_motions(synthesizer, [], 100) == []


def test_real_walking_has_no_seam_and_a_cut_has_one(shared, body):
    from posesyn.data.motions.bvh import bvh_joints
    from posesyn.synthesis.motion.prior.features import body_offsets

    joints = bvh_joints(shared / "data" / "cmu" / "bvh" / "07_01.bvh.gz")
    joints = recover_joints(torch.from_numpy(motion_features(joints, body_offsets(body)))).numpy()
    at, elsewhere = seam_jump(joints, [20])
    assert at < 2 * elsewhere
    cut = np.concatenate([joints[:20], joints[28:]])
    at, elsewhere = seam_jump(cut, [20])
    assert at > 4 * elsewhere


def test_bad_input(tiny_prior, body):
    synthesizer = MotionSynthesizer(tiny_prior, SynthesisSettings(max_frames=24, min_frames=16), body=body)
    for frames in (0, -5, 2.5, 10**9):
        with pytest.raises(InputError, match="frames is out of range"):
            long_motions(synthesizer, ["walk"], frames)
    with pytest.raises(InputError, match="num_motions"):
        long_motions(synthesizer, ["walk"], 10, num_motions=0)
    with pytest.raises(InputError, match="one text"):
        long_motions(synthesizer, "walk", 10)
    for captions in ([""], [["walk", "  "]], [[]]):
        with pytest.raises(InputError, match="caption"):
            long_motions(synthesizer, captions, 10)
    for context in (0, 50):
        with pytest.raises(InputError, match="context_tokens"):
            continue_codes(tiny_prior, [["walk"]], 100, context_tokens=context)
    with pytest.raises(InputError, match="too long"):
        continue_codes(tiny_prior, [["walk"]], 5, [torch.zeros(6, dtype=torch.int64)])
    with pytest.raises(InputError, match="one prefix and one seed"):
        continue_codes(tiny_prior, [["walk"]], 5, seeds=[1, 2])
    with pytest.raises(InputError, match="num_tokens"):
        continue_codes(tiny_prior, [["walk"]], 0)
    with pytest.raises(InputError, match="no seam"):
        seam_jump(np.zeros((10, 22, 3)), [])
