"""Oracles: a scalar float64 loop over joints, 4x4 matrix products, and a mirror applied to the finished joints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.geometry import kinematics
from posesyn.geometry.rotations import rotvec_to_matrix

SMPL = skeletons.get("smpl24").parents


def _by_loop(local, offsets, parents, root):
    transforms = {}

    def transform(j):
        if j not in transforms:
            matrix = np.eye(4)
            matrix[:3, :3], matrix[:3, 3] = local[j], offsets[j] if parents[j] >= 0 else root
            transforms[j] = matrix if parents[j] < 0 else transform(parents[j]) @ matrix
        return transforms[j]

    stack = np.stack([transform(j) for j in range(len(parents))])
    return stack[:, :3, 3], stack[:, :3, :3]


@pytest.mark.parametrize("name", ["smpl24", "3dhp28", "h36m32", "3dhp17"])  # 3dhp: children before their parents
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_against_a_loop(rng, name, batch):
    parents = skeletons.get(name).parents
    count = len(parents)
    local = Rotation.random(int(np.prod(batch)) * count, random_state=1).as_matrix().reshape(*batch, count, 3, 3)
    offsets, root = rng.normal(size=(*batch, count, 3)), rng.normal(size=(*batch, 3))
    joints, rotations = kinematics.forward_kinematics(
        *map(torch.from_numpy, (local, offsets)), parents, torch.tensor(root)
    )
    for i in np.ndindex(*batch):
        expected = _by_loop(local[i], offsets[i], parents, root[i])
        np.testing.assert_allclose(joints[i], expected[0], atol=1e-12)
        np.testing.assert_allclose(rotations[i], expected[1], atol=1e-12)


def test_one_skeleton_serves_all_frames(rng):
    local = torch.from_numpy(Rotation.random(5 * 24, random_state=1).as_matrix().reshape(5, 24, 3, 3))
    offsets = torch.from_numpy(rng.normal(size=(24, 3)))
    joints, rotations = kinematics.forward_kinematics(local, offsets, SMPL)
    assert joints.shape == (5, 24, 3) and rotations.shape == (5, 24, 3, 3)
    np.testing.assert_allclose(joints[:, 0], offsets[0].expand(5, 3))
    many, same = kinematics.forward_kinematics(local[0], offsets.expand(7, 24, 3), SMPL)
    assert many.shape == (7, 24, 3) and same.shape == (7, 24, 3, 3)
    np.testing.assert_allclose(many[6], joints[0])


def test_rest_pose_and_offsets(rng):
    rest = torch.from_numpy(rng.normal(size=(2, 24, 3)))
    offsets = kinematics.offsets_from_joints(rest, SMPL)
    joints, _ = kinematics.forward_kinematics(torch.eye(3).double().expand(2, 24, 3, 3), offsets, SMPL)
    np.testing.assert_allclose(joints, rest, atol=1e-12)


def test_bone_lengths_do_not_change(rng):
    rotvec = torch.from_numpy(rng.normal(size=(6, 24, 3)))
    offsets = torch.from_numpy(rng.normal(size=(24, 3)))
    joints, _ = kinematics.forward_kinematics(rotvec_to_matrix(rotvec), offsets, SMPL)
    for child, parent in enumerate(SMPL):
        if parent >= 0:
            np.testing.assert_allclose((joints[:, child] - joints[:, parent]).norm(dim=-1), offsets[child].norm())


def test_global_and_local_are_inverse():
    local = torch.from_numpy(Rotation.random(3 * 24, random_state=1).as_matrix().reshape(3, 24, 3, 3))
    there = kinematics.local_to_global(local, SMPL)
    np.testing.assert_allclose(kinematics.global_to_local(there, SMPL), local, atol=1e-12)


def test_gradients(rng):
    rotvec = torch.from_numpy(rng.normal(size=(6, 3))).requires_grad_()
    offsets = torch.from_numpy(rng.normal(size=(6, 3))).requires_grad_()
    parents = (-1, 0, 1, 1, 0, 4)

    def joints(r, o):
        return kinematics.forward_kinematics(rotvec_to_matrix(r), o, parents)[0]

    assert torch.autograd.gradcheck(joints, (rotvec, offsets))


@pytest.mark.parametrize(
    "call",
    [
        lambda: kinematics.forward_kinematics(torch.zeros(23, 3, 3), torch.zeros(24, 3), SMPL),
        lambda: kinematics.forward_kinematics(torch.zeros(24, 3, 3), torch.zeros(23, 3), SMPL),
        lambda: kinematics.local_to_global(torch.zeros(3, 3, 3), (-1, -1, 0)),
        lambda: kinematics.local_to_global(torch.zeros(3, 3, 3), (-1, 2, 1)),
        lambda: kinematics.global_to_local(torch.zeros(24, 3), SMPL),
        lambda: kinematics.offsets_from_joints(torch.zeros(23, 3), SMPL),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError):
        call()
