"""Motions that nobody recorded, for the motion tokeniser: it has to carry poses unlike those of its few performers.

An estimator's wrong poses, and other people's sports, pass through the tokeniser too. All amounts here are our own
choice. Only the tokeniser is trained on such motions; the transformer learns from recorded ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from posesyn.errors import InputError
from posesyn.synthesis.motion.features import JOINTS, PARENTS

# Joints at which a limb may be turned, roots before leaves: hips, spine, knees, ankles, neck, shoulders, elbows.
_TURNABLE = (1, 2, 3, 9, 4, 5, 7, 8, 12, 16, 17, 18, 19)
_LEGS = (1, 2, 4, 5, 7, 8, 10, 11)
_UPPER = tuple(joint for joint in range(1, JOINTS) if joint not in _LEGS)


def below(joint: int) -> list[int]:
    """The joints that move when ``joint`` turns."""
    found = [joint]
    for child in range(joint + 1, JOINTS):
        if PARENTS[child] in found:
            found.append(child)
    return found[1:]


def _smooth_noise(rng: np.random.Generator, frames: int, dims: int, sigma: float) -> np.ndarray:
    """(frames, dims) Gaussian noise of unit variance, smoothed over ``sigma`` frames."""
    pad = int(3 * sigma) + 1
    noise = gaussian_filter1d(rng.standard_normal((frames + 2 * pad, dims)), sigma, axis=0)[pad : pad + frames]
    return noise * np.sqrt(2 * np.sqrt(np.pi) * sigma)  # a Gaussian kernel leaves 1 / (2 sqrt(pi) sigma) of variance


def bent(joints: np.ndarray, rng: np.random.Generator, most: float = 0.7) -> np.ndarray:
    """(T, 22, 3) with some limbs turned by random rotations that change slowly (sd up to ``most`` rad per axis)."""
    result = np.array(joints, np.float64)
    for joint in _TURNABLE:
        if rng.random() < 0.5:
            continue
        turn = rng.uniform(0.1, most) * _smooth_noise(rng, len(joints), 3, rng.uniform(6, 40))
        moved = below(joint)
        arm = result[:, moved] - result[:, joint, None]
        matrix = Rotation.from_rotvec(turn).as_matrix()
        result[:, moved] = result[:, joint, None] + np.einsum("tij,tkj->tki", matrix, arm)
    return result


def tipped(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, 22, 3) with the whole body tipped over about a level axis, as in a fall or a cartwheel.

    The lowest joint of every frame stays at its height.
    """
    joints = np.asarray(joints, np.float64)
    direction = rng.uniform(0, 2 * np.pi)
    angle = rng.uniform(0.3, 1.8) * _smooth_noise(rng, len(joints), 1, rng.uniform(12, 50)) + rng.uniform(-0.8, 0.8)
    turn = angle * np.array([[np.cos(direction), 0.0, np.sin(direction)]])
    matrix = Rotation.from_rotvec(turn).as_matrix()
    result = joints[:, :1] + np.einsum("tij,tkj->tki", matrix, joints - joints[:, :1])
    result[..., 1] += (joints[..., 1].min(1) - result[..., 1].min(1))[:, None]
    return result


def grafted(legs: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """(T, 22, 3): the legs and path of one motion with the upper body of another, turned to the same heading."""
    frames = min(len(legs), len(upper))
    legs, upper = np.array(legs[:frames], np.float64), np.asarray(upper[:frames], np.float64)

    def yaw(joints: np.ndarray) -> np.ndarray:
        across = joints[:, 1] - joints[:, 2]
        return np.arctan2(-across[:, 2], across[:, 0])

    turn = yaw(legs) - yaw(upper)
    matrix = Rotation.from_rotvec(turn[:, None] * np.array([[0.0, 1.0, 0.0]])).as_matrix()
    legs[:, _UPPER] = legs[:, :1] + np.einsum("tij,tkj->tki", matrix, upper[:, _UPPER] - upper[:, :1])
    return legs


def perturbed(motions: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One motion (T, 22, 3) made of random ones of ``motions``: grafted, bent or tipped, or several of these."""
    if not len(motions):
        raise InputError("there is no motion to perturb", where="perturbed")
    joints = motions[rng.integers(len(motions))]
    if rng.random() < 0.35:
        joints = grafted(joints, motions[rng.integers(len(motions))])
    if rng.random() < 0.7:
        joints = bent(joints, rng)
    if rng.random() < 0.25:
        joints = tipped(joints, rng)
    return joints
