from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from posesyn.body.pose_library import shipped_library
from posesyn.body.pose_refinement import FittingSettings
from posesyn.errors import InputError
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.placement import reproject
from posesyn.synthesis.motion.prior.features import PARENTS, body_offsets, motion_features, recover_joints
from posesyn.synthesis.motion.sampler import settled
from posesyn.synthesis.motion.steering.steering import (
    CAM_TO_WORLD,
    bent_to,
    joints22,
    nearest_frame,
    turned,
    yaw_between,
)
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from tests.factories import make_seen

SHORT = SynthesisSettings(
    max_frames=24,
    min_frames=16,
    fitting=FittingSettings(starts=4, hypotheses=3, iterations=5),
    blend_frames=3.0,
    photo_view=0.0,
)


make_scored = partial(make_seen, captions=("dance",))


@pytest.fixture(scope="module")
def poses():
    return shipped_library().points[[20, 300, 700, 1200]].double().numpy()


@pytest.fixture
def synthesizer(tiny_prior, body):
    return MotionSynthesizer(tiny_prior, SHORT, body=body)


@pytest.fixture
def motion(standing, rng):
    joints = np.repeat(standing[None], 30, 0)
    joints = joints + [[[0.02 * t, 0.95, 0.01 * t]] for t in range(30)]
    joints[:, [18, 20]] += 0.05 * rng.normal(size=(30, 1, 1))
    return np.stack([turned(frame, 0.03 * t) for t, frame in enumerate(joints)])


def test_the_anchor_takes_the_lifted_pose_and_the_ends_stay(motion, poses):
    pose = turned(poses[1][:22], 0.4)
    bent = bent_to(motion, pose, 12, 2.0)
    # Directions of the bones at the anchor are those of the pose, lengths everywhere those of the motion.
    parents = list(PARENTS[1:])
    lengths = np.linalg.norm(motion[:, 1:] - motion[:, parents], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(bent[:, 1:] - bent[:, parents], axis=-1), lengths, atol=1e-5)
    wanted = pose[1:] - pose[parents]
    wanted = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
    np.testing.assert_allclose((bent[12, 1:] - bent[12, parents]) / lengths[12][:, None], wanted, atol=1e-4)
    np.testing.assert_allclose(bent[[0, 1, 28, 29]], motion[[0, 1, 28, 29]], atol=1e-5)
    np.testing.assert_allclose(bent[..., 1].min(1), motion[..., 1].min(1), atol=1e-5)  # stands where it stood
    np.testing.assert_allclose(bent[:, 0, [0, 2]], motion[:, 0, [0, 2]], atol=1e-5)
    # smooth: no bone turns more between neighbours than a Gaussian of 2 frames lets it
    directions = (bent[:, 1:] - bent[:, parents]) / lengths[..., None]
    turn = np.arccos(np.clip((directions[1:] * directions[:-1]).sum(-1), -1, 1))
    assert turn.max() < np.pi * np.exp(-0.5) / 2.0 + 0.25


def test_bending_to_the_pose_it_has_changes_nothing(motion):
    np.testing.assert_allclose(bent_to(motion, motion[7] - motion[7, :1], 7, 4.0), motion, atol=1e-5)
    np.testing.assert_allclose(bent_to(motion, motion[7], 7, 0.0), motion, atol=1e-5)


def test_bones_that_must_turn_round_do(standing):
    motion = np.repeat(standing[None], 5, 0)
    flipped = standing * [1, -1, 1]
    bent = bent_to(motion, flipped, 2, 0.0)
    np.testing.assert_allclose(bent[2] - bent[2, :1], flipped, atol=1e-5)
    assert np.isfinite(bent).all()


def test_the_nearest_frame_is_found_under_a_turn(motion):
    pose = turned(motion[17] - motion[17, :1], 1.3)
    frame, yaw, distance = nearest_frame(motion, pose)
    assert frame == 17 and yaw == pytest.approx(1.3) and distance < 1e-6
    assert nearest_frame(motion, pose, first=20)[0] >= 20
    other = turned(pose, 0.3) * [1.1, 0.9, 1.0]
    found, yaw, distance = nearest_frame(motion, other)
    loop = [turned(frame - frame[:1], yaw_between(frame, other)) - other for frame in motion]
    each = [float(np.sqrt((offset**2).sum(-1).mean())) for offset in loop]
    assert found == int(np.argmin(each)) and distance == pytest.approx(min(each))
    assert yaw == pytest.approx(yaw_between(motion[found], other))
    assert nearest_frame(motion, pose, first=99)[0] == len(motion) - 1


def test_steered_motions_pass_through_poses_that_reproject(synthesizer, poses):
    scored = make_scored(turned(poses[1], 0.5), turned(poses[2], 0.3))
    motions = synthesizer.synthesize([scored], num_motions=4, seed=2, progress=False)
    errors = [motion.reprojection_error for motion in motions]
    assert errors == sorted(errors)
    for motion in motions:
        meta = motion.meta
        assert meta["steering"] == "2d" and motion.view is None
        assert motion.reprojection_error < 0.5 * meta["reprojection_before"]
        assert motion.reprojection_error < meta["reprojection_sampled"]
        assert meta["fit_distance"] > 0 and abs(meta["elevation"]) < 1.6
        assert motion.anchor_frame >= SHORT.prefix_frames - 1
        assert motion.joints_world[..., 1].min() > -0.01
    assert any(motion.meta["hypothesis"] == 0 for motion in motions)
    assert len({tuple(motion.joints_world[motion.anchor_frame].ravel()) for motion in motions}) == 4


def test_a_persons_motions_depend_on_seed_person_and_number_only(synthesizer, poses):
    persons = [make_scored(turned(poses[i], 0.4), poses[i - 1], name) for i, name in enumerate("abc")]
    together = synthesizer.synthesize(persons, num_motions=3, seed=5, progress=False)
    alone = synthesizer.synthesize(persons[1:2], num_motions=2, seed=5, progress=False)
    by_name = {motion.motion_id: motion for motion in together}
    for motion in alone:
        other = by_name[motion.motion_id]
        assert motion.meta["hypothesis"] == other.meta["hypothesis"]
        assert motion.anchor_frame == other.anchor_frame
        np.testing.assert_allclose(motion.joints_world, other.joints_world, atol=1e-4)
    again = synthesizer.synthesize(persons[1:2], num_motions=2, seed=6, progress=False)
    assert not np.allclose(again[1].joints_world[:16], alone[1].joints_world[:16], atol=1e-3)


@pytest.mark.parametrize("steering", ["2d", "none"])
def test_motions_longer_than_the_prior_holds(tiny_prior, body, poses, steering):
    persons = [make_scored(turned(poses[i], 0.4), poses[i - 1], name) for i, name in enumerate("ab")]
    synthesizer = MotionSynthesizer(tiny_prior, replace(SHORT, max_frames=243, steering=steering), body=body)
    motions = synthesizer.synthesize(persons, num_motions=2, seed=5, progress=False)
    assert [len(motion) for motion in motions] == [240] * 4  # whole tokens
    assert [motion.person_id for motion in motions] == ["a", "a", "b", "b"]
    for motion in motions:
        assert SHORT.prefix_frames - 1 <= motion.anchor_frame < 240 and motion.joints_world[..., 1].min() > -0.01
        assert motion.reprojection_error == pytest.approx(
            reproject([view_of(motion)], persons["ab".index(motion.person_id)].person)[0].error, abs=0.01
        )
    alone = synthesizer.synthesize(persons[1:], num_motions=2, seed=5, progress=False)
    np.testing.assert_allclose(alone[0].joints_world, motions[2].joints_world, atol=1e-3)
    assert [len(m) for m in synthesizer.from_captions(["walk", "sit"], max_frames=400)] == [400, 400]


def view_of(motion):
    """(1, 22, 3) the anchor in the axes of the photo's camera, whose roll is small."""
    tilt = motion.meta.get("elevation", 0.0)
    camera = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
    return motion.joints_world[motion.anchor_frame][None] * CAM_TO_WORLD @ camera.T


def test_persons_with_few_joints_are_treated_the_plain_way(tiny_prior, body, poses):
    scored = make_scored(poses[1], poses[2], hide=range(5, 13))
    steered = MotionSynthesizer(tiny_prior, SHORT, body=body).synthesize([scored], 2, progress=False)
    plain = MotionSynthesizer(tiny_prior, replace(SHORT, steering="none"), body=body).synthesize(
        [scored], 2, progress=False
    )
    for one, other in zip(steered, plain):
        assert "steering" not in one.meta and one.anchor_frame == other.anchor_frame
        np.testing.assert_array_equal(one.joints_world, other.joints_world)


def test_plain_mode_starts_from_the_wrong_pose_and_never_lifts(tiny_prior, body, poses, monkeypatch):
    synthesizer = MotionSynthesizer(tiny_prior, replace(SHORT, steering="none"), body=body)
    monkeypatch.setattr(type(synthesizer), "fitter", property(lambda self: pytest.fail("fitted")))
    scored = make_scored(poses[1], turned(poses[2], 0.3))
    motions = synthesizer.synthesize([scored], num_motions=2, progress=False)
    expected = synthesizer.prefix_codes(joints22(scored.prediction)).tolist()
    assert all(motion.meta["prefix_tokens"] == expected for motion in motions)


def test_plain_mode_is_the_published_order_step_by_step(tiny_prior, body, poses):
    """An independent loop: wrong pose held still → codes → one sample at a time → best frame by reprojection."""
    settings = replace(SHORT, steering="none", smoothing=0.0, airborne=None)
    synthesizer = MotionSynthesizer(tiny_prior, settings, body=body)
    scored = make_scored(turned(poses[1], 0.2), turned(poses[2], 0.3), "p")
    motions = {m.motion_id: m for m in synthesizer.synthesize([scored], 3, seed=4, progress=False)}
    pose = joints22(scored.prediction)
    held = motion_features(np.repeat(pose[None], 10, 0), body_offsets(body), continuous_heading=True)[1:]
    held = torch.from_numpy(held)
    prefix, yaw = tiny_prior.encode(held[None])[0], yaw_between(recover_joints(held[:1])[0].numpy(), pose)
    for k in range(3):
        options = {"seed": [seed_of(4, f"person/{k}/p")], "max_tokens": 6, "min_tokens": 4}
        codes = tiny_prior.sample(tiny_prior.embed(["dance"]), [prefix], **options)[0]
        joints = turned(settled(recover_joints(tiny_prior.decode(codes[None]))[0].numpy(), 0.0), yaw)
        fit = reproject([joints[8:] * CAM_TO_WORLD], scored.person, settings.yaw_search)[0]
        motion = motions[f"p/m{k:03d}"]
        assert motion.anchor_frame == fit.frame + 8
        assert motion.reprojection_error == pytest.approx(fit.error, abs=1e-5)
        moved = motion.joints_world - motion.joints_world[:1, :1]
        expected = turned(joints, -fit.yaw)
        np.testing.assert_allclose(moved, expected - expected[:1, :1], atol=1e-4)


def test_a_share_of_the_motions_asks_for_the_photos_view(tiny_prior, body, poses):
    scored = make_scored(poses[1], poses[2])
    settings = replace(SHORT, photo_view=0.5)
    motions = MotionSynthesizer(tiny_prior, settings, body=body).synthesize([scored], 12, progress=False)
    asked = [motion for motion in motions if motion.view is not None]
    assert 2 <= len(asked) <= 10
    assert all(m.view.camera_yaw == 0.0 and m.view.camera_elevation == m.meta["elevation"] for m in asked)


@pytest.mark.parametrize(
    "settings", [{"steering": "3d"}, {"spread": -1.0}, {"blend_frames": float("nan")}, {"photo_view": 1.5}]
)
def test_bad_settings_are_refused(tiny_prior, body, settings):
    with pytest.raises(InputError, match="SynthesisSettings"):
        MotionSynthesizer(tiny_prior, SynthesisSettings(**settings), body=body)
