"""Samples as motions of one person: turned to how the photo shows it, compared with its 2D truth, best first.

PoseSyn never uses the available 2D truth to choose among its samples; this step is our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.metrics.pose2d_error import joint_weights, person_size
from posesyn.settings.stages import Normalizer
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.motion.sampler import Job
from posesyn.synthesis.motion.steering.steering import (
    CAM_TO_WORLD,
    bent_to,
    joints22,
    nearest_frame,
    softened,
    turned,
)
from posesyn.types import Person, ScoredPerson, ViewRequest

SLACK = 4  # frames, one token
BEND_SPEED = 0.02  # metres per frame at which a motion may bend, root mean square over joints: 0.4 m/s. Our own choice

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
    """Fits every frame of every motion to the person's visible joints (weak perspective); keeps each one's best frame.

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
            where = f"reproject, motion {index}"
            raise InputError("a motion must be finite (T, 22, 3) with T > 0", where=where, got=np.shape(motion))
    if not len(yaws):
        raise InputError("at least one yaw is needed", where="reproject")
    joints = np.concatenate([np.asarray(motion, np.float64) for motion in motions_cam])
    points, present = skeletons.convert(joints, "humanml3d22", person.skeleton)
    weight = joint_weights(person.skeleton, weights) * (person.visible & present[0])
    used = weight > 0
    size = person_size(person.body_box_xyxy, person.keypoints_px, person.visible, normalizer)
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
        row, frame = (int(index) for index in np.unravel_index(int(part.argmin()), part.shape))
        fitted = float(scale[row, start + frame]), shift[row, start + frame].astype(np.float32)
        results.append(Reprojection(float(part[row, frame]), frame, float(yaws[row]), *fitted))
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


@dataclass(frozen=True, eq=False)
class PlacedSample:
    """One sample in the world whose camera direction is the photo's.

    Attributes:
        job: What it was sampled for.
        joints: (T, 22, 3) metres, y up.
        anchor_frame: Frame that fits the person's 2D truth best; None where too few joints are visible.
        error: Of that frame, see :class:`Reprojection`; None likewise.
        view: From where, and how cut off by the image, it shall be seen; None leaves it to chance.
        facts: Provenance.
    """

    job: Job
    joints: np.ndarray
    anchor_frame: int | None
    error: float | None
    view: ViewRequest | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def place(
    scored: ScoredPerson, jobs: Sequence[Job], samples: Sequence[np.ndarray], yaw: float, settings: SynthesisSettings
) -> list[PlacedSample]:
    """The samples of one person, best first, those of equal error in the order of their numbers.

    Args:
        scored: The person.
        jobs: With a goal each (steered), or with none at all (the paper's plain way).
        samples: (T_i, 22, 3) joints of each.
        yaw: Radians by which samples without a goal are turned.
        settings: Frames of the prefix, turns to try, bending, and the share of photo views.
    """
    if jobs[0].goal is None:
        placed = _turned(scored.person, jobs, samples, yaw, settings)
    else:
        placed = _steered(scored, jobs, samples, settings)
    return sorted(placed, key=lambda one: (0.0 if one.error is None else one.error, one.job.number))


def _turned(
    person: Person, jobs: Sequence[Job], samples: Sequence[np.ndarray], yaw: float, settings: SynthesisSettings
) -> list[PlacedSample]:
    """Each sample turned to face as the prediction does, and on to where one of its frames fits best."""
    # The prefix is the wrong pose held still: where it fits best, every sample would score the same.
    skip = [min(settings.prefix_frames, len(joints) - 1) for joints in samples]
    seen = [turned(joints, yaw)[first:] * CAM_TO_WORLD for joints, first in zip(samples, skip)]
    fits: Sequence[Reprojection | None] = reproject(seen, person, settings.yaw_search) or [None] * len(jobs)
    placed = []
    for job, joints, fit, first in zip(jobs, samples, fits, skip):
        # The search turns about the camera's y axis, which points down: the opposite sense about the world's.
        turn = yaw if fit is None else yaw - fit.yaw
        anchor, error = (None, None) if fit is None else (fit.frame + first, fit.error)
        placed.append(PlacedSample(job, turned(joints, turn), anchor, error, facts={"yaw": float(turn)}))
    return placed


def _steered(
    scored: ScoredPerson, jobs: Sequence[Job], samples: Sequence[np.ndarray], settings: SynthesisSettings
) -> list[PlacedSample]:
    """Each sample bent to its goal, at the frame that comes nearest to it."""

    def fit(pose: np.ndarray, camera: np.ndarray) -> Reprojection | None:
        fits = reproject([pose[None] * CAM_TO_WORLD @ camera.T], scored.person)
        return fits[0] if fits else None

    def error(pose: np.ndarray, camera: np.ndarray) -> float:
        found = fit(pose, camera)
        return found.error if found else float("inf")

    size = _image_size(scored.person) if settings.truncated_view else None
    before = error(joints22(scored.prediction), np.eye(3))
    placed = []
    for job, joints in zip(jobs, samples):
        goal: Any = job.goal  # jobs that come here have one
        first, last = settings.prefix_frames - 1, None
        if job.pose_frame is not None:  # what the tokens keep of the pose may stand a few frames off
            first, last = max(0, job.pose_frame - SLACK), job.pose_frame + SLACK
        frame, yaw, distance = nearest_frame(joints, goal.pose, first, last)
        facing = turned(joints, yaw)
        if job.pose_frame is not None:
            facing = softened(facing, frame, settings.blend_frames)
        # A pose that the prior hardly knows (a handstand) is far from its motion: taken over longer, or it would whip.
        steepest = distance * np.exp(-0.5) / BEND_SPEED
        bent = bent_to(facing, goal.pose, frame, max(settings.blend_frames, steepest) if settings.blend_frames else 0.0)
        facts = {
            "steering": "2d",
            "hypothesis": goal.hypothesis,
            "hypothesis_cost": goal.cost,
            "elevation": goal.elevation,
            "reprojection_before": before,
            "reprojection_sampled": error(facing[frame], goal.camera),
            "fit_distance": distance,
            "yaw": float(yaw),
        }
        # Streams of their own, so that the view says nothing about the pose.
        from_photo, cut_off = (rng_of(job.seed, name).random() for name in ("view", "truncation"))
        cuts, seen = None, fit(goal.pose, goal.camera)
        if seen is not None and size is not None and cut_off < settings.truncated_view:
            points = (goal.pose * CAM_TO_WORLD @ goal.camera.T)[:, :2] * seen.scale + seen.shift_px
            cuts = truncation(points, seen.scale, scored.person.body_box_xyxy, size)
        photo = (0.0, goal.elevation) if from_photo < settings.photo_view else (None, None)
        view = None if cuts is None and photo[0] is None else ViewRequest(*photo, cuts)
        placed.append(PlacedSample(job, bent, frame, error(bent[frame], goal.camera), view, facts))
    return placed


# Own choices. A cut of less than _LEAST_CUT is within the error of the fit; _MOST_CUT of height or width leaves enough
# joints in the image for the filter.
_LEAST_CUT, _MOST_CUT = 0.05, 0.6
_FLESH = 0.11  # metres by which the body reaches beyond its joints


def truncation(
    points_px: np.ndarray, scale: float, box_xyxy: np.ndarray, size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Shares of a person's box that the photo's left, top, right and bottom border cut off; None where none does.

    Args:
        points_px: (22, 2) where the fitted pose lies in the photo, or beyond it.
        scale: Pixels per metre.
        box_xyxy: (4,) the annotated box; where it ends before a border, that border cuts nothing off.
        size: (width, height) of the photo.
    """
    low, high = points_px.min(0) - _FLESH * scale, points_px.max(0) + _FLESH * scale
    extent, edge = high - low, np.array(size) - 0.5
    beyond = np.concatenate([(-0.5 - low) / extent, (high - edge) / extent])
    gap = np.concatenate([box_xyxy[:2] + 0.5, edge - box_xyxy[2:]])
    cuts = np.where((gap < _LEAST_CUT * np.tile(extent, 2)) & (beyond > _LEAST_CUT), beyond, 0.0)
    both = np.tile(cuts[:2] + cuts[2:], 2)
    cuts = cuts * np.minimum(1.0, _MOST_CUT / np.maximum(both, _MOST_CUT))
    left, top, right, bottom = (float(cut) for cut in cuts)
    return (left, top, right, bottom) if cuts.any() else None


def _image_size(person: Person) -> tuple[int, int] | None:
    """(width, height); None for a photo that cannot be read."""
    if person.image_width_height is not None:
        return person.image_width_height
    try:
        height, width = person.image.load().shape[:2]
    except FileError:
        return None
    return width, height
