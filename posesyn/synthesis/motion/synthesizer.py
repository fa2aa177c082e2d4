"""Motions for the poses on which the estimator failed (PoseSyn's motion synthesis module)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from posesyn.body import load_body
from posesyn.body.inverse_kinematics import fit_pose
from posesyn.errors import InputError
from posesyn.interfaces import Captioner
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.synthesis.motion.captions import caption_persons, choose_captions
from posesyn.synthesis.motion.cleanup import grounded, settled
from posesyn.synthesis.motion.continuation import continue_codes
from posesyn.synthesis.motion.prior.features import FPS, body_offsets, motion_features, recover_joints, still_features
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.sampling import row_seed
from posesyn.synthesis.motion.prior.text import checked_texts
from posesyn.synthesis.motion.ranking import Reprojection, reproject
from posesyn.synthesis.motion.steering.estimator_pose import CAM_TO_WORLD, joints22, turned, yaw_between
from posesyn.synthesis.motion.steering.pose_refinement import Fitted
from posesyn.synthesis.motion.steering.steering import Goal, PoseFitter, bent_to, draw_goal, nearest_frame
from posesyn.types import Motion, ScoredPerson, batched


@dataclass(frozen=True)
class _Job:
    """One motion to sample."""

    name: str
    caption: str
    seed: int
    prefix: torch.Tensor  # (P,) codes
    number: int
    goal: Goal | None = None


class MotionSynthesizer:
    """Continues poses with motions sampled from the prior, and ranks them by the persons' 2D truth.

    Follows the published order (arXiv 2503.13025): a pose, repeated ``prefix_frames`` frames, is encoded to prefix
    tokens; the transformer sees ``[text, prefix, ...]`` and continues; prefix and continuation are decoded together.
    The text is the user's, else a captioner's if one is given, else the person's, else a rule-based description of the
    pose.

    With ``steering="none"`` the pose is the estimator's wrong one, as in the paper. With ``"2d"`` it is first fitted
    toward the person's 2D truth (:class:`PoseFitter`): sample 0 gets the best hypothesis, sample k one drawn from the
    posterior; the frame of the decoded motion that comes nearest to it is bent onto it, its neighbours ever less.
    Persons with fewer than ``steering.MIN_JOINTS`` visible limb joints are treated the plain way.

    The motions stand in a world whose camera direction is the photo's: a camera that looks along -z (x to the right,
    level in plain mode, tilted by ``meta["elevation"]`` in the steered) sees the anchor frame as the photo shows the
    person. Sampling depends on (seed, person_id, k) only.

    Args:
        prior: See :class:`MotionPriorModel`.
        body: Body whose pose parameters the motions get; None loads the free one.
        settings: See :class:`SynthesisSettings`.

    Raises:
        InputError: Settings that the prior cannot fulfil.
    """

    def __init__(self, prior: MotionPriorModel, body: Any = None, settings: SynthesisSettings | None = None) -> None:
        self.prior = prior.eval()
        self.body = load_body("anny", size="small") if body is None else body
        self.settings = (settings or SynthesisSettings()).checked(prior.frames_per_token, prior.max_tokens)
        self.offsets = body_offsets(self.body)

    @cached_property
    def fitter(self) -> PoseFitter:
        """Fits poses to the 2D truth; with the shipped pose library."""
        return PoseFitter(settings=self.settings.fitting)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, body: Any = None, settings: SynthesisSettings | None = None
    ) -> MotionSynthesizer:
        """With the shipped prior (None), or one that ``MotionPriorModel.save`` wrote.

        Raises:
            FileError, CheckpointError: See :meth:`MotionPriorModel.load`.
        """
        return cls(MotionPriorModel.load(name_or_path), body, settings)

    def synthesize(
        self,
        challenging: Sequence[ScoredPerson],
        num_motions: int = 8,
        seed: int = 0,
        captions: Sequence[str | None] | Mapping[str, str] | None = None,
        progress: bool = True,
        captioner: Captioner | None = None,
    ) -> list[Motion]:
        """``num_motions`` motions for every person, persons in the order given, each person's best motion first.

        Args:
            challenging: From ``ErrorExtractor``; estimators that predict joints only will do. Empty gives no motions.
            num_motions: N. If a person has several captions, they take turns.
            seed: Run seed.
            captions: One per person (None where the person's own shall count), or by ``person_id``.
            progress: Show a bar.
            captioner: Describes the persons who have no text in ``captions``, in place of their own captions; where it
                says nothing, these count.

        Returns:
            Motions with ``anchor_frame`` and ``reprojection_error`` (both None where the person has too few visible
            joints) and ``meta``: rank, seed, prior, prefix_tokens, yaw, caption_source (``"user"``, ``"model"``,
            ``"person"`` or ``"pose"``); steered ones also steering,
            hypothesis and its cost above the best one's, elevation (radians, of the photo's camera),
            reprojection_before (error of the prediction after the same fit), reprojection_sampled (of the anchor frame
            before it was bent) and fit_distance (metres between that frame and the fitted pose).

        Raises:
            InputError: num_motions < 1, a number of captions other than persons (the captioner's too), an empty caption
                of the user, a prediction with NaN or without limbs.
        """
        jobs_per_person = _positive(num_motions, "num_motions") * self.settings.oversample
        given = _captions_by_row(challenging, captions)
        motions: list[Motion] = []
        group = max(1, self.settings.batch_rows // jobs_per_person)
        with tqdm(total=len(challenging), desc="synthesize", unit="person", disable=not progress) as bar:
            for rows in batched(range(len(challenging)), group):
                jobs, yaws, sources = [], [], []
                silent = [challenging[row].person for row in rows if given[row] is None]
                said = {} if captioner is None else caption_persons(silent, captioner)
                for row in rows:
                    person = challenging[row].person
                    pose = joints22(challenging[row].prediction)
                    seeds = [row_seed(seed, person.person_id, k) for k in range(jobs_per_person)]
                    goals = self._goals(challenging[row], seeds)
                    pose = pose if goals[0] is None else goals[0].pose
                    own, source = choose_captions(
                        given[row], said.get(person.person_id), person.captions, pose, f"person '{person.person_id}'"
                    )
                    sources.append(source)
                    prefix, yaw = self._prefix(pose)
                    prefixes = [prefix] * len(seeds) if goals[0] is None else self._prefixes(goals)
                    for k, job_seed in enumerate(seeds):
                        text = own[k % len(own)]
                        jobs.append(_Job(person.person_id, text, job_seed, prefixes[k], k, goals[k]))
                    yaws.append(yaw)
                joints = self._sample(jobs)
                for index, row in enumerate(rows):
                    part = slice(index * jobs_per_person, (index + 1) * jobs_per_person)
                    motions += self._ranked(
                        challenging[row], jobs[part], joints[part], yaws[index], num_motions, sources[index]
                    )
                bar.update(len(rows))
        return motions

    def from_captions(
        self,
        captions: Sequence[str],
        num_motions: int = 1,
        seed: int = 0,
        max_frames: int | None = None,
        progress: bool = False,
        airborne: int | None = None,
    ) -> list[Motion]:
        """``num_motions`` motions for every caption, without a pose to start from; all of caption 0 first.

        A motion depends on (seed, its caption, its number); the same caption twice gives the same motions.

        Args:
            captions: What the motions show.
            num_motions: Motions per caption.
            seed: Run seed.
            max_frames: Longest motion; None takes the settings'.
            progress: Show a bar.
            airborne: In place of the settings' value: frames after which what floats is lowered to the floor. None lets
                everything rise as it is sampled, so that who asks for climbing gets it.

        Raises:
            InputError: An empty caption, num_motions < 1, max_frames out of range, or airborne < 1.
        """
        captions = checked_texts(captions, "MotionSynthesizer.from_captions")
        _positive(num_motions, "num_motions")
        settings = replace(self.settings, airborne=airborne)
        if max_frames is not None:
            settings = replace(settings, max_frames=max_frames, prefix_frames=self.prior.frames_per_token)
        settings = settings.checked(self.prior.frames_per_token, self.prior.max_tokens)
        none = torch.zeros(0, dtype=torch.int64)
        jobs = [
            _Job(f"text{row}", caption, row_seed(seed, caption, k), none, k)
            for row, caption in enumerate(captions)
            for k in range(num_motions)
        ]
        motions = []
        with tqdm(total=len(jobs), desc="synthesize", unit="motion", disable=not progress) as bar:
            for part in batched(jobs, settings.batch_rows):
                for job, joints in zip(part, self._sample(part, settings)):
                    motions.append(self._motion(job, joints, 0.0, {"caption_source": "user"}))
                bar.update(len(part))
        return motions

    def prefix_codes(self, pose: np.ndarray) -> torch.Tensor:
        """(22, 3) joints, y up → (prefix_frames // 4,) codes of the pose held still."""
        return self._prefix(pose)[0]

    def _prefix(self, pose: np.ndarray) -> tuple[torch.Tensor, float]:
        """Codes of the pose held still, and the yaw by which decoded motions must be turned to face as it does."""
        # T features need T + 1 frames, and the first one differs: HumanML3D forces its heading to zero.
        held = np.repeat(pose[None], self.settings.prefix_frames + 2, axis=0)
        features = torch.from_numpy(motion_features(held, self.offsets, continuous_heading=True)[1:])
        return self.prior.encode(features[None])[0], yaw_between(recover_joints(features[:1])[0].numpy(), pose)

    def _goals(self, scored: ScoredPerson, seeds: Sequence[int]) -> list[Goal] | list[None]:
        """The pose of every sample, or Nones where the person cannot be fitted or shall not be."""
        fitted: Fitted | None = self.fitter.fit(scored) if self.settings.steering == "2d" else None
        if fitted is None:
            return [None] * len(seeds)
        spread, fitting = self.settings.spread, self.settings.fitting
        return [draw_goal(fitted, k, seed, spread, fitting) for k, seed in enumerate(seeds)]

    def _prefixes(self, goals: Sequence[Goal]) -> torch.Tensor:
        """(N, prefix_frames // 4) codes of the goals' poses held still."""
        still = torch.from_numpy(still_features(np.stack([goal.pose for goal in goals]), self.offsets))
        return self.prior.encode(still[:, None].repeat(1, self.settings.prefix_frames, 1))

    def _sample(self, jobs: Sequence[_Job], settings: SynthesisSettings | None = None) -> list[np.ndarray]:
        """Joints (T_i, 22, 3) of every job, facing about +z at first, standing on the floor."""
        settings, step = settings or self.settings, self.prior.frames_per_token
        options: dict[str, Any] = {"temperature": settings.temperature, "top_k": settings.top_k}
        if settings.guidance is not None:
            options["guidance"] = settings.guidance
        captions, prefixes, seeds = map(list, zip(*[(job.caption, job.prefix, job.seed) for job in jobs]))
        tokens = settings.max_frames // step
        if tokens > self.prior.max_tokens:
            codes, _ = continue_codes(self.prior, [[text] for text in captions], tokens, prefixes, seeds, **options)
        else:
            options |= {"max_tokens": tokens, "min_tokens": max(1, settings.min_frames // step)}
            codes = self.prior.sample(self.prior.embed(captions), prefixes, seed=seeds, **options)
        return [self._decode(row, settings) for row in codes]

    def _decode(self, codes: torch.Tensor, settings: SynthesisSettings) -> np.ndarray:
        joints = recover_joints(self.prior.decode(codes[None]))[0].numpy()
        if settings.airborne is not None:  # before feet are set, which asks where the floor is
            joints = grounded(joints, settings.airborne)
        return settled(joints, settings.smoothing)

    def _ranked(
        self,
        scored: ScoredPerson,
        jobs: Sequence[_Job],
        joints: Sequence[np.ndarray],
        yaw: float,
        count: int,
        source: str,
    ) -> list[Motion]:
        """The ``count`` best of one person's samples as motions, best first."""
        if jobs[0].goal is not None:
            return self._steered(scored, jobs, joints, count, source)
        facing = [turned(motion, yaw) for motion in joints]
        # The prefix is the wrong pose held still: where it fits best, every sample would score the same.
        skip = [
            min(len(job.prefix) * self.prior.frames_per_token, len(motion) - 1) for job, motion in zip(jobs, facing)
        ]
        fits: Sequence[Reprojection | None] = reproject(
            [motion[first:] * CAM_TO_WORLD for motion, first in zip(facing, skip)],
            scored.person,
            self.settings.yaw_search,
        ) or [None] * len(jobs)
        order = sorted(range(len(jobs)), key=lambda i: (0.0 if fits[i] is None else fits[i].error, jobs[i].number))
        motions = []
        for rank, i in enumerate(order[:count]):
            fit, meta = fits[i], {"rank": rank, "caption_source": source}
            # ranking turns about the camera's y axis, which points down: the opposite sense about the world's
            turn = yaw if fit is None else yaw + _world_yaw(fit.yaw)
            motion = self._motion(jobs[i], joints[i], turn, meta)
            motions.append(
                replace(
                    motion,
                    person_id=scored.person.person_id,
                    anchor_frame=None if fit is None else fit.frame + skip[i],
                    reprojection_error=None if fit is None else fit.error,
                )
            )
        return motions

    def _steered(
        self, scored: ScoredPerson, jobs: Sequence[_Job], joints: Sequence[np.ndarray], count: int, source: str
    ) -> list[Motion]:
        """As :meth:`_ranked`, each motion bent to its goal."""
        person, found = scored.person, []

        def error(pose: np.ndarray, camera: np.ndarray) -> float:
            fits = reproject([pose[None] * CAM_TO_WORLD @ camera.T], person)
            return fits[0].error if fits else float("inf")

        before = error(joints22(scored.prediction), np.eye(3))
        for job, motion in zip(jobs, joints):
            frame, yaw, distance = nearest_frame(motion, job.goal.pose, self.settings.prefix_frames - 1)
            facing = turned(motion, yaw)
            bent = bent_to(facing, job.goal.pose, frame, self.settings.blend_frames)
            meta = {
                "caption_source": source,
                "steering": "2d",
                "hypothesis": job.goal.hypothesis,
                "hypothesis_cost": job.goal.cost,
                "elevation": job.goal.elevation,
                "reprojection_before": before,
                "reprojection_sampled": error(facing[frame], job.goal.camera),
                "fit_distance": distance,
                "yaw": float(yaw),
            }
            # Another stream than the goal's and the tokens', so that the view says nothing about the pose.
            if np.random.default_rng([job.seed, 1]).random() < self.settings.photo_view:
                meta |= {"camera_yaw": 0.0, "camera_elevation": job.goal.elevation}
            found.append((error(bent[frame], job.goal.camera), job.number, frame, job, bent, meta))
        motions = []
        for rank, (value, _, frame, job, bent, meta) in enumerate(sorted(found, key=lambda item: item[:2])[:count]):
            motion = self._motion(job, bent, 0.0, {**meta, "rank": rank})
            motions.append(replace(motion, person_id=person.person_id, anchor_frame=frame, reprojection_error=value))
        return motions

    def _motion(self, job: _Job, joints: np.ndarray, yaw: float, meta: dict[str, Any]) -> Motion:
        joints = turned(joints, yaw).astype(np.float32)
        fitted = fit_pose(joints, self.body, betas=np.zeros(10, np.float32))
        # The prior's floor is at the foot joints; the body's soles are below them.
        lift = np.array([0.0, self._sole_depth(), 0.0], np.float32)
        return Motion(
            motion_id=f"{job.name}/m{job.number:03d}",
            pose_rotvec=fitted.pose_rotvec,
            transl_world=fitted.transl + lift,
            betas=fitted.betas,
            fps=FPS,
            joints_world=joints + lift,
            caption=job.caption,
            meta={
                "seed": job.seed,
                "prior": self.prior.name,
                "prefix_tokens": job.prefix.tolist(),
                "yaw": float(yaw),
                "settings": asdict(self.settings),
                **meta,
            },
        )

    def _sole_depth(self) -> float:
        """How far the soles of the resting body lie below its lowest foot joint, metres."""
        with torch.no_grad():
            rest = self.body.rest_joints(torch.zeros(1, 10))[0, :22]
        lowest = float(np.asarray(self.body.v_template)[:, 1].min())
        return max(0.0, float(rest[[7, 8, 10, 11], 1].min()) - lowest)


def _world_yaw(yaw_cam: float) -> float:
    # (x, z) -> (x cos + z sin) in the camera; with z_world = -z_cam this is the turn by -yaw about world y.
    return -yaw_cam


def _positive(value: int, name: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a positive integer", where="MotionSynthesizer", got=value)
    return value


def _captions_by_row(
    challenging: Sequence[ScoredPerson], captions: Sequence[str | None] | Mapping[str, str] | None
) -> list[str | None]:
    if captions is None:
        return [None] * len(challenging)
    if isinstance(captions, Mapping):
        return [captions.get(scored.person.person_id) for scored in challenging]
    if isinstance(captions, str) or len(captions) != len(challenging):
        raise InputError(
            "one caption per person is needed",
            where="MotionSynthesizer.synthesize",
            expected=len(challenging),
            got="one text" if isinstance(captions, str) else len(captions),
            fix="pass a list with None for persons without a caption, or a mapping from person_id",
        )
    return list(captions)
