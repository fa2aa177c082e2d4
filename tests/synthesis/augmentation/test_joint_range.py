"""Joint limits read off poses: what is within stays within, what no body does is seen, whatever the view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn.errors import InputError
from posesyn.synthesis.augmentation.augmentor import Augmentor
from posesyn.synthesis.augmentation.joint_range import JointLimits, plausibility

# x, y down, z forward of poseaug16, metres, a person facing the camera
STANDING = np.array(
    [
        (0, 0, 0), (-0.12, 0, 0), (-0.12, 0.45, 0), (-0.12, 0.9, 0), (0.12, 0, 0), (0.12, 0.45, 0), (0.12, 0.9, 0),
        (0, -0.25, 0), (0, -0.5, 0), (0, -0.7, 0), (0.18, -0.48, 0), (0.2, -0.2, 0), (0.22, 0.05, 0),
        (-0.18, -0.48, 0), (-0.2, -0.2, 0), (-0.22, 0.05, 0),
    ]
)  # fmt: skip


def swung(joints: np.ndarray, pivot: int, moved: list[int], turn: Rotation) -> None:
    joints[moved] = turn.apply(joints[moved] - joints[pivot]) + joints[pivot]


UPPER = [8, 9, 10, 11, 12, 13, 14, 15]


def middling() -> np.ndarray:
    """Well within all limits."""
    joints = STANDING.copy()
    for knee, foot in ((2, 3), (5, 6)):
        swung(joints, knee, [foot], Rotation.from_euler("x", 0.8))
    for elbow, wrist in ((11, 12), (14, 15)):
        swung(joints, elbow, [wrist], Rotation.from_euler("x", -1.0))
    swung(joints, 7, UPPER, Rotation.from_euler("x", 0.1))
    swung(joints, 8, [9], Rotation.from_euler("x", 0.2))
    return joints


def people(count: int, seed: int) -> np.ndarray:
    """Thighs swing, knees bend backwards only (feet go away from the camera), elbows forwards only."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        joints = STANDING.copy()
        for hip, knee, foot in ((1, 2, 3), (4, 5, 6)):
            swung(joints, knee, [foot], Rotation.from_euler("x", rng.uniform(0, 2)))
            swung(joints, hip, [knee, foot], Rotation.from_euler("xz", rng.uniform(-0.5, 0.3, 2)))
        for shoulder, elbow, wrist in ((10, 11, 12), (13, 14, 15)):
            swung(joints, elbow, [wrist], Rotation.from_euler("x", -rng.uniform(0, 2.2)))
            swung(joints, shoulder, [elbow, wrist], Rotation.from_euler("xz", rng.uniform(-0.8, 0.8, 2)))
        swung(joints, 7, UPPER, Rotation.from_euler("xz", rng.uniform(-0.3, 0.3, 2)))
        swung(joints, 8, [9], Rotation.from_euler("xz", rng.uniform(-0.4, 0.4, 2)))
        made.append(Rotation.random(random_state=rng.integers(1 << 31)).apply(joints) * rng.uniform(0.8, 1.2))
    return np.stack(made)


@pytest.fixture(scope="module")
def limits() -> JointLimits:
    return JointLimits.of(people(1200, 0))


def test_other_poses_of_the_same_people_are_within(limits):
    found = plausibility(people(500, 1), limits)
    assert found.joints < 0.03 and found.poses < 0.15
    assert max(found.shares.values()) < 0.05


@pytest.mark.parametrize(
    ("name", "pivot", "moved", "axis", "angle"),
    (
        ("right shin", 2, [3], "x", -1.6),
        ("left shin", 5, [6], "x", -1.6),
        ("left shin", 5, [6], "z", 1.2),
        ("left forearm", 11, [12], "x", 2.0),
        ("right forearm", 14, [15], "x", 2.0),
        ("right upper arm", 13, [14, 15], "x", 2.6),
        ("left thigh", 4, [5, 6], "x", 2.0),
        ("head", 8, [9], "x", 2.5),
    ),
)
def test_what_no_body_does_is_seen(limits, name, pivot, moved, axis, angle):
    joints = middling()
    swung(joints, pivot, moved, Rotation.from_euler(axis, angle))
    assert plausibility(joints[None], limits).shares[name] == 1
    assert plausibility(middling()[None], limits).poses == 0


def test_turning_moving_and_scaling_change_nothing(limits):
    joints = people(200, 3)
    joints[::2] += np.random.default_rng(0).normal(0, 0.1, joints[::2].shape)
    turn = Rotation.from_euler("xyz", (0.3, 2.0, -1.0))
    np.testing.assert_array_equal(
        limits.beyond(joints), limits.beyond(1.3 * turn.apply(joints.reshape(-1, 3)).reshape(joints.shape) + 4)
    )
    assert limits.beyond(joints)[::2].mean() > 3 * limits.beyond(joints)[1::2].mean()


def test_table_agrees_with_the_limits(limits):
    joints = people(600, 5)
    joints[::2] += np.random.default_rng(1).normal(0, 0.04, joints[::2].shape)
    exact, found = ~limits.beyond(joints).any(1), limits.table()(torch.from_numpy(joints)).numpy()
    # Cells of three degrees: only poses at the very edge may differ.
    assert (exact == found).mean() > 0.9 and 0.1 < exact.mean() < 0.9
    broken = middling()
    swung(broken, 2, [3], Rotation.from_euler("x", -1.6))
    within = limits.table()(torch.from_numpy(np.stack((middling(), broken))))
    assert within.tolist() == [True, False]


def test_joints_that_hardly_move_stay_within_their_range():
    stiff = middling() + np.random.default_rng(0).normal(0, 1e-5, (300, 16, 3))
    own = JointLimits.of(stiff)
    assert own.beyond(stiff).any(1).mean() < 0.2
    assert own.table()(torch.from_numpy(stiff).float()).float().mean() > 0.9


def test_augmentor_keeps_poses_within_the_range(limits, tmp_path):
    torch.manual_seed(0)
    network = Augmentor(joint_range=limits.table())
    pose = torch.from_numpy(people(400, 6)).float() + torch.tensor([0.0, 0.0, 5.0])
    noise = [torch.randn(400, 48) for _ in range(4)]
    with torch.no_grad():
        free = network.train()(pose, noise)
        network.save(tmp_path / "augmentor.safetensors")
        kept = network.eval()(pose, noise)
        again = Augmentor.load(tmp_path / "augmentor.safetensors")(pose, noise)
    torch.testing.assert_close(again.pose_ba, kept.pose_ba)
    back = (kept.angle_change.abs() < 1e-5).all(1)
    assert back.float().mean() > 0.5  # random weights turn most poses beyond what the people do
    # Train mode holds nothing back.
    assert (free.angle_change.mean(1) > 0.01).all()
    recorded = plausibility(pose.numpy(), limits).poses
    assert plausibility(kept.pose_ba.numpy(), limits).poses < recorded + 0.05
    assert plausibility(free.pose_ba.numpy(), limits).poses > 0.5
    torch.testing.assert_close(kept.pose_ba[back], pose[back], atol=1e-4, rtol=1e-4)


def test_bad_input(limits):
    with pytest.raises(InputError, match="100"):
        JointLimits.of(people(5, 0))
    with pytest.raises(InputError, match="16"):
        limits.beyond(np.zeros((3, 14, 3)))
    with pytest.raises(InputError, match="finite"):
        limits.beyond(np.full((3, 16, 3), np.nan))
