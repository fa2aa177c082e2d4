from __future__ import annotations

import numpy as np
import pytest

from posesyn.synthesis.motion.prior.evaluator import foot_skating
from posesyn.synthesis.motion.prior.features import PARENTS
from posesyn.synthesis.motion.sampler import FLESH, clearance, feet_locked, grounded, path_planted, settled


@pytest.fixture
def person(standing):
    joints = np.repeat(standing[None], 40, 0)
    joints[..., 1] -= joints[..., 1].min()
    joints[:, [4, 5], 2] += 0.03  # knees a little bent
    return joints


def bones(joints):
    return np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1)


def test_a_body_that_glides_on_standing_feet_stops(person):
    gliding = person + np.linspace(0, 1, 40)[:, None, None] * [1.0, 0, 0]
    assert foot_skating(gliding) == 1
    fixed = path_planted(gliding)
    assert np.ptp(fixed[:, 0, 0]) < 0.1 and foot_skating(fixed) == 0
    np.testing.assert_allclose(fixed - fixed[:, :1], gliding - gliding[:, :1], atol=1e-9)  # poses stay


def test_a_body_in_the_air_flies_on(person):
    flying = person + np.linspace(0, 3, 40)[:, None, None] * [1.0, 0, 0]
    flying[6:-6, :, 1] += 0.5
    np.testing.assert_allclose(np.diff(path_planted(flying)[7:-7, 0, 0]), 3 / 39, atol=1e-3)


def test_one_sliding_foot_is_held_and_its_knee_follows(person, rng):
    sliding = person.copy()
    drift = (0.002 * np.arange(40))[:, None] * [0.0, 0, 1.0]  # 4 cm per second, both ends of the foot
    for joint in (7, 10):
        sliding[:, joint] += drift
    shank = np.linalg.norm(sliding[:, 7] - sliding[:, 4], axis=-1)
    fixed = feet_locked(sliding)
    assert np.ptp(fixed[:, 10, 2]) < 1e-6 < np.ptp(sliding[:, 10, 2])
    np.testing.assert_allclose(np.linalg.norm(fixed[:, 7] - fixed[:, 4], axis=-1), shank, atol=1e-6)
    np.testing.assert_allclose(bones(fixed)[:, 3], bones(sliding)[:, 3], atol=1e-6)  # thigh
    others = [j for j in range(22) if j not in (4, 7, 10)]
    np.testing.assert_allclose(fixed[:, others], sliding[:, others], atol=1e-6)


def test_a_foot_out_of_reach_gives_way(person):
    far = person.copy()
    far[20:, [1, 4, 7, 10], 2] += 0.1
    far[:, 0, 1] += 0.0
    fixed = feet_locked(far)
    assert np.isfinite(fixed).all()
    leg = bones(far)[:, 3] + bones(far)[:, 6]
    assert (np.linalg.norm(fixed[:, 7] - fixed[:, 1], axis=-1) <= leg + 1e-6).all()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_motions_pass(person, frames):
    assert settled(person[:frames]).shape == (frames, 22, 3)
    assert np.isfinite(settled(person[:frames])).all()


def test_standing_still_stays(person):
    still = feet_locked(path_planted(person))
    np.testing.assert_allclose(still, person, atol=2e-3)


def lifted(standing, heights):
    return standing[None] - [0, standing[:, 1].min(), 0] + np.stack([0 * heights, heights, 0 * heights], -1)[:, None]


def test_a_motion_that_floats_comes_down(standing):
    heights = np.concatenate([np.zeros(20), np.linspace(0, 0.5, 15), np.full(65, 0.5)])
    calm = grounded(lifted(standing, heights), 16)
    assert clearance(calm)[40:].max() < 0.01
    assert np.abs(np.diff(calm[:, 0, 1])).max() < 0.1  # without a jerk
    np.testing.assert_allclose(calm[..., [0, 2]], lifted(standing, heights)[..., [0, 2]], atol=1e-6)


def test_a_jump_stays_a_jump(standing):
    heights = np.zeros(80)
    heights[30:44] = 0.6 * np.sin(np.linspace(0, np.pi, 14))
    np.testing.assert_allclose(grounded(lifted(standing, heights), 16), lifted(standing, heights), atol=1e-6)
    again = grounded(lifted(standing, heights + 0.3), 16)  # the same jump by a floating person
    np.testing.assert_allclose(again, lifted(standing, heights), atol=1e-6)


def test_what_sinks_is_raised(standing):
    assert abs(clearance(grounded(lifted(standing, np.full(40, -0.2)), 16))).max() < 1e-6


def test_whoever_lies_rests_on_the_flesh_not_on_the_joints(standing):
    lying = standing[:, [0, 2, 1]] * [1, 1, -1]  # on the back
    calm = grounded(np.repeat(lying[None], 30, 0) + np.array([0, 0.4, 0]), 16)
    assert (calm[..., 1] >= FLESH - 1e-6).all() and clearance(calm).max() < 1e-6


def test_one_frame(standing):
    assert abs(clearance(grounded(standing[None] + [0, 1.0, 0], 16))[0]) < 1e-6
