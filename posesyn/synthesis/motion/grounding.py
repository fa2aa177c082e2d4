"""Brings motions that float back to the floor: nobody stays in the air longer than a jump lasts.

A prior that starts from a pose it has seldom seen, such as a seated one, may go on a hand's breadth or more above the
floor. Everything here is our own choice.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d

# How far flesh reaches below each joint when it is what the body rests on, metres: pelvis, hips, spine1, knees ... in
# the order of humanml3d22. Feet count as they are: the prior's floor is at the foot joints.
FLESH = np.array(
    [0.10, 0.10, 0.10, 0.10, 0.05, 0.05, 0.10, 0.0, 0.0, 0.10, 0.0, 0.0, 0.05, 0.08, 0.08, 0.10, 0.06, 0.06, 0.04, 0.04,
     0.03, 0.03]
)  # fmt: skip


def clearance(joints: np.ndarray) -> np.ndarray:
    """(T, 22, 3) metres, y up → (T,) height of the body's lowest point, estimated, above y = 0."""
    return (np.asarray(joints, np.float64)[..., 1] - FLESH).min(1)


def grounded(joints: np.ndarray, airborne: int) -> np.ndarray:
    """The motion shifted up and down, slowly, so that it touches y = 0 at least every ``airborne`` frames.

    What rises for a shorter time, a jump, keeps its height above the ground before and after it. Climbing is brought
    down to the floor like floating: positions alone do not tell them apart.

    Args:
        joints: (T, 22, 3) metres, y up.
        airborne: Frames.
    """
    joints = np.asarray(joints, np.float64)
    low = clearance(joints)
    # Morphological opening: the highest floor of which no point is exceeded by a stretch of ``airborne`` frames.
    floor = maximum_filter1d(minimum_filter1d(low, airborne, mode="nearest"), airborne, mode="nearest")
    floor = gaussian_filter1d(floor, airborne / 6, mode="nearest")
    return (joints - floor[:, None, None] * np.array([0.0, 1.0, 0.0])).astype(np.float32)
