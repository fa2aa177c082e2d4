from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from posesyn.body.pose_library import shipped_library
from posesyn.body.pose_refinement import FittingSettings
from posesyn.errors import InputError
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.images import ImageFile
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.placement import SLACK, reproject, truncation
from posesyn.synthesis.motion.prior.features import PARENTS, body_offsets, motion_features, recover_joints
from posesyn.synthesis.motion.sampler import Job, settled
from posesyn.synthesis.motion.steering.steering import (
    CAM_TO_WORLD,
    bent_to,
    joints22,
    nearest_frame,
    softened,
    turned,
    yaw_between,
)
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer
from tests.factories import make_seen

SHORT = SynthesisSettings(
    max_frames=24,
    min_frames=16,
    fitting=FittingSettings(starts=4, hypotheses=3, iterations=5),
    blend_frames=3.0,
    photo_view=0.0,
    truncated_view=0.0,
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
        assert abs(motion.anchor_frame - (len(meta["prefix_tokens"]) * 4 - 1)) <= SLACK
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
        # Half of what the prior holds lies before the pose.
        assert (95 <= motion.anchor_frame <= 103 or steering == "none") and motion.joints_world[..., 1].min() > -0.01
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


def test_the_pose_stands_in_mid_motion_or_at_the_start(tiny_prior, body, poses):
    scored = make_scored(turned(poses[1], 0.5), turned(poses[2], 0.3))
    settings = replace(SHORT, max_frames=40, min_frames=40)
    motions = MotionSynthesizer(tiny_prior, settings, body=body).synthesize([scored], 6, progress=False)
    assert all(12 <= motion.anchor_frame < len(motion) - 8 for motion in motions)
    assert len({len(motion.meta["prefix_tokens"]) for motion in motions} | {5}) == 1  # 5 of 10 tokens lead in
    start = MotionSynthesizer(tiny_prior, replace(settings, anchor="start"), body=body)
    for motion in start.synthesize([scored], 6, progress=False):
        assert len(motion.meta["prefix_tokens"]) == settings.prefix_frames // 4
        assert motion.anchor_frame >= settings.prefix_frames - 1
    # A motion of one token has no room before the pose.
    short = replace(SHORT, max_frames=4, min_frames=4, prefix_frames=4)
    assert len(MotionSynthesizer(tiny_prior, short, body=body).synthesize([scored], 1, progress=False)[0]) == 4


def test_a_lead_in_is_what_follows_the_pose_played_backwards(tiny_prior, body, motion, monkeypatch):
    sampler = MotionSynthesizer(tiny_prior, replace(SHORT, max_frames=40), body=body).sampler
    prefix = sampler.fitted_prefixes(motion[:1])[0]
    jobs = [Job("a", k, "dance", k, prefix) for k in range(3)]
    led, alone = sampler.led_in(jobs), sampler.led_in(jobs[1:2])
    assert alone[0].prefix.tolist() == led[1].prefix.tolist()
    assert all(job.pose_frame == 4 * len(job.prefix) - 1 and len(job.prefix) <= 5 for job in led)
    # With a decoder that makes a known motion of every row of codes, the encoder must get that motion backwards.
    known = torch.from_numpy(motion_features(motion[:25], body_offsets(body), continuous_heading=True))
    monkeypatch.setattr(tiny_prior, "decode", lambda codes: known[None, : 4 * codes.shape[1]])
    encoded, encode = [], tiny_prior.encode
    monkeypatch.setattr(tiny_prior, "encode", lambda features: encoded.append(features[0]) or encode(features))
    frames = sampler.led_in(jobs[:1])[0].pose_frame + 1
    back, forth = recover_joints(encoded[0]), recover_joints(known)[2 : 2 + frames]
    apart = [torch.cdist(joints, joints) for joints in (back, forth.flip(0))]  # wherever they stand and face
    torch.testing.assert_close(*apart, atol=2e-3, rtol=0)


def test_plain_persons_beside_steered_ones_keep_their_motions(tiny_prior, body, poses):
    plain = make_scored(poses[1], poses[2], hide=range(5, 13))
    steered = make_scored(turned(poses[1], 0.4), poses[0], "b")
    synthesizer = MotionSynthesizer(tiny_prior, SHORT, body=body)
    together = synthesizer.synthesize([plain, steered], 2, progress=False)
    alone = synthesizer.synthesize([plain], 2, progress=False)
    for one, other in zip(alone, together):
        assert len(one) == len(other)
        np.testing.assert_allclose(one.joints_world, other.joints_world, atol=1e-4)


def test_softening_is_smooth_around_a_frame_and_leaves_the_rest(motion):
    soft = softened(motion, 15, 2.0)
    change = np.linalg.norm(np.diff(soft, n=2, axis=0), axis=-1).mean(1)
    before = np.linalg.norm(np.diff(motion, n=2, axis=0), axis=-1).mean(1)
    assert change[13:16].mean() < 0.5 * before[13:16].mean()
    np.testing.assert_allclose(soft[[0, 1, 28, 29]], motion[[0, 1, 28, 29]], atol=1e-6)
    assert softened(motion, 15, 0.0) is motion


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


def test_one_pose_is_seen_from_many_sides(tiny_prior, body, poses):
    scored = make_scored(poses[1], poses[2])
    motions = MotionSynthesizer(tiny_prior, replace(SHORT, photo_view=0.5), body=body).synthesize(
        [scored], 12, progress=False
    )
    renderer = AnimationRenderer(image_size=16, body=body, frames_per_motion=1)
    clips = renderer.render([renderer.prepare(motion) for motion in motions], progress=False)
    yaws = {motion.motion_id: clip.meta["camera"]["yaw"] for motion, clip in zip(motions, clips)}
    from_photo = [yaws[motion.motion_id] for motion in motions if motion.view is not None]
    others = [yaws[motion.motion_id] for motion in motions if motion.view is None]
    assert np.abs(from_photo).max() < 0.9
    # Directions all around: their mean is short.
    assert len(set(others)) == len(others) and abs(np.exp(1j * np.array(others)).mean()) < 0.8


def test_motions_of_a_truncated_person_ask_to_be_cut_off_likewise(tiny_prior, body, poses):
    scored = make_scored(poses[1], poses[2])
    points = scored.person.keypoints_px
    bottom = int(points[[11, 12], 1].mean() + 0.5 * (points[[13, 14], 1].mean() - points[[11, 12], 1].mean()))
    visible = scored.person.visible & (points[:, 1] < bottom)
    box = np.array([*points[visible].min(0) - 5, points[visible].max(0)[0] + 5, bottom - 1])
    cut = replace(scored.person, visible=visible, box_xyxy=box, image_width_height=(600, bottom))
    settings = replace(SHORT, truncated_view=0.5, photo_view=0.5)
    synthesizer = MotionSynthesizer(tiny_prior, settings, body=body)
    motions = synthesizer.synthesize([replace(scored, person=cut)], 12, progress=False)
    asked = [m.view for m in motions if m.view is not None and m.view.truncation is not None]
    assert 2 <= len(asked) <= 10 and {view.camera_yaw for view in asked} == {0.0, None}
    for view in asked:
        left, top, right, down = view.truncation
        assert (left, top, right) == (0, 0, 0) and 0.15 < down <= 0.6
    # In a larger photo nothing is cut off, whatever joints are hidden; nor where the photo cannot be read.
    whole = replace(cut, image_width_height=(600, 600))
    lost = replace(cut, image_width_height=None, image=ImageFile(Path("absent.jpg")))
    for person in (whole, lost):
        motions = synthesizer.synthesize([replace(scored, person=person)], 4, progress=False)
        assert all(motion.view is None or motion.view.truncation is None for motion in motions)


def test_cuts_are_shares_of_the_fitted_body_beyond_the_borders():
    points = np.array([[50.0, 20.0], [90.0, 180.0]])  # with 10 px of flesh: 60 wide, 180 high
    assert truncation(points, 10 / 0.11, np.array([45, 15, 95, 139]), (200, 140)) == (
        0, 0, 0, pytest.approx(50.5 / 180),
    )  # fmt: skip
    assert truncation(points, 10 / 0.11, np.array([45, 15, 95, 100]), (200, 140)) is None  # the box ends before
    assert truncation(points, 10 / 0.11, np.array([45, 15, 95, 139]), (200, 300)) is None
    left, top, right, bottom = truncation(points - [70, 100], 10 / 0.11, np.array([0, 0, 29, 89]), (30, 90))
    assert left == pytest.approx(29.5 / 60, abs=0.01) and top + bottom == pytest.approx(0.495, abs=0.01) and right == 0
    cuts = truncation(points - [60, 150], 10 / 0.11, np.array([0, 0, 40, 39]), (200, 40))
    assert cuts[1] == pytest.approx(0.6)  # not more than leaves enough to see


@pytest.mark.parametrize(
    "settings",
    [
        {"anchor": "end"},
        {"truncated_view": 2.0},
        {"steering": "3d"},
        {"spread": -1.0},
        {"blend_frames": float("nan")},
        {"photo_view": 1.5},
    ],
)
def test_bad_settings_are_refused(tiny_prior, body, settings):
    with pytest.raises(InputError, match="SynthesisSettings"):
        MotionSynthesizer(tiny_prior, SynthesisSettings(**settings), body=body)
