"""fit_pose on motions whose truth is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import roma
import torch
from scipy.ndimage import gaussian_filter1d

from posesyn import skeletons
from posesyn.body.inverse_kinematics import body_scale, fit_pose
from posesyn.errors import InputError

FLIP = list(skeletons.get("humanml3d22").flip)


def _motion(seed: int, frames: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Smooth rotations within the range of people: hinges bend one way, hands and toes stay."""
    rng = np.random.default_rng(seed)

    def smooth(*shape: int) -> np.ndarray:
        x = gaussian_filter1d(rng.normal(size=(frames + 60, *shape)), 8, axis=0)[30:-30]
        return x / x.std()

    size = np.full((24, 3), 0.15)
    size[0], size[1:3], size[16:18] = (0.3, 1.5, 0.3), (0.6, 0.3, 0.3), (0.5, 0.4, 0.6)
    size[[4, 5, 10, 11, 18, 19, 20, 21, 22, 23]] = 0
    rotvec = smooth(24, 3) * size
    bend = np.clip(np.abs(0.9 + 0.6 * smooth(4)), 0, 2.4)
    rotvec[:, 4, 0], rotvec[:, 5, 0], rotvec[:, 18, 1], rotvec[:, 19, 1] = (
        bend[:, 0],
        bend[:, 1],
        -bend[:, 2],
        bend[:, 3],
    )
    rotvec[:, 16, 2] -= 0.8
    rotvec[:, 17, 2] += 0.8
    return rotvec.astype(np.float32), np.cumsum(0.01 * rng.normal(size=(frames, 3)), 0).astype(np.float32)


def _joints(body, rotvec, betas, transl) -> np.ndarray:
    matrix = roma.rotvec_to_rotmat(torch.as_tensor(rotvec))
    return body.joints_only(matrix, torch.as_tensor(betas)[None], torch.as_tensor(transl))[:, :22].numpy()


def _error(body, fit, joints) -> np.ndarray:
    return 1e3 * np.linalg.norm(_joints(body, fit.pose_rotvec, fit.betas, fit.transl) - joints, axis=-1)


def _jumps(rotvec: np.ndarray) -> np.ndarray:
    matrix = roma.rotvec_to_rotmat(torch.as_tensor(rotvec))
    return np.degrees(roma.rotmat_geodesic_distance(matrix[1:], matrix[:-1]).numpy())


@pytest.mark.parametrize("seed", range(4))
def test_recovers_joints_and_most_rotations(body, seed):
    rotvec, transl = _motion(seed)
    betas = np.random.default_rng(seed).normal(size=10).astype(np.float32)
    joints = _joints(body, rotvec, betas, transl)
    fit = fit_pose(joints, body, betas)
    error = _error(body, fit, joints)
    assert error.mean() < 1 and error.max() < 10
    assert _jumps(fit.pose_rotvec).max() < max(60, _jumps(rotvec).max() + 10)
    matrices = [roma.rotvec_to_rotmat(torch.as_tensor(r)) for r in (rotvec, fit.pose_rotvec)]
    angle = np.degrees(roma.rotmat_geodesic_distance(*matrices).numpy()).mean(0)
    assert angle[[0, 1, 2, 4, 5, 16, 17, 18, 19]].max() < 15
    assert not fit.pose_rotvec[:, 22:].any()
    assert all(x.dtype == np.float32 for x in fit)


@pytest.mark.parametrize("seed", range(3))
def test_fits_the_shape(body, seed):
    rotvec, transl = _motion(seed)
    betas = np.random.default_rng(seed).normal(size=10).astype(np.float32)
    joints = _joints(body, rotvec, betas, transl)
    assert _error(body, fit_pose(joints, body, fit_betas=True), joints).mean() < 5


def test_foreign_bone_lengths_stay_near_after_scaling(body):
    rotvec, transl = _motion(5)
    joints = _joints(body, rotvec, np.zeros(10, np.float32), transl)
    stretched = joints.copy()
    parents = skeletons.get("humanml3d22").parents
    rng = np.random.default_rng(0)
    for j in range(1, 22):
        p = parents[j]
        stretched[:, j] = stretched[:, p] + (joints[:, j] - joints[:, p]) * rng.uniform(0.92, 1.08) * 3.0
    scale = body_scale(stretched, body)
    assert 0.3 < scale < 0.37
    fit = fit_pose(stretched * scale, body)
    assert _error(body, fit, stretched * scale).mean() < 20
    assert _jumps(fit.pose_rotvec).max() < 60


def test_mirrored_motion_gives_the_mirrored_pose(body):
    rotvec, transl = _motion(1, 40)
    joints = _joints(body, rotvec, np.zeros(10, np.float32), transl)
    mirrored = joints[:, FLIP] * np.array([-1, 1, 1], np.float32)
    fit, other = fit_pose(joints, body), fit_pose(mirrored, body)
    flipped = fit.pose_rotvec[:, list(skeletons.get("smpl24").flip)] * [1, -1, -1]
    difference = roma.rotmat_geodesic_distance(
        roma.rotvec_to_rotmat(torch.tensor(flipped)), roma.rotvec_to_rotmat(torch.tensor(other.pose_rotvec).double())
    )
    assert difference.max() < 0.05


def test_one_frame_and_a_tensor(body):
    rotvec, transl = _motion(2, 1)
    joints = _joints(body, rotvec, np.zeros(10, np.float32), transl)
    fit = fit_pose(torch.as_tensor(joints), body)
    assert fit.pose_rotvec.shape == (1, 24, 3) and fit.transl.shape == (1, 3) and fit.betas.shape == (10,)
    assert _error(body, fit, joints).mean() < 1


def test_straight_limbs_take_the_twist_of_the_frames_around(body):
    """The rest pose is singular: elbows and knees are straight, so their hinges are open."""
    rest = _joints(body, np.zeros((1, 24, 3), np.float32), np.zeros(10, np.float32), np.zeros((1, 3), np.float32))
    fit = fit_pose(np.repeat(rest, 5, 0), body)
    assert np.abs(fit.pose_rotvec).max() < 0.05
    rotvec = np.zeros((60, 24, 3), np.float32)
    rotvec[:, 18, 1] = -np.maximum(0, np.sin(np.linspace(0, 4 * np.pi, 60)))  # bends, straightens, bends
    rotvec[:, 16, 0] = 0.9  # with a twisted upper arm
    joints = _joints(body, rotvec, np.zeros(10, np.float32), np.zeros((60, 3), np.float32))
    fit = fit_pose(joints, body)
    assert _jumps(fit.pose_rotvec).max() < 30
    bent = rotvec[:, 18, 1] < -0.5
    np.testing.assert_allclose(fit.pose_rotvec[bent, 16, 0], 0.9, atol=0.15)


def test_turns_and_handstands(body):
    rotvec, transl = _motion(3, 60)
    rotvec[:, 0] = np.linspace(0, 4 * np.pi, 60)[:, None] * np.array([0.6, 0.0, 0.8])
    joints = _joints(body, rotvec, np.zeros(10, np.float32), transl)
    fit = fit_pose(joints, body)
    assert _error(body, fit, joints).mean() < 1
    assert _jumps(fit.pose_rotvec).max() < max(60, _jumps(rotvec).max() + 10)


def test_ignored_joint_and_no_refinement(body):
    rotvec, transl = _motion(4, 30)
    joints = _joints(body, rotvec, np.zeros(10, np.float32), transl)
    broken = joints.copy()
    broken[:, 20] += 0.2
    weights = np.ones(22)
    weights[20] = 0
    error = _error(body, fit_pose(broken, body, weights=weights), joints)
    assert np.delete(error, 20, 1).mean() < 1
    assert _error(body, fit_pose(joints, body, iterations=0), joints).mean() < 5


def test_more_steps_never_make_it_worse_with_foreign_bones(body):
    """Plain Gauss-Newton swings to and fro here: thighs 10 % too long, upper arms 15 % too short."""
    rotvec, transl = _motion(6, 20)
    joints = _joints(body, rotvec, np.zeros(10, np.float32), transl)
    target, parents = joints.copy(), skeletons.get("humanml3d22").parents
    factor = {4: 1.1, 5: 1.1, 18: 0.85, 19: 0.85, 13: 1.3, 14: 1.3}
    for j in range(1, 22):
        target[:, j] = target[:, parents[j]] + factor.get(j, 1.0) * (joints[:, j] - joints[:, parents[j]])
    errors = [
        np.square(_error(body, fit_pose(target, body, iterations=n), target)).mean() ** 0.5 for n in (0, 2, 4, 8, 30)
    ]
    assert all(after < before + 0.05 for before, after in pairwise(errors))
    assert errors[-1] < 0.8 * errors[0] and errors[3] < errors[-1] + 0.3


def test_positions_agree_with_an_independent_optimiser(body):
    """L-BFGS on one frame's rotations, which knows nothing of swing and twist, gets no nearer than 2 mm."""
    rotvec, transl = _motion(7, 3)
    joints = _joints(body, rotvec, np.zeros(10, np.float32), transl)
    joints[:, 1:] += np.random.default_rng(0).normal(0, 0.01, joints[:, 1:].shape).astype(np.float32)
    fit = fit_pose(joints, body)
    own = _error(body, fit, joints).mean()
    pose = torch.tensor(fit.pose_rotvec, requires_grad=True)
    shift = torch.tensor(fit.transl, requires_grad=True)
    optimiser = torch.optim.LBFGS([pose, shift], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        got = body.joints_only(roma.rotvec_to_rotmat(pose), torch.zeros(1, 10), shift)[:, :22]
        loss = 1e4 * (got - torch.tensor(joints)).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    best = _joints(body, pose.detach().numpy(), np.zeros(10, np.float32), shift.detach().numpy())
    assert own < 1e3 * np.linalg.norm(best - joints, axis=-1).mean() + 2


def test_collapsed_joints_give_finite_rotations(body):
    fit = fit_pose(np.zeros((3, 22, 3)), body)
    assert all(np.isfinite(x).all() for x in fit)


def test_bad_input(body):
    joints = np.zeros((4, 22, 3))
    bad = joints.copy()
    bad[2, 3, 1] = np.nan
    with pytest.raises(InputError, match=r"NaN.*frames \[2\]"):
        fit_pose(bad, body)
    for shape in ((0, 22, 3), (4, 24, 3), (22, 3)):
        with pytest.raises(InputError, match="humanml3d22"):
            fit_pose(np.zeros(shape), body)
    with pytest.raises(InputError, match="betas"):
        fit_pose(joints, body, np.zeros(9))
    with pytest.raises(InputError, match="weights"):
        fit_pose(joints, body, weights=np.full(22, -1.0))
    with pytest.raises(InputError, match="extent"):
        body_scale(joints, body)
