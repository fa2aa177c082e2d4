"""Every tensor of motion synthesis is made where the prior is; see tests/spying_device.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.body.inverse_kinematics import fit_pose
from posesyn.geometry.devices import device_of, exact_device
from posesyn.synthesis.motion.long_motions import long_motions
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from tests.factories import make_scored
from tests.spying_device import SPY, SpyingDevice, is_spied

OPTIONS = {"max_frames": 24, "min_frames": 16, "top_k": 20}


def same(motions, others):
    assert len(motions) == len(others) > 0
    for one, other in zip(motions, others):
        assert one.meta == other.meta and one.anchor_frame == other.anchor_frame
        np.testing.assert_array_equal(one.pose_rotvec, other.pose_rotvec)
        np.testing.assert_array_equal(one.joints_world, other.joints_world)


def made(body, device, persons, **changes):
    synthesizer = MotionSynthesizer.from_pretrained(body=body, device=device, **{**OPTIONS, **changes})
    assert device_of(synthesizer.prior).type == torch.device(device).type
    if persons:
        return synthesizer.synthesize(persons, 2, seed=1, progress=False)
    return [*synthesizer.from_captions(["walk"], seed=2), *long_motions(synthesizer, [["walk", "sit"]], 210)]


@pytest.mark.parametrize("changes", [{}, {"steering": "none"}, {"guidance": 2.0, "max_frames": 208}])
def test_motions_of_persons(body, changes):
    persons = [make_scored(1), make_scored(2)]
    with SpyingDevice():
        spied = made(body, SPY, persons, **changes)
    same(spied, made(body, "cpu", persons, **changes))
    assert any("hypothesis" in motion.meta for motion in spied) == (changes.get("steering") != "none")


def test_motions_of_captions(body):
    with SpyingDevice():
        spied = made(body, SPY, [])
    same(spied, made(body, "cpu", []))


def test_what_comes_out_of_the_prior_is_where_the_prior_is(tiny_prior):
    features = torch.zeros(1, 8, 263)
    with SpyingDevice():
        prior = tiny_prior.to(SPY)
        codes = prior.encode(features)
        assert all(map(is_spied, (codes, prior.embed(["walk"]), prior.decode(codes.cpu()))))
        assert is_spied(prior.sample(prior.embed(["walk"]), codes.cpu(), seed=0, min_tokens=4)[0])


def test_inverse_kinematics(body):
    joints = make_motion_joints()
    with SpyingDevice():
        spied = fit_pose(joints, body, fit_betas=True, device=SPY)
    for one, other in zip(spied, fit_pose(joints, body, fit_betas=True)):
        np.testing.assert_array_equal(one, other)


def make_motion_joints():
    rng = np.random.default_rng(0)
    return rng.normal(size=(1, 22, 3)) * 0.3 + rng.normal(size=(5, 22, 3)).cumsum(0) * 0.01


def test_apples_devices_have_no_float64():
    assert exact_device(torch.device("mps")).type == "cpu" and exact_device(torch.device("cuda", 1)).index == 1
