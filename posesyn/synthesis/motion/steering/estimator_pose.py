"""From what an estimator predicts to the 22 joints of the motion prior, upright in the world frame."""

from __future__ import annotations

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.types import PoseBatch

_JOINTS = skeletons.get("humanml3d22").joints
_INDEX = {name: i for i, name in enumerate(_JOINTS)}
_LIMBS = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "shoulder", "elbow"))
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
    where = f"the prediction of person '{prediction.person_ids[row]}'"
    points, present = skeletons.convert(
        np.asarray(prediction.joints_cam[row], np.float64), prediction.skeleton, "humanml3d22"
    )
    lacking = [name for name in _LIMBS if not present[_INDEX[name]]]
    if lacking:
        raise InputError(
            "the estimator's skeleton lacks joints that the motion prior needs",
            where=where,
            expected=list(_LIMBS),
            got=f"no {lacking} in '{prediction.skeleton}'",
        )
    if not np.isfinite(points[present]).all():
        raise InputError(
            "the predicted joints have NaN or infinite values",
            where=where,
            got=[name for i, name in enumerate(_JOINTS) if present[i] and not np.isfinite(points[i]).all()],
            fix="drop the person from the challenging ones",
        )
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
    source, target = source - source[:1], target - target[:1]
    along = (source[:, 0] * target[:, 0] + source[:, 2] * target[:, 2]).sum()
    across = (source[:, 2] * target[:, 0] - source[:, 0] * target[:, 2]).sum()
    return float(np.arctan2(across, along))


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """(..., 3) turned about the world's y axis."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]).T
