from __future__ import annotations

import numpy as np
import pytest

from posesyn.synthesis.motion.cleanup import feet_locked, path_planted, settled
from posesyn.synthesis.motion.prior.evaluator import foot_skating
from posesyn.synthesis.motion.prior.features import PARENTS


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
