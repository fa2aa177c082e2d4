import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn import skeletons
from posesyn.estimators.base import PosedJoints
from posesyn.estimators.hybrik.network import solve_pose, twist_of, twist_rotation, unit_twist
from posesyn.geometry.kinematics import forward_kinematics, offsets_from_joints

PARENTS = skeletons.get("hybrik29").parents


@pytest.fixture
def posed(body, rng):
    """Rest joints, a pose, and the joints it leads to, float64."""
    rest = PosedJoints(body, "hybrik29").at_rest(torch.from_numpy(rng.normal(0, 1, (5, 10)).astype(np.float32)))
    rest = rest.double()
    pose = torch.from_numpy(Rotation.from_rotvec(rng.normal(0, 0.6, (120, 3))).as_matrix()).view(5, 24, 3, 3)
    ends = torch.eye(3, dtype=torch.float64).expand(5, 5, 3, 3)
    joints, _ = forward_kinematics(torch.cat((pose, ends), 1), offsets_from_joints(rest, PARENTS), PARENTS)
    return rest, pose, joints


def test_a_pose_comes_back_from_its_joints_and_twists(posed):
    rest, pose, joints = posed
    found, rebuilt = solve_pose(joints, rest, 3 * twist_of(pose, rest))
    np.testing.assert_allclose(found, pose, atol=1e-7)
    np.testing.assert_allclose(rebuilt, joints, atol=1e-7)


def test_twist_is_the_rotation_about_the_bone(posed):
    rest, _, _ = posed
    axis = (rest[:, 4] - rest[:, 1]) / (rest[:, 4] - rest[:, 1]).norm(dim=-1, keepdim=True)
    angle = 0.7
    pose = torch.eye(3, dtype=torch.float64).repeat(5, 24, 1, 1)
    pose[:, 1] = torch.from_numpy(Rotation.from_rotvec(angle * axis.numpy()).as_matrix())
    twist = twist_of(pose, rest)
    np.testing.assert_allclose(twist[:, 0], np.broadcast_to([np.cos(angle), np.sin(angle)], (5, 2)), atol=1e-9)
    np.testing.assert_allclose(twist[:, 1:], np.broadcast_to([1.0, 0.0], (5, 22, 2)), atol=1e-9)


def test_joints_do_not_depend_on_the_twists(posed):
    rest, pose, joints = posed
    other = torch.randn(5, 23, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, rebuilt = solve_pose(joints, rest, other)
    # A twist of the chest is none: its three children show it.
    np.testing.assert_allclose(rebuilt, joints, atol=1e-6)
    np.testing.assert_allclose(found @ found.mT, torch.eye(3, dtype=torch.float64).expand_as(found), atol=1e-9)
    assert not torch.allclose(found, pose, atol=1e-2)


def test_longer_bones_keep_their_directions(posed):
    rest, pose, joints = posed
    stretched = joints[:, :1] + 1.2 * (joints - joints[:, :1])
    found, rebuilt = solve_pose(stretched, rest, twist_of(pose, rest))
    # The reconstruction has its own bone lengths and reaches for the joints seen: nearer than without adapting.
    bones = rebuilt[:, 1:24] - rebuilt[:, list(PARENTS[1:24])]
    wanted = rest[:, 1:24] - rest[:, list(PARENTS[1:24])]
    np.testing.assert_allclose(bones.norm(dim=-1), wanted.norm(dim=-1), atol=1e-9)
    np.testing.assert_allclose(found[:, 0], pose[:, 0], atol=1e-7)


def test_rodrigues_equals_scipy(rng):
    axis = rng.normal(size=(6, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = rng.uniform(-3, 3, 6)
    got = twist_rotation(torch.from_numpy(axis), torch.from_numpy(np.stack((np.cos(angle), np.sin(angle)), -1)))
    np.testing.assert_allclose(got, Rotation.from_rotvec(axis * angle[:, None]).as_matrix(), atol=1e-12)


def test_no_direction_is_no_twist():
    assert unit_twist(torch.tensor([[0.0, 0.0], [0.0, -2.0]])).tolist() == [[1, 0], [0, -1]]


def test_solving_in_inference_mode_does_not_break_a_later_backward_pass(posed):
    rest, pose, joints = posed
    with torch.inference_mode():
        solve_pose(joints.clone(), rest.clone(), twist_of(pose, rest))
    moved = joints.clone().requires_grad_()
    solve_pose(moved, rest, twist_of(pose, rest))[0].sum().backward()
    assert torch.isfinite(moved.grad).all()


def test_gradients_are_finite(posed):
    rest, pose, joints = posed
    joints, phi = joints.clone().requires_grad_(), twist_of(pose, rest).requires_grad_()
    found, _ = solve_pose(joints, rest, phi)
    found.square().mul(torch.randn_like(found)).sum().backward()
    assert torch.isfinite(joints.grad).all()
    assert torch.isfinite(phi.grad).all()
    # Also where all joints lie in one point, as at the start of a training.
    point = torch.zeros(2, 29, 3, requires_grad=True)
    found, _ = solve_pose(point, rest[:2].float(), torch.zeros(2, 23, 2))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(point.grad).all()
