"""Samples as motions of one person: turned to how the photo shows it, compared with its 2D truth, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.motion.ranking import Reprojection, reproject
from posesyn.synthesis.motion.sampler import Job
from posesyn.synthesis.motion.steering.estimator_pose import CAM_TO_WORLD, joints22, turned
from posesyn.synthesis.motion.steering.steering import bent_to, nearest_frame
from posesyn.types import Person, ScoredPerson


@dataclass(frozen=True, eq=False)
class PlacedSample:
    """One sample in the world whose camera direction is the photo's.

    Attributes:
        job: What it was sampled for.
        joints: (T, 22, 3) metres, y up.
        anchor_frame: Frame that fits the person's 2D truth best; None where too few joints are visible.
        error: Of that frame, see :class:`~posesyn.synthesis.motion.ranking.Reprojection`; None likewise.
        elevation: Of the photo's camera above the horizon, radians, if the motion shall be seen from there.
        facts: Provenance.
    """

    job: Job
    joints: np.ndarray
    anchor_frame: int | None
    error: float | None
    elevation: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def place(
    scored: ScoredPerson,
    jobs: Sequence[Job],
    samples: Sequence[np.ndarray],
    yaw: float,
    settings: SynthesisSettings,
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
    person: Person,
    jobs: Sequence[Job],
    samples: Sequence[np.ndarray],
    yaw: float,
    settings: SynthesisSettings,
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

    def error(pose: np.ndarray, camera: np.ndarray) -> float:
        fits = reproject([pose[None] * CAM_TO_WORLD @ camera.T], scored.person)
        return fits[0].error if fits else float("inf")

    before = error(joints22(scored.prediction), np.eye(3))
    placed = []
    for job, joints in zip(jobs, samples):
        goal = job.goal
        frame, yaw, distance = nearest_frame(joints, goal.pose, settings.prefix_frames - 1)
        facing = turned(joints, yaw)
        bent = bent_to(facing, goal.pose, frame, settings.blend_frames)
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
        # A stream of its own, so that the view says nothing about the pose.
        from_photo = rng_of(job.seed, "view").random() < settings.photo_view
        elevation = goal.elevation if from_photo else None
        placed.append(PlacedSample(job, bent, frame, error(bent[frame], goal.camera), elevation, facts))
    return placed
