from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from posesyn import types
from posesyn.errors import InputError

IMAGE = types.ArrayImage(np.zeros((8, 9, 3), np.uint8))


def _person(**changes) -> types.Person:
    values = {
        "person_id": "set/1#0",
        "image": IMAGE,
        "box_xyxy": np.array([0, 0, 8, 8]),
        "keypoints_px": np.ones((17, 2)),
        "visible": np.ones(17),
        "skeleton": "coco17",
    }
    return types.Person(**(values | changes))


def _batch(count=3, **changes) -> types.PoseBatch:
    values = {
        "person_ids": tuple(f"p{i}" for i in range(count)),
        "skeleton": "coco17",
        "joints_cam": np.arange(count * 51.0).reshape(count, 17, 3),
        "keypoints_px": np.zeros((count, 17, 2)),
        "betas": np.arange(count * 10.0).reshape(count, 10),
    }
    return types.PoseBatch(**(values | changes))


def _motion(frames=6, **changes) -> types.Motion:
    values = {
        "motion_id": "m",
        "pose_rotvec": np.arange(frames * 72.0).reshape(frames, 24, 3),
        "transl_world": np.zeros((frames, 3)),
        "betas": np.zeros(10),
        "fps": 20.0,
    }
    return types.Motion(**(values | changes))


def _clip(frames=4, **changes) -> types.Clip:
    values = {
        "clip_id": "c",
        "frames": np.zeros((frames, 8, 9, 3), np.uint8),
        "pose_rotvec": np.zeros((frames, 24, 3)),
        "betas": np.zeros(10),
        "transl_cam": np.zeros((frames, 3)),
        "joints_cam": np.zeros((frames, 45, 3)),
        "keypoints_px": np.zeros((frames, 45, 2)),
        "visible": np.ones((frames, 45), bool),
        "mask": np.zeros((frames, 8, 9), bool),
        "depth": np.zeros((frames, 8, 9), np.float16),
        "intrinsics": np.eye(3),
        "fps": 20.0,
    }
    return types.Clip(**(values | changes))


def test_person_normalises_its_arrays():
    keypoints, visible = np.ones((17, 2)), np.ones(17)
    keypoints[3], visible[3] = np.nan, 0
    person = _person(keypoints_px=keypoints, visible=visible)
    assert person.keypoints_px.dtype == np.float32 and person.visible.dtype == bool
    assert np.isfinite(person.keypoints_px).all() and not person.visible[3]
    assert np.isnan(keypoints[3]).all()
    with pytest.raises(FrozenInstanceError):
        person.person_id = "other"
    again = pickle.loads(pickle.dumps(person))  # noqa: S301 - our own bytes
    assert again.person_id == person.person_id


def test_tight_boxes_grow_to_the_body():
    box = np.array([10, 20, 40, 120])
    assert not _person().box_is_tight
    np.testing.assert_array_equal(_person(box_xyxy=box).body_box_xyxy, box)
    tight = _person(box_xyxy=box, box_is_tight=np.True_)
    np.testing.assert_array_equal(tight.box_xyxy, box)
    np.testing.assert_allclose(tight.body_box_xyxy, [0, 10, 50, 130])
    assert tight.box_is_tight is True and tight.body_box_xyxy.dtype == np.float32


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"keypoints_px": np.zeros((24, 2))}, r"\(J=17\).*\(24, 2\).*skeletons.convert"),
        ({"visible": np.ones(16)}, "visible"),
        ({"keypoints_px": np.full((17, 2), np.nan)}, "nose"),
        ({"box_xyxy": np.zeros(3)}, "box_xyxy"),
        ({"box_xyxy": np.array([0, 0, np.inf, 1])}, "box_xyxy"),
        ({"skeleton": "coco"}, "unknown skeleton"),
        ({"box_is_tight": "yes"}, "box_is_tight"),
        ({"box_is_tight": None}, "box_is_tight"),
    ],
)
def test_bad_person(changes, message):
    with pytest.raises(InputError, match=message):
        _person(**changes)


@pytest.mark.parametrize("pixels", [np.zeros((8, 9), np.uint8), np.zeros((8, 9, 4), np.uint8), np.zeros((8, 9, 3))])
def test_bad_image(pixels):
    with pytest.raises(InputError, match="ArrayImage"):
        types.ArrayImage(pixels)


def test_image_is_an_image_source():
    assert isinstance(IMAGE, types.ImageSource) and IMAGE.load().shape == (8, 9, 3)


@pytest.mark.parametrize("index", [0, 1, 2, -1])
def test_one_person_of_a_batch(index):
    batch = _batch()
    one = batch[index]
    assert len(one) == 1 and one.person_ids == (batch.person_ids[index],)
    assert (one.joints_cam[0] == batch.joints_cam[index]).all() and (one.betas[0] == batch.betas[index]).all()
    assert one.pose_rotmat is None and len(batch[1:]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"joints_cam": np.zeros((3, 24, 3))},
        {"keypoints_px": np.zeros((3, 17, 3))},
        {"keypoints_px": None},
        {"betas": np.zeros((3, 11))},
        {"pose_rotmat": np.zeros((3, 24, 3))},
        {"intrinsics": np.eye(3)},
    ],
)
def test_bad_batch(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        _batch(**changes)


def test_take_moves_the_anchor_and_the_rate():
    motion = _motion(anchor_frame=3, joints_world=np.zeros((6, 22, 3)))
    part = motion.take(range(2, 5))
    assert len(part) == 3 and part.anchor_frame == 1 and part.joints_world.shape == (3, 22, 3)
    assert (part.pose_rotvec == motion.pose_rotvec[2:5]).all() and part.fps == motion.fps
    thinned = motion.take([1, 3, 5], motion_id="thin")
    assert thinned.motion_id == "thin" and thinned.anchor_frame == 1 and thinned.fps == motion.fps / 2
    assert motion.take(range(3)).anchor_frame is None and _motion().take([1]).anchor_frame is None


@pytest.mark.parametrize("rows", [[], [0, 6], [-1, 0], [0, 1, 3], [2, 1], [1, 1], [[0, 1]]])
def test_take_refuses_other_rows(rows):
    with pytest.raises(InputError, match=r"Motion\.take"):
        _motion(joints_world=np.zeros((6, 22, 3))).take(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"pose_rotvec": np.zeros((0, 24, 3))},
        {"pose_rotvec": np.zeros((6, 22, 3))},
        {"pose_rotvec": np.full((6, 24, 3), np.nan)},
        {"transl_world": np.zeros((5, 3))},
        {"betas": np.zeros(16)},
        {"joints_world": np.zeros((6, 24, 3))},
        {"fps": 0.0},
    ],
)
def test_bad_motion(changes):
    with pytest.raises(InputError):
        _motion(**changes)


def test_clip():
    assert len(_clip().frames) == 4
    for changes in ({"joints_cam": np.zeros((4, 24, 3))}, {"mask": np.zeros((4, 8, 8), bool)}):
        with pytest.raises(InputError):
            _clip(**changes)


def test_motions_have_a_short_text():
    motion = _motion(6, caption="a person walks " * 20, motion_id="m1")
    assert repr(motion).startswith("Motion(motion_id='m1', pose_rotvec=(6, 24, 3), ") and len(repr(motion)) < 160


def test_resampling_turns_by_the_shortest_arc():
    """Against SciPy's Slerp, joint by joint."""
    from scipy.spatial.transform import Rotation, Slerp

    rng = np.random.default_rng(0)
    pose = rng.normal(0, 1.5, (7, 24, 3))
    transl, joints = rng.normal(size=(7, 3)), rng.normal(size=(7, 22, 3))
    motion = _motion(7, pose_rotvec=pose, transl_world=transl, joints_world=joints)
    fast = motion.resampled(50.0)
    assert fast.fps == 50 and len(fast) == 16  # 6 / 20 s
    times = np.arange(16) / 50 * 20
    for joint in (0, 5, 23):
        expected = Slerp(np.arange(7), Rotation.from_rotvec(motion.pose_rotvec[:, joint]))(times)
        got = Rotation.from_rotvec(fast.pose_rotvec[:, joint])
        assert (expected.inv() * got).magnitude().max() < 1e-5
    for axis in range(3):
        np.testing.assert_allclose(
            fast.transl_world[:, axis], np.interp(times, np.arange(7), motion.transl_world[:, axis]), atol=1e-6
        )
    np.testing.assert_allclose(fast.joints_world[-1], motion.joints_world[-1], atol=1e-6)
    half = motion.resampled(10.0)
    np.testing.assert_allclose(half.transl_world, motion.transl_world[::2], atol=1e-6)
    np.testing.assert_allclose(motion.resampled(20).transl_world, motion.transl_world, atol=1e-6)


def test_resampling_moves_the_anchor_and_keeps_the_rest():
    motion = _motion(9, anchor_frame=4, person_id="p", meta={"seed": 1})
    fast = motion.resampled(60)
    assert (len(fast), fast.anchor_frame, fast.person_id, fast.meta) == (25, 12, "p", {"seed": 1})
    assert motion.resampled(30 * 1.0001).fps == pytest.approx(30.003)
    assert len(_motion(1).resampled(60)) == 1
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps"):
            motion.resampled(bad)
