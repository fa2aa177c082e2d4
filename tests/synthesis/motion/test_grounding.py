from __future__ import annotations

import numpy as np

from posesyn.synthesis.motion.cleanup import FLESH, clearance, grounded


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
