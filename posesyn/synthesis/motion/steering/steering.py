"""Motions that pass through a pose: the estimator's, or one fitted from the 2D truth; and how a motion takes it.

PoseSyn leaves the available 2D truth unused; the fitting and bending and their constants are our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from posesyn import skeletons
from posesyn.body.pose_refinement import Fitted
from posesyn.errors import InputError
from posesyn.settings.synthesis import FittingSettings
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.motion.prior.features import PARENTS
from posesyn.types import PoseBatch

_INDEX = {name: i for i, name in enumerate(skeletons.get("humanml3d22").joints)}
_NEEDED = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "shoulder", "elbow"))
# World (y up) from camera (y down): half a turn about x. Right for a level camera, which is our own choice: the tilt of
# a photo's camera is not known.
CAM_TO_WORLD = np.array([1.0, -1.0, -1.0])


def joints22(prediction: PoseBatch, row: int = 0) -> np.ndarray:
    """(22, 3) float64 joints ``humanml3d22`` of one prediction, world orientation (y up), pelvis at the origin.

    Joints that the estimator's skeleton lacks are put where they lie on an upright body between or beside the others:
    spine, neck and collars between hips and shoulders, head above the neck, feet in front of the ankles.

    Raises:
        InputError: NaN, or hips, knees, shoulders or elbows are absent.
    """
    where, joints = f"the prediction of person '{prediction.person_ids[row]}'", prediction.joints_cam[row]
    points, present = skeletons.convert(np.asarray(joints, np.float64), prediction.skeleton, "humanml3d22")
    lacking = [name for name in _NEEDED if not present[_INDEX[name]]]
    if lacking:
        what = "the estimator's skeleton lacks joints that the motion prior needs"
        got = f"no {lacking} in '{prediction.skeleton}'"
        raise InputError(what, where=where, expected=list(_NEEDED), got=got)
    if not np.isfinite(points[present]).all():
        bad = [name for name, i in _INDEX.items() if present[i] and not np.isfinite(points[i]).all()]
        fix = "drop the person from the challenging ones"
        raise InputError("the predicted joints have NaN or infinite values", where=where, got=bad, fix=fix)
    points = points * CAM_TO_WORLD
    if not present.all():
        _complete(points, present)
    return points - points[0]


def _complete(points: np.ndarray, present: np.ndarray) -> None:
    """Fills absent joints in place; the shares are those of SMPL's mean body, rounded (our own choice)."""

    def get(name: str) -> np.ndarray:
        return points[_INDEX[name]]

    def put(name: str, value: np.ndarray) -> None:
        if not present[_INDEX[name]]:
            points[_INDEX[name]] = value

    hips = (get("left_hip") + get("right_hip")) / 2
    shoulders = (get("left_shoulder") + get("right_shoulder")) / 2
    trunk = shoulders - hips
    put("pelvis", hips + 0.15 * trunk)
    put("neck", hips + 1.1 * trunk)
    pelvis, neck = get("pelvis"), get("neck")
    for name, share in (("spine1", 0.22), ("spine2", 0.5), ("spine3", 0.6)):
        put(name, pelvis + share * (neck - pelvis))
    put("head", neck + 0.2 * (neck - hips))
    across = get("left_hip") - get("right_hip")
    forward = np.cross(across, trunk)
    forward = forward / max(float(np.linalg.norm(forward)), 1e-9)
    for side in ("left", "right"):
        put(f"{side}_collar", neck - 0.15 * trunk + 0.4 * (get(f"{side}_shoulder") - shoulders))
        shin = get(f"{side}_knee") - get(f"{side}_hip")
        put(f"{side}_ankle", get(f"{side}_knee") + shin)
        put(f"{side}_wrist", get(f"{side}_elbow") + 0.95 * (get(f"{side}_elbow") - get(f"{side}_shoulder")))
        lower = get(f"{side}_ankle") - get(f"{side}_knee")
        length = max(float(np.linalg.norm(lower)), 1e-9)
        ahead = forward - lower * float(forward @ lower) / length**2
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9)
        put(f"{side}_foot", get(f"{side}_ankle") + 0.3 * length * ahead + 0.12 * lower)


def yaw_between(source: np.ndarray, target: np.ndarray) -> float:
    """Angle about y by which (22, 3) joints are best turned onto others, both taken relative to joint 0.

    The least-squares rotation about one axis; maximises the sum of dot products of the horizontal parts.
    """
    along, across = _level_products(source - source[:1], target - target[:1])
    return float(np.arctan2(across, along))


def _level_products(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 22, 3) → (...,) sums of the dot and of the cross products of the horizontal parts."""
    along = (source[..., 0] * target[:, 0] + source[..., 2] * target[:, 2]).sum(-1)
    return along, (source[..., 2] * target[:, 0] - source[..., 0] * target[:, 2]).sum(-1)


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """(..., 3) turned about the world's y axis."""
    return points @ _turn(yaw).T


def _turn(yaw: float) -> np.ndarray:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])


_FLIP_Y = np.diag(CAM_TO_WORLD)


def split_view(view: np.ndarray) -> tuple[float, np.ndarray, float]:
    """A view (3, 3) as the person's yaw about the world's y axis and what the camera does.

    Returns:
        yaw, the camera (3, 3) such that ``view = camera @ diag(1, -1, -1) @ turn(yaw)``, and the camera's elevation
        above the horizon; radians.
    """
    yaw = float(np.arctan2(view[0, 2], view[0, 0]))
    return yaw, view @ _turn(yaw).T @ _FLIP_Y, float(np.arcsin(np.clip(-view[2, 1], -1.0, 1.0)))


@dataclass(frozen=True, eq=False)
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


def draw_goal(fitted: Fitted, number: int, seed: int, width: float, settings: FittingSettings) -> Goal:
    """The goal of a person's sample ``number``: the best hypothesis for 0, else one drawn from the posterior.

    (number, seed of the sample) decide everything; for ``width`` see :meth:`Fitted.draw`.
    """
    if number == 0:
        row, points, view = 0, fitted.points[0], fitted.views[0]
    else:
        row, points, view = fitted.draw(rng_of(seed, "goal"), settings.temperature, width)
    yaw, camera, elevation = split_view(view)
    pose = turned(points[:22] - points[:1], yaw)
    return Goal(pose, camera, elevation, row, float(fitted.cost[row] - fitted.cost.min()))


def nearest_frame(
    joints: np.ndarray, pose: np.ndarray, first: int = 0, last: int | None = None
) -> tuple[int, float, float]:
    """The frame of (T, 22, 3) joints, y up, that is nearest to a pose (22, 3) up to a turn about the vertical.

    Frames before ``first`` do not count, unless there are no others, nor do those after ``last``. Returns the frame,
    the angle by which the motion must be turned, and the root mean square distance in metres.
    """
    first = min(first, len(joints) - 1)
    frames, goal = np.asarray(joints[first : None if last is None else last + 1], np.float64), pose - pose[:1]
    frames = frames - frames[:, :1]
    # All frames at once what yaw_between finds for one; the distance follows from its two sums.
    along, across = _level_products(frames, goal)
    level = (frames[..., 1] * goal[:, 1]).sum(-1)
    square = (frames**2).sum((-1, -2)) + (goal**2).sum() - 2 * (level + np.hypot(along, across))
    best = int(np.argmin(square))
    yaw = float(np.arctan2(across[best], along[best]))
    return first + best, yaw, float(np.sqrt(max(square[best], 0.0) / len(goal)))


# Frames. On validation subjects 2 / 3 take the acceleration around the pose from 31 to 12 / 9 mm per frame²; recorded
# motions have 8.
SOFTENING = 3.0


def softened(joints: np.ndarray, frame: int, reach: float) -> np.ndarray:
    """(T, 22, 3) smoothed over time where a motion that ends in a pose and one that leaves it meet.

    A Gaussian of :data:`SOFTENING` frames at ``frame``, ever less around it, as a Gaussian of ``reach`` frames falls.
    """
    if reach <= 0:
        return joints
    smooth = gaussian_filter1d(np.asarray(joints, np.float64), SOFTENING, axis=0, mode="nearest")
    share = np.exp(-0.5 * ((np.arange(len(joints)) - frame) / reach) ** 2)[:, None, None]
    return joints + share * (smooth - joints)


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
