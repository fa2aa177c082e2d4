"""HumanML3D features against the official vectors and against a slow oracle written from the description alone."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn.errors import InputError
from posesyn.synthesis.motion.prior.features import (
    bone_offsets,
    motion_features,
    recover_joints,
    recover_joints_from_rotations,
    recover_root,
)
from posesyn.synthesis.motion.prior.normalizer import Normalizer

CHAINS = [[0, 2, 5, 8, 11], [0, 1, 4, 7, 10], [0, 3, 6, 9, 12, 15], [9, 14, 17, 19, 21], [9, 13, 16, 18, 20]]
REST = np.array(
    [
        [0, 0.95, 0], [0.09, 0.87, 0], [-0.09, 0.87, 0], [0, 1.08, 0], [0.1, 0.5, 0], [-0.1, 0.5, 0], [0, 1.2, 0],
        [0.1, 0.08, 0], [-0.1, 0.08, 0], [0, 1.26, 0], [0.1, 0.02, 0.13], [-0.1, 0.02, 0.13], [0, 1.47, 0],
        [0.08, 1.4, 0], [-0.08, 1.4, 0], [0, 1.55, 0.04], [0.18, 1.41, 0], [-0.18, 1.41, 0], [0.2, 1.15, -0.02],
        [-0.2, 1.14, 0], [0.2, 0.9, 0.04], [-0.21, 0.9, 0.05],
    ]
)  # fmt: skip


def moving(rng: np.random.Generator, frames: int, turn: float = 1.0) -> np.ndarray:
    """A made-up motion: wobbling joints on a body that walks a curve."""
    time = np.arange(frames)[:, None, None] / 20
    wobble = 0.05 * np.sin(rng.uniform(1, 6, (1, 22, 3)) * time + rng.uniform(0, 6, (1, 22, 3)))
    heading = rng.uniform(0, 6) + turn * time[:, 0, 0]
    turns = Rotation.from_rotvec(np.stack([0 * heading, heading, 0 * heading], -1)).as_matrix()
    path = np.cumsum(np.einsum("tij,j->ti", turns, [0, 0, 0.05]), axis=0) + rng.normal(0, 1, 3)
    return np.einsum("tij,tkj->tki", turns, REST + wobble) + path[:, None]


def arc(a, b) -> Rotation:
    """Shortest rotation by axis and angle."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    size = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis / size * math.atan2(size, a @ b)) if size > 0 else Rotation.identity()


def oracle(joints: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The seven steps of conformance/humanml3d_features/README.md, one frame and one joint at a time."""
    raw = np.array(
        [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0],
         [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1]] + [[0, -1, 0]] * 6, float
    )  # fmt: skip
    frames = len(joints)
    parent = {chain[i]: chain[i - 1] for chain in CHAINS for i in range(1, len(chain))}
    length = {j: np.linalg.norm(joints[0, j] - joints[0, p]) for j, p in parent.items()}
    ratio = (abs(offsets[5]).max() + abs(offsets[8]).max()) / (length[5] + length[8])
    world = np.zeros_like(joints)
    for t in range(frames):
        world[t, 0] = joints[t, 0] * ratio
        for chain in CHAINS:
            for before, joint in itertools.pairwise(chain):
                bone = joints[t, joint] - joints[t, before]
                world[t, joint] = world[t, before] + bone / np.linalg.norm(bone) * np.linalg.norm(offsets[joint])
    world[..., 1] -= world[..., 1].min()
    world -= world[0, 0] * [1, 0, 1]
    across = world[0, 2] - world[0, 1] + world[0, 17] - world[0, 16]
    first = arc(np.cross([0, 1, 0], across), np.array([0, 0, 1.0]))
    world = first.apply(world.reshape(-1, 3)).reshape(world.shape)

    across = world[:, 1] - world[:, 2] + world[:, 17] - world[:, 16]
    forward = np.cross([0, 1, 0], across / np.linalg.norm(across, axis=1, keepdims=True))
    weights = np.exp(-0.5 * (np.arange(-80, 81) / 20) ** 2)
    padded = np.concatenate([forward[:1]] * 80 + [forward] + [forward[-1:]] * 80)
    smooth = np.stack([(weights[:, None] * padded[t : t + 161]).sum(0) for t in range(frames)])
    heading = [arc(f, np.array([0, 0, 1.0])) for f in smooth]
    heading[0] = Rotation.identity()

    features = []
    for t in range(frames - 1):
        step = world[t + 1] - world[t]
        yaw = (heading[t + 1] * heading[t].inv()).as_rotvec()[1] / 2
        velocity = heading[t + 1].apply(step[0])
        local = heading[t].apply(world[t] - world[t, 0] * [1, 0, 1])[1:]
        columns = {}
        for chain in CHAINS:
            before = heading[t]
            for a, b in itertools.pairwise(chain):
                absolute = arc(raw[b], world[t, b] - world[t, a])
                columns[b] = (before.inv() * absolute).as_matrix().T[:2].ravel()
                before = absolute
        contacts = [(step[j] ** 2).sum() < 0.002 for j in (7, 10, 8, 11)]
        rotations = np.concatenate([columns[j] for j in range(1, 22)])
        parts = [[yaw, velocity[0], velocity[2], world[t, 0, 1]], local.ravel(), rotations]
        features.append(np.concatenate([*parts, heading[t].apply(step).ravel(), contacts]))
    return np.array(features)


@pytest.fixture(scope="session")
def official(shared):
    folder = shared / "conformance" / "humanml3d_features"
    with np.load(folder / "vectors.npz") as vectors:
        return {name: vectors[name] for name in vectors}, json.loads((folder / "spec.json").read_text())


def test_official_features(official):
    vectors, _ = official
    features = motion_features(vectors["joints"], vectors["target_offsets"])
    assert features.shape == (80, 263) and features.dtype == np.float32
    assert np.abs(features[:, :259] - vectors["features"][:, :259]).max() < 1e-4
    np.testing.assert_array_equal(features[:, 259:], vectors["features"][:, 259:])


def test_official_recovery(official):
    vectors, _ = official
    quaternion, root = recover_root(vectors["features"])
    assert np.abs(quaternion - vectors["root_quaternion"]).max() < 1e-5
    assert np.abs(root - vectors["root_position"]).max() < 1e-5
    assert np.abs(recover_joints(vectors["features"]) - vectors["joints_from_ric"]).max() < 1e-5
    joints = recover_joints_from_rotations(vectors["features"], vectors["target_offsets"])
    assert np.abs(joints - vectors["joints_from_rot"]).max() < 1e-5


def test_retargeted_motion_comes_back(official):
    vectors, _ = official
    back = recover_joints(motion_features(vectors["joints"], vectors["target_offsets"]))
    assert np.abs(back - vectors["global_positions"][:-1]).max() < 1e-4


@pytest.mark.parametrize("seed,frames", [(1, 2), (2, 3), (3, 21), (4, 64), (5, 197)])
def test_features_equal_the_oracle(official, seed, frames):
    vectors, _ = official
    # Turns of less than half a circle: beyond it the official yaw step changes its sign, tested below.
    joints = moving(np.random.default_rng(seed), frames, turn=2.5 / max(frames / 20, 1))
    expected = oracle(joints, vectors["target_offsets"].astype(float))
    got = motion_features(joints, vectors["target_offsets"])
    assert np.abs(got[:, :259] - expected[:, :259]).max() < 2e-6
    np.testing.assert_array_equal(got[:, 259:], expected[:, 259:])


@pytest.mark.parametrize("turn", [-0.9, 0.9])
def test_full_turns(rng, turn):
    """The official code stores one yaw step of each full turn with the wrong sign; continuous_heading mends it."""
    joints = moving(rng, 240, turn=turn)  # 10.8 radians cross the half circle twice
    official, mended = motion_features(joints), motion_features(joints, continuous_heading=True)
    wrong = np.flatnonzero(official[:, 0] != mended[:, 0])
    assert len(wrong) == 2
    np.testing.assert_allclose(mended[wrong, 0], -official[wrong, 0])
    np.testing.assert_array_equal(np.delete(mended, 0, axis=1), np.delete(official, 0, axis=1))

    def placed(world):
        across = world[0, 2] - world[0, 1] + world[0, 17] - world[0, 16]
        turned = arc(np.cross([0, 1, 0], across), np.array([0, 0, 1.0])).apply(
            (world - world[0, 0] * [1, 0, 1]).reshape(-1, 3)
        )
        return turned.reshape(world.shape) - [0, world[..., 1].min(), 0]

    assert np.abs(recover_joints(mended) - placed(joints)[:-1]).max() < 1e-4
    assert np.abs(recover_joints(official) - placed(joints)[:-1]).max() > 0.05


def test_own_bones_stay_without_target(rng):
    joints = moving(rng, 40)
    back = recover_joints(motion_features(joints, continuous_heading=True))
    bones = np.linalg.norm(joints[:-1, 4] - joints[:-1, 1], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(back[:, 4] - back[:, 1], axis=-1), bones, atol=1e-5)
    target = bone_offsets(REST)
    back = recover_joints(motion_features(joints, target))
    np.testing.assert_allclose(np.linalg.norm(back[:, 4] - back[:, 1], axis=-1), np.linalg.norm(target[4]), atol=1e-5)
    rotated = recover_joints_from_rotations(motion_features(joints, target), target)
    np.testing.assert_allclose(rotated, back, atol=1e-4)


def test_any_batch_and_torch_gradients(rng):
    features = np.stack([motion_features(moving(rng, 30)) for _ in range(6)])
    single = np.stack([recover_joints(one) for one in features])
    np.testing.assert_array_equal(recover_joints(features.reshape(2, 3, 29, 263)).reshape(6, 29, 22, 3), single)
    tensor = torch.from_numpy(features).requires_grad_()
    joints = recover_joints(tensor)
    assert isinstance(joints, torch.Tensor)
    joints.square().sum().backward()
    assert torch.isfinite(tensor.grad).all() and tensor.grad[:, 0, 0].abs().min() > 0
    as_tensor = motion_features(torch.from_numpy(moving(rng, 5)))
    assert isinstance(as_tensor, torch.Tensor) and as_tensor.shape == (4, 263)


def test_opposite_and_missing_bones_are_finite():
    joints = np.repeat(REST[None], 4, axis=0)
    joints[:, 4] = joints[:, 1] + [0, 0.4, 0]  # thigh straight up: opposite to its raw offset
    joints[:, 3] = joints[:, 0] - [0, 0.1, 0]
    joints[:, 18] = joints[:, 16]  # an upper arm without length
    joints[2:] *= [-1, 1, -1]  # turns by half a circle between two frames
    for offsets in (None, bone_offsets(REST)):
        features = motion_features(joints, offsets)
        assert np.isfinite(features).all()
        assert np.isfinite(recover_joints(features)).all()
    standing_on_the_shoulder = REST[None].repeat(2, 0)[..., [1, 0, 2]]
    assert np.isfinite(motion_features(standing_on_the_shoulder)).all()


@pytest.mark.parametrize(
    "joints,match",
    [
        (np.zeros((1, 22, 3)), "2 frames"),
        (np.zeros((5, 24, 3)), "22"),
        (np.zeros((2, 5, 22, 3)), "one motion"),
        (np.full((5, 22, 3), np.nan), "frame 0"),
    ],
)
def test_bad_joints(joints, match):
    with pytest.raises(InputError, match=match):
        motion_features(joints)


def test_bad_features_and_offsets(rng):
    with pytest.raises(InputError, match="263"):
        recover_joints(np.zeros((4, 262)))
    with pytest.raises(InputError, match="NaN"):
        recover_joints(np.full((4, 263), np.nan))
    with pytest.raises(InputError, match="target_offsets"):
        motion_features(moving(rng, 4), np.zeros((24, 3)))
    with pytest.raises(InputError, match="legs"):
        motion_features(np.zeros((4, 22, 3)), bone_offsets(REST))


class TestNormalizer:
    def test_statistics_and_inverse(self, rng):
        data = [rng.normal(2, 3, (50, 263)) * np.linspace(0.1, 1, 263) for _ in range(3)]
        normalizer = Normalizer.from_features("made-up", data)
        frames = np.concatenate(data)
        np.testing.assert_allclose(normalizer.mean, frames.mean(0), rtol=1e-5)
        np.testing.assert_allclose(normalizer.std[0], frames.std(0)[0], rtol=1e-5)
        np.testing.assert_allclose(normalizer.std[4:67], frames.std(0)[4:67].mean(), rtol=1e-5)
        np.testing.assert_allclose(normalizer.std[193:259], frames.std(0)[193:259].mean(), rtol=1e-5)
        assert len(np.unique(normalizer.std)) == 7
        np.testing.assert_allclose(normalizer.denormalize(normalizer.normalize(frames)), frames, atol=1e-4)
        tensor = torch.from_numpy(frames).float()[None]
        np.testing.assert_allclose(normalizer.normalize(tensor)[0].numpy(), normalizer.normalize(frames), atol=1e-4)

    def test_constant_dimensions_stay_finite(self):
        normalizer = Normalizer.from_features("still", [np.ones((4, 263))])
        np.testing.assert_array_equal(normalizer.normalize(np.ones((4, 263))), 0)

    def test_bad_input(self):
        with pytest.raises(InputError, match="at least one frame"):
            Normalizer.from_features("none", [])
        with pytest.raises(InputError, match="motion 1"):
            Normalizer.from_features("nan", [np.zeros((2, 263)), np.full((2, 263), np.nan)])
        with pytest.raises(InputError, match="positive"):
            Normalizer("zero", np.zeros(263), np.zeros(263))
        with pytest.raises(InputError, match="263"):
            Normalizer("one", np.zeros(263), np.ones(263)).normalize(np.zeros((2, 251)))
