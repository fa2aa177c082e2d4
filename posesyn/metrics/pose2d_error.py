"""The 2D error by which persons are ranked (PoseSyn's EEM)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.metrics.keypoints2d import HEAD_SIZES
from posesyn.settings.stages import Normalizer
from posesyn.types import Person

# Our own choice; PoseSyn says only that arm and leg joints weigh more (arXiv 2503.13025). Words of joint
# names. Five facial points show one head, so each weighs less.
LIMB_WEIGHTS = {
    **dict.fromkeys(("wrist", "hand", "ankle", "foot"), 2.0),
    **dict.fromkeys(("elbow", "knee"), 1.5),
    **dict.fromkeys(("nose", "eye", "ear", "toe", "heel"), 0.5),
    "tip": 0.0,
}
JOINT_WEIGHTS: dict[str, dict[str, float]] = {"limbs": LIMB_WEIGHTS, "uniform": {}}

# Torso and head shrink towards zero when they point at the camera, which would rank every such person first: they count
# as at least these fractions of the box's longer side. Our own choice.
_LEAST_TORSO, _LEAST_HEAD = 0.1, 0.05

# Tried in this order; the same rule is used for prediction and truth. Only the last one needs no particular joint.
_ROOT_RULES = (
    ("pelvis", ("pelvis",)),
    ("pelvis", ("hip",)),
    ("pelvis", ("mid_hip",)),
    ("mid-hips", ("left_hip", "right_hip")),
    ("thorax", ("thorax",)),
    ("neck", ("neck",)),
    ("mid-shoulders", ("left_shoulder", "right_shoulder")),
)


def joint_weights(skeleton: str, weights: str | Mapping[str, float] = "limbs") -> np.ndarray:
    """(J,) weights of a skeleton's joints.

    Args:
        skeleton: Joint set.
        weights: A key of :data:`JOINT_WEIGHTS`, or weights by joint name or by a word of joint names (``"wrist"``); a
            full name goes before a word, joints that nothing names weigh 1.

    Raises:
        InputError: An unknown configuration, a name no joint has, or a negative weight.
    """
    joints = skeletons.get(skeleton).joints
    if isinstance(weights, str):
        if weights not in JOINT_WEIGHTS:
            expected = f"one of {list(JOINT_WEIGHTS)} or a mapping"
            raise InputError("unknown joint weights", expected=expected, got=weights)
        table: Mapping[str, float] = JOINT_WEIGHTS[weights]
    else:
        table = weights
        unknown = set(table) - {name for joint in joints for name in (joint, *joint.split("_"))}
        if unknown:
            where = f"skeleton '{skeleton}'"
            raise InputError("joint weights name no joint", where=where, expected=list(joints), got=unknown)
    if any(not value >= 0 for value in table.values()):
        raise InputError("joint weights must not be negative", got=dict(table))
    values = []
    for joint in joints:
        words = [table[word] for word in joint.split("_") if word in table]
        values.append(table.get(joint, min(words) if words else 1.0))
    return np.array(values, np.float64)


def root_of(skeleton: str, visible: np.ndarray) -> tuple[str, tuple[int, ...]]:
    """Name of the rule and the joints whose mean is the root of a pose, given which joints are known.

    Pelvis, else mid-hips, else thorax, neck, mid-shoulders, else the mean of all known joints (our own choice:
    PoseSyn's data always has a pelvis).
    """
    joints = skeletons.get(skeleton).joints
    for rule, names in _ROOT_RULES:
        if all(name in joints and visible[joints.index(name)] for name in names):
            return rule, tuple(joints.index(name) for name in names)
    return "mean", tuple(int(i) for i in np.flatnonzero(visible))


def person_size(
    box_xyxy: np.ndarray,
    keypoints_px: np.ndarray,
    visible: np.ndarray,
    normalizer: Normalizer = "box",
    skeleton: str | None = None,
    head_size: float | None = None,
) -> float:
    """Length in pixels that 2D errors are divided by; 0 where a person does not show it.

    PoseSyn's figure shows normalised errors but not by what (arXiv 2503.13025); all are our own choice.

    Args:
        box_xyxy, keypoints_px, visible: (4,), (J, 2), (J,); the box around the whole body, ``Person.body_box_xyxy``, so
            that persons of all data sets compare.
        normalizer: ``"box"`` the longer side of the box, ``"area"`` the root of its area, ``"keypoints"`` the diagonal
            of the known joints' extent, ``"torso"`` from the middle of the shoulders to the middle of the hips,
            ``"head"`` the head size.
        skeleton: Joint order, for torso and head.
        head_size: A head size that the data set states (MPII); else the rule of ``metrics.HEAD_SIZES``, or
            head top to neck where the joints exist.

    Raises:
        InputError: Unknown name, or no skeleton for torso and head.
    """
    width, height = (float(x) for x in np.asarray(box_xyxy[2:], np.float64) - box_xyxy[:2])
    points, visible = np.asarray(keypoints_px, np.float64), np.asarray(visible, bool)
    if normalizer == "box":
        return max(width, height)
    if normalizer == "area":
        return float(np.sqrt(max(width * height, 0.0)))
    if normalizer == "keypoints":
        points = points[visible]
        return float(np.linalg.norm(points.max(0) - points.min(0))) if len(points) else 0.0
    if normalizer not in get_args(Normalizer) or skeleton is None:
        known = ", ".join(get_args(Normalizer))
        raise InputError("unknown normalizer, or one that needs a skeleton", expected=known, got=normalizer)
    if normalizer == "torso":
        ends = [_middle(points, visible, skeleton, f"left_{part}", f"right_{part}") for part in ("shoulder", "hip")]
        length, least = _distance(*ends), _LEAST_TORSO
    else:
        first, second, factor = HEAD_SIZES.get(skeleton, ("head_top", "neck", 1.0))
        ends = [_middle(points, visible, skeleton, name, name) for name in (first, second)]
        length = head_size if head_size else factor * _distance(*ends)
        least = _LEAST_HEAD
    return max(length, least * max(width, height)) if length > 0 else 0.0


def _middle(points: np.ndarray, visible: np.ndarray, skeleton: str, first: str, second: str) -> np.ndarray | None:
    joints = skeletons.get(skeleton).joints
    if first not in joints or second not in joints:
        return None
    rows = [joints.index(first), joints.index(second)]
    return points[rows].mean(0) if visible[rows].all() else None


def _distance(first: np.ndarray | None, second: np.ndarray | None) -> float:
    return 0.0 if first is None or second is None else float(np.linalg.norm(first - second))


def occlusion_weights(
    person: Person,
    image_size: tuple[int, int],
    occluded: float = 1.0,
    crowded: float = 1.0,
    neighbours: np.ndarray | None = None,
) -> np.ndarray:
    """(J,) factor of each joint's weight; a hidden joint's annotation is a guess, so its error says less.

    Args:
        person: Its ``occluded`` (J,) says which joints annotators marked as hidden (COCO, MPII, LSP).
        image_size: (width, height); joints outside count as hidden.
        occluded: Factor of hidden joints; 0 masks them.
        crowded: Factor of joints that lie inside another person's box.
        neighbours: (N, 4) boxes of the other persons of the image.
    """
    points = np.asarray(person.keypoints_px, np.float64)
    hidden = (points < -0.5).any(-1) | (points > np.array(image_size) - 0.5).any(-1)
    if person.occluded is not None:
        hidden |= person.occluded
    weights = np.where(hidden, occluded, 1.0)
    if neighbours is not None and len(neighbours):
        inside = (points[:, None] >= neighbours[None, :, :2]) & (points[:, None] <= neighbours[None, :, 2:])
        weights = np.where(inside.all(-1).any(-1), np.minimum(weights, crowded), weights)
    return weights


def pose_error(
    predicted_px: np.ndarray,
    true_px: np.ndarray,
    used: np.ndarray,
    skeleton: str,
    size: float,
    weights: np.ndarray,
    reduce: Literal["sum", "mean"] = "mean",
) -> tuple[float, np.ndarray, np.ndarray, str]:
    """Weighted, root-relative, normalised 2D error of one person.

    PoseSyn: ``Err = sum_n w_n |(pred_n - pred_root) - (true_n - true_root)|_1`` over n >= 2.
    Here missing joints are masked and distances are divided by ``size``. ``mean`` divides the sum by the weights of the
    joints used, so that persons with few annotated joints compare with the others; ``sum`` by those of all joints but
    the root, which ranks as the paper's sum does.

    Args:
        predicted_px, true_px: (J, 2) in the order of ``skeleton``.
        used: (J,) bool, joints that both have.
        skeleton: Joint set.
        size: See :func:`person_size`.
        weights: (J,), see :func:`joint_weights`.

    Returns:
        Error, error per joint (J,), joints that entered it (J,) (the root itself does not), name of the root's rule.

    Raises:
        InputError: No joint besides the root is left.
    """
    rule, root = root_of(skeleton, used)
    rows = list(root)
    predicted = predicted_px - predicted_px[rows].mean(0)
    true = true_px - true_px[rows].mean(0)
    entered = np.asarray(used, bool).copy()
    if len(rows) == 1:
        entered[rows[0]] = False
    entered &= weights > 0
    if not entered.any():
        raise InputError("no joint besides the root can be compared", where="pose_error")
    errors = np.where(entered, np.abs(predicted - true).sum(-1) / size, 0.0)
    counted = entered
    if reduce == "sum":
        counted = np.ones(len(entered), bool)
        counted[rows] = len(rows) > 1
    total = float((weights * errors)[entered].sum() / weights[counted].sum())
    return total, errors.astype(np.float32), entered, rule
