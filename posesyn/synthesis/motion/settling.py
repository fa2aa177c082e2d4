"""Takes jitter, sliding, floating and sinking out of decoded motions. The constants are our own choice."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, minimum_filter1d

from posesyn.synthesis.motion.planting import feet_locked, path_planted

FEET = (7, 8, 10, 11)
AFTERWARDS = 0.4  # of the smoothing once more, after the feet were set; more makes them slide again
FLOOR_WINDOW = 9  # frames over which the lowest foot is sought


def settled(joints: np.ndarray, smoothing: float = 1.0) -> np.ndarray:
    """(T, 22, 3) joints, y up → smoothed over time, feet that carry kept in place, on the floor y = 0, never below it.

    The clip's floor is a low percentile of the lowest foot joint; frames that still sink are lifted, smoothly.

    Args:
        joints: Metres.
        smoothing: Standard deviation of the Gaussian in frames; 0 leaves the joints as they are.
    """
    joints = np.asarray(joints, np.float64)
    if smoothing > 0 and len(joints) > 1:
        joints = gaussian_filter1d(joints, smoothing, axis=0, mode="nearest")
    joints = feet_locked(path_planted(joints))
    if smoothing > 0:  # where contacts begin and end
        joints = gaussian_filter1d(joints, AFTERWARDS * smoothing, axis=0, mode="nearest")
    lowest = joints[:, FEET, 1].min(1)
    joints = joints - np.array([0.0, 1.0, 0.0]) * np.percentile(lowest, 10)
    sunk = np.minimum(joints[..., 1].min(1), 0.0)
    lift = gaussian_filter1d(minimum_filter1d(sunk, FLOOR_WINDOW), FLOOR_WINDOW / 4, mode="nearest")
    lift = np.minimum(lift, sunk)
    return (joints - lift[:, None, None] * np.array([0.0, 1.0, 0.0])).astype(np.float32)
