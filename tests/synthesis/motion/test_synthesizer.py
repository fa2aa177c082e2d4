from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.synthesis.motion.captions import choose_captions, describe_pose
from posesyn.synthesis.motion.sampler import clearance, settled
from posesyn.synthesis.motion.steering.steering import CAM_TO_WORLD, joints22, turned, yaw_between
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.types import ArrayImage, Person, PoseBatch, ScoredPerson

SHORT = SynthesisSettings(max_frames=24, min_frames=16)
PLAIN = replace(SHORT, steering="none")


def make_scored(joints_world, name="a", skeleton="humanml3d22", captions=(), yaw=0.0):
    """A person whose photo shows ``joints_world``, turned by ``yaw``, in front of a level camera."""
    joints_cam = turned(np.asarray(joints_world, float), yaw) * CAM_TO_WORLD + [0.1, 0.2, 4.0]
    points, _ = skeletons.convert(joints_cam, "humanml3d22", skeleton)
    keypoints = joints_cam[:, :2] / joints_cam[:, 2:] * 900 + 320
    truth, visible = skeletons.convert(keypoints, "humanml3d22", "coco17")
    box = np.concatenate([keypoints.min(0) - 5, keypoints.max(0) + 5])
    person = Person(name, ArrayImage(np.zeros((8, 8, 3), np.uint8)), box, truth, visible, "coco17", captions)
    pixels, _ = skeletons.convert(keypoints, "humanml3d22", skeleton)
    prediction = PoseBatch((name,), skeleton, points[None].astype(np.float32), pixels[None].astype(np.float32))
    return ScoredPerson(person, prediction, 0.5, np.zeros(17), visible)


@pytest.fixture
def synthesizer(tiny_prior, body):
    return MotionSynthesizer(tiny_prior, SHORT, body=body)


def test_every_person_gets_its_motions_best_first(synthesizer, standing):
    persons = [make_scored(standing, "a", captions=("a person walks", "someone strolls")), make_scored(standing, "b")]
    motions = synthesizer.synthesize(persons, num_motions=3, seed=1, progress=False)
    assert [motion.person_id for motion in motions] == ["a"] * 3 + ["b"] * 3
    assert len({motion.motion_id for motion in motions}) == 6
    for start in (0, 3):
        errors = [motion.reprojection_error for motion in motions[start : start + 3]]
        assert errors == sorted(errors)
        assert [motion.meta["rank"] for motion in motions[start : start + 3]] == [0, 1, 2]
    for motion in motions:
        assert 16 <= len(motion) <= 24 and motion.fps == 20
        assert 0 <= motion.anchor_frame < len(motion)
        assert motion.joints_world[:, [7, 8, 10, 11], 1].min() > -0.01
        assert 1 <= len(motion.meta["prefix_tokens"]) <= 3 and motion.meta["prior"] == "tiny"
    assert {motion.caption for motion in motions[:3]} == {"a person walks", "someone strolls"}
    assert motions[3].meta["caption_source"] == "pose"


def test_a_persons_motions_do_not_depend_on_the_others(synthesizer, standing, rng):
    persons = [make_scored(standing + 0.03 * rng.normal(size=(22, 3)), name, captions=("dance",)) for name in "abc"]
    together = synthesizer.synthesize(persons, num_motions=2, seed=5, progress=False)
    alone = synthesizer.synthesize(persons[1:2], num_motions=2, seed=5, progress=False)
    for one, other in zip(together[2:4], alone):
        assert one.motion_id == other.motion_id
        np.testing.assert_allclose(one.joints_world, other.joints_world, atol=1e-4)
        np.testing.assert_allclose(one.pose_rotvec, other.pose_rotvec, atol=1e-3)
    other_seed = synthesizer.synthesize(persons[1:2], num_motions=2, seed=6, progress=False)
    assert {motion.meta["seed"] for motion in other_seed}.isdisjoint(motion.meta["seed"] for motion in alone)


def test_pose_parameters_lead_to_the_joints(synthesizer, standing, body):
    import torch

    from posesyn.geometry.rotations import rotvec_to_matrix

    motion = synthesizer.synthesize([make_scored(standing)], num_motions=1, progress=False)[0]
    rotations = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec))
    with torch.no_grad():
        joints = body.joints_only(rotations, torch.zeros(1, 10), torch.from_numpy(motion.transl_world))[:, :22]
    assert np.linalg.norm(joints.numpy() - motion.joints_world, axis=-1).mean() < 0.06


@pytest.fixture
def pointing(standing):
    """One arm forward, so that every turn shows."""
    standing[[18, 20]] += [[0.05, 0.1, 0.2], [0.1, 0.3, 0.45]]
    return standing


def decode_faithfully(synthesizer, pose, monkeypatch):
    """As if the codebook held the pose exactly: what is decoded is what the prefix encodes."""
    from posesyn.synthesis.motion.prior.features import motion_features, recover_joints

    features = motion_features(np.repeat(pose[None], 26, 0), synthesizer.sampler.offsets, continuous_heading=True)[1:]
    decoded = settled(recover_joints(features), 0.0)
    monkeypatch.setattr(synthesizer.sampler, "joints", lambda codes, *settings: decoded)


@pytest.mark.parametrize("yaw", [0.0, 1.2, -2.5])
def test_the_motion_faces_where_the_photo_shows_the_person(tiny_prior, body, pointing, yaw, monkeypatch):
    synthesizer = MotionSynthesizer(tiny_prior, replace(PLAIN, yaw_search=(0.0,)), body=body)
    seen = turned(pointing, yaw)
    decode_faithfully(synthesizer, seen, monkeypatch)
    motion = synthesizer.synthesize([make_scored(pointing, yaw=yaw)], num_motions=1, progress=False)[0]
    assert abs(yaw_between(motion.joints_world[motion.anchor_frame].astype(float), seen)) < 0.02
    assert motion.reprojection_error < 0.04


def test_yaw_search_turns_towards_the_truth(tiny_prior, body, pointing, monkeypatch):
    """The estimator is wrong by 0.4 rad about the vertical; the 2D truth corrects it."""
    synthesizer = MotionSynthesizer(tiny_prior, replace(PLAIN, yaw_search=(0.0, 0.4, -0.4)), body=body)
    decode_faithfully(synthesizer, turned(pointing, 0.5), monkeypatch)
    truth, wrong = make_scored(pointing, yaw=0.9), make_scored(pointing, yaw=0.5)
    motion = synthesizer.synthesize([replace(truth, prediction=wrong.prediction)], num_motions=1, progress=False)[0]
    assert abs(yaw_between(motion.joints_world[0].astype(float), turned(pointing, 0.9))) < 0.02


def test_yaw_between_is_the_least_squares_turn(rng):
    from scipy.optimize import minimize_scalar

    source, target = rng.normal(size=(22, 3)), rng.normal(size=(22, 3))
    source, target = source - source[:1], target - target[:1]
    found = minimize_scalar(
        lambda a: ((turned(source, a) - target) ** 2).sum(), bounds=(-np.pi, np.pi), method="bounded"
    )
    expected = yaw_between(source, target)
    assert ((turned(source, expected) - target) ** 2).sum() <= found.fun + 1e-9
    assert yaw_between(source, turned(source, 2.2)) == pytest.approx(2.2)


def test_oversampling_keeps_the_best(tiny_prior, body, standing):
    persons = [make_scored(standing, captions=("walk",))]
    few = MotionSynthesizer(tiny_prior, SHORT, body=body).synthesize(persons, 2, progress=False)
    many = MotionSynthesizer(tiny_prior, replace(SHORT, oversample=4), body=body).synthesize(persons, 2, progress=False)
    assert len(many) == 2
    assert many[0].reprojection_error <= few[0].reprojection_error


def test_captions_of_the_user_come_first(synthesizer, standing):
    persons = [make_scored(standing, "a", captions=("walk",)), make_scored(standing, "b", captions=("run",))]
    listed = synthesizer.synthesize(persons, 1, captions=["jump", None], progress=False)
    assert [motion.caption for motion in listed] == ["jump", "run"]
    assert [motion.meta["caption_source"] for motion in listed] == ["user", "person"]
    mapped = synthesizer.synthesize(persons, 1, captions={"b": "sit <b>down</b>"}, progress=False)
    assert [motion.caption for motion in mapped] == ["walk", "sit <b>down</b>"]


class Says:
    """A captioner that knows some persons, and remembers whom it was asked about."""

    def __init__(self, **answers: str) -> None:
        self.answers, self.asked = answers, []

    def caption(self, persons):
        self.asked += [person.person_id for person in persons]
        return [self.answers.get(person.person_id, "") for person in persons]


def test_a_captioner_comes_after_the_user_and_before_the_data_set(synthesizer, standing):
    persons = [make_scored(standing, name, captions=captions) for name, captions in zip("abcd", [("walk",)] * 3 + [()])]
    says = Says(a="run", b="climb")
    motions = synthesizer.synthesize(persons, 1, captions={"a": "jump"}, progress=False, captioner=says)
    assert says.asked == ["b", "c", "d"]
    assert [motion.caption for motion in motions[:3]] == ["jump", "climb", "walk"]
    assert [motion.meta["caption_source"] for motion in motions] == ["user", "model", "person", "pose"]
    # What a caption leads to does not depend on who wrote it.
    alone = synthesizer.synthesize(persons[1:2], 1, captions=["climb"], progress=False)[0]
    np.testing.assert_allclose(alone.joints_world, motions[1].joints_world, atol=1e-4)


def test_persons_without_enough_joints_stay_unranked(synthesizer, standing):
    scored = make_scored(standing)
    hidden = np.zeros(17, bool)
    hidden[5:8] = True
    motions = synthesizer.synthesize(
        [replace(scored, person=replace(scored.person, visible=hidden))], 2, progress=False
    )
    assert [motion.anchor_frame for motion in motions] == [None, None]
    assert [motion.reprojection_error for motion in motions] == [None, None]


@pytest.mark.parametrize("skeleton", ["smpl45", "h36m17", "lsp14", "coco17"])
def test_estimators_that_predict_joints_only_will_do(synthesizer, standing, skeleton):
    scored = make_scored(standing, skeleton=skeleton)
    joints = joints22(scored.prediction)
    assert joints.shape == (22, 3)
    assert np.linalg.norm(joints - standing, axis=-1).max() < 0.17
    assert len(synthesizer.synthesize([scored], 1, progress=False)) == 1


def test_captions_make_motions_without_a_pose(synthesizer):
    motions = synthesizer.from_captions(["a person walks", "dance"], num_motions=2, seed=3, max_frames=16)
    assert [motion.caption for motion in motions] == ["a person walks"] * 2 + ["dance"] * 2
    assert all(motion.person_id is None and len(motion) <= 16 for motion in motions)
    alone = synthesizer.from_captions(["dance"], num_motions=2, seed=3, max_frames=16)
    np.testing.assert_allclose(alone[1].joints_world, motions[3].joints_world, atol=1e-4)


def test_motions_from_captions_float_only_if_let(tiny_prior, body, monkeypatch):
    synthesizer = MotionSynthesizer(tiny_prior, SynthesisSettings(max_frames=64, min_frames=64), body=body)
    decode = tiny_prior.decode

    def rising(codes):
        features = decode(codes)
        features[:, 24:, [3, *range(5, 67, 3)]] += 0.5  # all joints are half a metre higher, and stay there
        return features

    monkeypatch.setattr(tiny_prior, "decode", rising)
    free, held = (synthesizer.from_captions(["climb"], seed=3, airborne=airborne)[0] for airborne in (None, 8))
    assert clearance(free.joints_world[32:]).min() > 0.4
    assert clearance(held.joints_world[32:]).max() < 0.08
    with pytest.raises(InputError, match="airborne"):
        synthesizer.from_captions(["walk"], airborne=0)


def test_no_person_gives_no_motion(synthesizer):
    assert synthesizer.synthesize([], 2, progress=False) == []
    assert synthesizer.from_captions([]) == []


def test_bad_input_is_refused(synthesizer, standing):
    person = make_scored(standing)
    for count in (0, -1, 1.5):
        with pytest.raises(InputError, match="num_motions"):
            synthesizer.synthesize([person], count, progress=False)
    with pytest.raises(InputError, match="caption is empty"):
        synthesizer.synthesize([person], 1, captions=["  "], progress=False)
    with pytest.raises(InputError, match="one caption per person"):
        synthesizer.synthesize([person], 1, captions=["a", "b"], progress=False)
    with pytest.raises(InputError, match="one caption per person"):
        synthesizer.synthesize([person], 1, captions="walk", progress=False)
    broken = person.prediction.joints_cam.copy()
    broken[0, 4] = np.nan
    with pytest.raises(InputError, match=r"NaN.*person 'a'"):
        synthesizer.synthesize([replace(person, prediction=replace(person.prediction, joints_cam=broken))], 1)
    with pytest.raises(InputError, match="empty"):
        synthesizer.from_captions([""])
    with pytest.raises(InputError, match="max_frames"):
        synthesizer.from_captions(["walk"], max_frames=100_001)


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix_frames": 0},
        {"prefix_frames": 6},
        {"prefix_frames": 204},
        {"max_frames": 100_001},
        {"max_frames": 4},
        {"oversample": 0},
        {"yaw_search": ()},
        {"smoothing": -1.0},
        {"airborne": 0},
    ],
)
def test_settings_the_prior_cannot_fulfil_are_refused(tiny_prior, body, settings):
    with pytest.raises(InputError, match="SynthesisSettings"):
        MotionSynthesizer(tiny_prior, SynthesisSettings(**settings), body=body)


def test_unknown_priors_are_refused(tmp_path):
    with pytest.raises(FileError, match="no such motion prior"):
        MotionSynthesizer.from_pretrained(tmp_path / "none.safetensors")


def bent(standing, **moves):
    joints = standing.copy()
    for name, offset in moves.items():
        joints[int(name[1:])] += offset
    return joints


def test_poses_are_described(standing):
    assert describe_pose(standing) == "a person stands"
    assert describe_pose(bent(standing, j18=(0, 0.5, 0), j20=(0, 1.0, 0))) == "a person stands with the left arm raised"
    assert "upside down" in describe_pose(standing * [1, -1, 1])
    lying = standing[:, [0, 2, 1]]
    assert "lies" in describe_pose(lying)
    kick = bent(standing, j5=(0, 0.4, 0.35), j8=(0, 0.85, 0.75), j11=(0, 0.85, 0.8))
    assert "right leg" in describe_pose(kick)
    crouch = standing.copy()
    crouch[[4, 5]] += (0, 0.35, 0.35)
    crouch[[7, 8, 10, 11]] += (0, 0.6, 0.1)
    assert "crouches" in describe_pose(crouch)
    seated = standing.copy()
    seated[[4, 5]] += (0, 0.33, 0.38)
    seated[[7, 8, 10, 11]] += (0, 0.33, 0.38)
    assert describe_pose(seated) == "a person sits on a stool"
    assert describe_pose(turned(kick, 2.0)) == describe_pose(kick)
    with pytest.raises(InputError):
        describe_pose(np.full((22, 3), np.nan))


def test_captions_are_chosen_by_trust(standing):
    assert choose_captions("jump", None, ("walk",), standing, "x") == (["jump"], "user")
    assert choose_captions(None, None, ("walk", " ", "run"), standing, "x") == (["walk", "run"], "person")
    assert choose_captions(None, "sit", ("walk",), standing, "x") == (["sit"], "model")
    assert choose_captions(None, None, (" ",), standing, "x") == (["a person stands"], "pose")


def test_settling_stops_floating_sinking_and_jitter(standing, rng):
    walk = np.repeat(standing[None], 60, 0)
    walk[..., 1] += 1.3  # floats
    walk[30:34, :, 1] -= 0.2  # sinks for a moment
    shaky = walk + 0.02 * rng.normal(size=(60, 1, 1))
    calm = settled(shaky)
    assert calm[..., 1].min() > -1e-6
    assert abs(np.median(calm[:, [10, 11], 1])) < 0.05
    assert np.abs(np.diff(calm, 2, axis=0)).mean() < 0.5 * np.abs(np.diff(shaky, 2, axis=0)).mean()
    jump = np.repeat(standing[None], 60, 0)
    jump[25:35, :, 1] += np.sin(np.linspace(0, np.pi, 10))[:, None] * 0.4
    assert settled(jump)[30, [10, 11], 1].min() > 0.25  # stays in the air


def test_predictions_without_limbs_are_refused(synthesizer, standing, monkeypatch):
    from posesyn.synthesis.motion.steering import steering as completion

    def without_hips(points, source, target):
        present = np.ones(22, bool)
        present[1] = False
        return np.zeros((22, 3)), present

    monkeypatch.setattr(completion.skeletons, "convert", without_hips)
    with pytest.raises(InputError, match="left_hip"):
        joints22(PoseBatch(("x",), "humanml3d22", np.zeros((1, 22, 3)), np.zeros((1, 22, 2))))


def test_settings_whole_or_one_by_one(tiny_prior, body, standing, tmp_path):
    tiny_prior.save(tmp_path / "prior.safetensors", half=False)
    whole = MotionSynthesizer(tiny_prior, replace(SHORT, num_motions=3), body=body)
    options = {"body": body, "max_frames": 24, "min_frames": 16, "num_motions": 3}
    named = SynthesisSettings(prior=tmp_path / "prior.safetensors")
    loaded = MotionSynthesizer.from_pretrained(settings=named, **options)
    shipped = MotionSynthesizer.from_pretrained(body=body)
    assert loaded.prior.name == "tiny" != shipped.prior.name
    assert MotionSynthesizer.from_pretrained(tmp_path / "prior.safetensors", **options).settings == whole.settings
    made = [one.synthesize([make_scored(standing)], seed=2, progress=False) for one in (whole, loaded)]
    assert [len(motions) for motions in made] == [3, 3]
    for one, other in zip(*made):
        np.testing.assert_array_equal(one.pose_rotvec, other.pose_rotvec)
    with pytest.raises(InputError, match=r"no 'max_frame'.*max_frames"):
        MotionSynthesizer(tiny_prior, max_frame=24, body=body)
    with pytest.raises(InputError, match="num_motions"):
        MotionSynthesizer(tiny_prior, num_motions=0, body=body)
    with pytest.raises(InputError, match="device"):
        MotionSynthesizer(tiny_prior, body=body, device="abacus")
