from __future__ import annotations

import numpy as np
import pytest

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.metrics.pose2d_error import JOINT_WEIGHTS, joint_weights, person_size, pose_error, root_of


def test_error_equals_a_float64_loop(rng):
    for skeleton in ("mpii16", "coco17", "smpl45"):
        joints = len(skeletons.get(skeleton))
        predicted, true = rng.normal(0, 50, (2, joints, 2))
        used = rng.random(joints) > 0.2
        weights = joint_weights(skeleton)
        error, per_joint, entered, _ = pose_error(predicted, true, used, skeleton, 80.0, weights)
        _, root = root_of(skeleton, used)
        total, share = 0.0, 0.0
        for joint in range(joints):
            if not used[joint] or (len(root) == 1 and joint == root[0]) or weights[joint] == 0:
                assert not entered[joint]
                continue
            distance = 0.0
            for axis in range(2):
                offset = sum(predicted[r, axis] - true[r, axis] for r in root) / len(root)
                distance += abs(predicted[joint, axis] - true[joint, axis] - offset)
            assert per_joint[joint] == pytest.approx(distance / 80, rel=1e-6)
            total += weights[joint] * distance / 80
            share += weights[joint]
        assert error == pytest.approx(total / share)


def test_moving_the_whole_person_costs_nothing(rng):
    true = rng.normal(0, 50, (17, 2))
    error, *_ = pose_error(true + np.array([30, -20]), true, np.ones(17, bool), "coco17", 100, joint_weights("coco17"))
    assert error == pytest.approx(0, abs=1e-12)


def test_missing_joints_do_not_enter(rng):
    true = rng.normal(0, 50, (17, 2))
    predicted = true.copy()
    predicted[9] += 500
    used = np.ones(17, bool)
    used[9] = False
    assert pose_error(predicted, true, used, "coco17", 100, joint_weights("coco17"))[0] == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="besides the root"):
        pose_error(predicted, true, np.eye(17, dtype=bool)[0], "coco17", 100, joint_weights("coco17"))


def test_limbs_weigh_more():
    weights = dict(zip(skeletons.get("mpii16").joints, joint_weights("mpii16")))
    assert weights["left_wrist"] > weights["left_elbow"] > weights["left_shoulder"] == weights["thorax"] == 1
    assert weights["right_ankle"] > weights["right_knee"] > weights["right_hip"]
    assert set(joint_weights("coco17", "uniform")) == {1.0}
    own = joint_weights("coco17", {"left_wrist": 5, "wrist": 3})
    assert own[9] == 5 and own[10] == 3 and own[0] == 1
    assert "limbs" in JOINT_WEIGHTS
    for bad in ("heavy", {"tail": 1}, {"wrist": -1}, {"wrist": float("nan")}):
        with pytest.raises(InputError):
            joint_weights("coco17", bad)


@pytest.mark.parametrize(
    ("skeleton", "hidden", "rule", "names"),
    [
        ("mpii16", [], "pelvis", ["pelvis"]),
        ("mpii16", ["pelvis"], "mid-hips", ["left_hip", "right_hip"]),
        ("mpii16", ["pelvis", "left_hip"], "thorax", ["thorax"]),
        ("coco17", [], "mid-hips", ["left_hip", "right_hip"]),
        ("coco17", ["left_hip"], "mid-shoulders", ["left_shoulder", "right_shoulder"]),
        ("smpl45", [], "pelvis", ["pelvis"]),
        ("op25", [], "pelvis", ["mid_hip"]),
    ],
)
def test_root_falls_back(skeleton, hidden, rule, names):
    joints = skeletons.get(skeleton).joints
    visible = np.array([name not in hidden for name in joints])
    got, rows = root_of(skeleton, visible)
    assert got == rule and [joints[row] for row in rows] == names


def test_root_of_a_few_joints_is_their_mean():
    visible = np.zeros(17, bool)
    visible[[0, 7, 9]] = True
    assert root_of("coco17", visible) == ("mean", (0, 7, 9))


def test_sizes():
    box, points = np.array([10, 10, 40, 50.0]), np.array([[0, 0], [30, 40], [999, 999.0]])
    visible = np.array([True, True, False])
    assert person_size(box, points, visible, "box") == 40
    assert person_size(box, points, visible, "area") == pytest.approx(np.sqrt(1200))
    assert person_size(box, points, visible, "keypoints") == 50
    with pytest.raises(InputError, match="normalizer"):
        person_size(box, points, visible, "head")
