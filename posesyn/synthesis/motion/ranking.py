"""How well motions reproject onto a person's 2D truth: the best frame of each, under weak perspective.

PoseSyn never uses the available 2D truth to choose among its samples; this step is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.metrics.pose2d_error import Normalizer, joint_weights, person_size
from posesyn.types import Person

MIN_JOINTS = 4  # fewer joints are matched by any pose; as in ErrorExtractor, our own choice


@dataclass(frozen=True, eq=False)
class Reprojection:
    """The best frame of one motion.

    Attributes:
        error: Weighted mean L1 distance in units of the person's size, as the extraction error, after the fit.
        frame: Index of the frame.
        yaw: Radians by which the motion was turned about the vertical to fit best.
        scale: Pixels per metre.
        shift_px: (2,) pixel position of the point x = y = 0.
    """

    error: float
    frame: int
    yaw: float
    scale: float
    shift_px: np.ndarray


def reproject(
    motions_cam: Sequence[np.ndarray],
    person: Person,
    yaws: Sequence[float] = (0.0,),
    weights: str = "limbs",
    normalizer: Normalizer = "box",
) -> list[Reprojection] | None:
    """Fits every frame of every motion to the person's visible joints and keeps each motion's best frame.

    Args:
        motions_cam: (T_i, 22, 3) joints ``humanml3d22`` in the orientation of the camera (x right, y down), metres;
            where they are does not matter.
        person: With keypoints in any skeleton.
        yaws: Turns about the vertical axis to try, radians.
        weights, normalizer: As in ``ErrorExtractor``.

    Returns:
        One result per motion, or None where fewer than :data:`MIN_JOINTS` visible joints can be compared.

    Raises:
        InputError: Wrong shape, no yaw, or NaN.
    """
    for index, motion in enumerate(motions_cam):
        if np.ndim(motion) != 3 or np.shape(motion)[1:] != (22, 3) or len(motion) == 0 or not np.isfinite(motion).all():
            raise InputError(
                "a motion must be finite (T, 22, 3) with T > 0",
                where=f"reproject, motion {index}",
                got=np.shape(motion),
            )
    if not len(yaws):
        raise InputError("at least one yaw is needed", where="reproject")
    joints = np.concatenate([np.asarray(motion, np.float64) for motion in motions_cam])
    points, present = skeletons.convert(joints, "humanml3d22", person.skeleton)
    weight = joint_weights(person.skeleton, weights) * (person.visible & present[0])
    used = weight > 0
    size = person_size(person.box_xyxy, person.keypoints_px, person.visible, normalizer)
    if used.sum() < MIN_JOINTS or not size > 0:
        return None
    points, truth, weight = points[:, used], np.asarray(person.keypoints_px, np.float64)[used], weight[used]
    weight = weight / weight.sum()

    turn = np.asarray(yaws, np.float64)[:, None, None]
    flat = np.stack([points[..., 0] * np.cos(turn) + points[..., 2] * np.sin(turn), points[..., 1] + 0 * turn], -1)
    scale, shift = _similarity(flat, truth, weight)
    residual = np.abs(flat * scale[..., None, None] + shift[..., None, :] - truth).sum(-1)
    errors = (residual * weight).sum(-1) / size  # (yaws, frames)

    results, start = [], 0
    for motion in motions_cam:
        part = errors[:, start : start + len(motion)]
        row, frame = np.unravel_index(int(part.argmin()), part.shape)
        column = start + frame
        results.append(
            Reprojection(
                float(part[row, frame]),
                int(frame),
                float(yaws[row]),
                float(scale[row, column]),
                shift[row, column].astype(np.float32),
            )
        )
        start += len(motion)
    return results


def _similarity(points: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least-squares scale (...,) >= 0 and shift (..., 2) that bring (..., J, 2) onto (J, 2)."""
    column = weight[:, None]
    centre, goal = (points * column).sum(-2), (truth * column).sum(-2)
    centred, wanted = points - centre[..., None, :], truth - goal
    spread = (centred**2 * column).sum((-1, -2))
    scale = (centred * wanted * column).sum((-1, -2)) / np.maximum(spread, 1e-12)
    scale = np.maximum(scale, 0.0)  # a mirrored or collapsed person is no fit
    return scale, goal - scale[..., None] * centre
