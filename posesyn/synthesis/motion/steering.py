"""Motions that pass through a pose lifted from the 2D truth: which pose a sample gets, and how the motion takes it.

PoseSyn leaves the available 2D truth unused (posesyn.md section 9); the steps here and their constants are our own
choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from posesyn.synthesis.motion.completion import turned
from posesyn.synthesis.motion.features import PARENTS
from posesyn.synthesis.motion.pose_lifting import split_view
from posesyn.synthesis.motion.pose_refinement import Lifted, LiftingSettings


@dataclass(frozen=True)
class Goal:
    """The pose that one sample shall take.

    Attributes:
        pose: (22, 3) metres, world orientation (y up, gravity down) as the photo's camera, looking along -z and tilted
            as ``camera`` says, sees it; pelvis at the origin.
        camera: (3, 3) from the axes of a level camera to those of the photo's.
        elevation: Of the photo's camera above the horizon, radians.
        hypothesis: Number of the hypothesis, 0 the best.
        cost: Its cost above that of the best one.
    """

    pose: np.ndarray
    camera: np.ndarray
    elevation: float
    hypothesis: int
    cost: float


def draw_goal(lifted: Lifted, number: int, seed: int, width: float, settings: LiftingSettings) -> Goal:
    """The goal of a person's sample ``number``: the best hypothesis for 0, else one drawn from the posterior.

    Args:
        lifted: Hypotheses of the person.
        number: k; with ``seed`` it decides everything.
        seed: Of the sample.
        width: See ``Lifted.draw``.
        settings: Those of the lifting.
    """
    if number == 0:
        row, points, view = 0, lifted.points[0], lifted.views[0]
    else:
        row, points, view = lifted.draw(np.random.default_rng(seed), settings.temperature, width)
    yaw, camera, elevation = split_view(view)
    pose = turned(points[:22] - points[:1], yaw)
    return Goal(pose, camera, elevation, row, float(lifted.cost[row] - lifted.cost.min()))


def nearest_frame(joints: np.ndarray, pose: np.ndarray, first: int = 0) -> tuple[int, float, float]:
    """The frame that is nearest to a pose up to a turn about the vertical.

    Args:
        joints: (T, 22, 3) y up.
        pose: (22, 3).
        first: Frames before it do not count, unless there are no others.

    Returns:
        Frame, the angle by which the motion must be turned, root mean square distance in metres.
    """
    first = min(first, len(joints) - 1)
    frames, goal = np.asarray(joints[first:], np.float64), pose - pose[:1]
    frames = frames - frames[:, :1]
    # All frames at once what yaw_between finds for one; the distance follows from its two sums.
    along = (frames[..., 0] * goal[:, 0] + frames[..., 2] * goal[:, 2]).sum(-1)
    across = (frames[..., 2] * goal[:, 0] - frames[..., 0] * goal[:, 2]).sum(-1)
    level = (frames[..., 1] * goal[:, 1]).sum(-1)
    square = (frames**2).sum((-1, -2)) + (goal**2).sum() - 2 * (level + np.hypot(along, across))
    best = int(np.argmin(square))
    yaw = float(np.arctan2(across[best], along[best]))
    return first + best, yaw, float(np.sqrt(max(square[best], 0.0) / len(goal)))


def bent_to(joints: np.ndarray, pose: np.ndarray, frame: int, reach: float) -> np.ndarray:
    """The motion with the bones of one frame turned into those of a pose, and of the frames around it ever less.

    Each bone is turned by the rotation it needs at ``frame``, times a Gaussian in time, in axes that turn with the
    person. Bone lengths stay those of the motion; the root's path too, but for the height, which keeps the lowest joint
    where it was.

    Args:
        joints: (T, 22, 3) metres, y up, already turned so that ``frame`` faces as the pose does.
        pose: (22, 3).
        frame: Where the pose is taken.
        reach: Standard deviation of the Gaussian in frames; 0 changes this frame alone.
    """
    joints = np.asarray(joints, np.float64)
    parents = list(PARENTS[1:])
    bones, wanted = joints[:, 1:] - joints[:, parents], pose[1:] - pose[parents]
    away = np.arange(len(joints)) - frame
    share = (away == 0).astype(float) if reach <= 0 else np.exp(-0.5 * (away / reach) ** 2)
    rotation = _shortest(bones[frame], wanted)  # (21, 3)
    yaws = _headings(joints)
    local = turned(rotation, -yaws[frame])
    bent = np.empty_like(joints)
    bent[:, 0] = joints[:, 0]
    near = np.flatnonzero(share > 1e-3)
    directions = bones.copy()
    for t in near:
        directions[t] = Rotation.from_rotvec(share[t] * turned(local, yaws[t])).apply(bones[t])
    for child in range(1, joints.shape[1]):
        bent[:, child] = bent[:, PARENTS[child]] + directions[:, child - 1]
    sunk = joints[..., 1].min(1) - bent[..., 1].min(1)
    bent[near, :, 1] += sunk[near, None]
    return bent.astype(np.float32)


def _shortest(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, 3) rotation vectors that turn vectors into the directions of others."""
    source = source / np.maximum(np.linalg.norm(source, axis=-1, keepdims=True), 1e-9)
    target = target / np.maximum(np.linalg.norm(target, axis=-1, keepdims=True), 1e-9)
    axis = np.cross(source, target)
    sine = np.linalg.norm(axis, axis=-1)
    angle = np.arctan2(sine, (source * target).sum(-1))
    # Opposite directions leave the axis open: any one across the bone.
    across = np.cross(source, np.eye(3)[np.argmin(np.abs(source), -1)])
    across = across / np.linalg.norm(across, axis=-1, keepdims=True)
    axis = np.where(sine[:, None] > 1e-6, axis / np.maximum(sine, 1e-9)[:, None], across)
    return axis * angle[:, None]


def _headings(joints: np.ndarray) -> np.ndarray:
    """(T,) yaw of hips and shoulders."""
    across = joints[:, 1] - joints[:, 2] + joints[:, 16] - joints[:, 17]
    return np.arctan2(-across[:, 2], across[:, 0])
