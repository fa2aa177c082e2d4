"""Motions for the poses on which the estimator failed (PoseSyn's motion synthesis module, arXiv 2503.13025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posesyn.body import load_body
from posesyn.body.inverse_kinematics import fit_pose
from posesyn.body.pose_fitting import PoseFitter
from posesyn.errors import InputError
from posesyn.geometry.devices import device_of, resolve_device
from posesyn.interfaces import Captioner
from posesyn.progress import ProgressBar
from posesyn.settings.base import plain, with_changes
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.captions import caption_persons, choose_captions
from posesyn.synthesis.motion.placement import PlacedSample, place
from posesyn.synthesis.motion.prior.features import FPS, body_offsets
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.text import checked_texts
from posesyn.synthesis.motion.sampler import Job, MotionSampler
from posesyn.synthesis.motion.steering.steering import Goal, draw_goal, joints22
from posesyn.types import Motion, ScoredPerson, batched
from posesyn.types.arguments import check_several
from posesyn.types.looks import changes_of, short_repr

FEET = (7, 8, 10, 11)  # ankles and toes of humanml3d22


@dataclass(frozen=True)
class _Plan:
    """What is sampled for one person."""

    scored: ScoredPerson
    jobs: list[Job]
    source: str  # of the captions
    yaw: float  # turn of unsteered samples


class MotionSynthesizer:
    """Continues poses with motions sampled from the prior, and ranks them by the persons' 2D truth.

    Follows the published order: a pose, repeated ``prefix_frames`` frames, is encoded to prefix tokens; the transformer
    sees ``[text, prefix, ...]`` and continues; prefix and continuation are decoded together. The text is the user's,
    else a captioner's if one is given, else the person's, else a rule-based description of the pose.

    With ``steering="none"`` the pose is the estimator's wrong one, as in the paper. With ``"2d"`` it is first fitted to
    the person's 2D truth (:class:`PoseFitter`): sample 0 gets the best hypothesis, sample k one drawn from the
    posterior; the frame of the decoded motion that comes nearest to it is bent onto it, its neighbours ever less. With
    fewer than ``body.pose_fitting.MIN_JOINTS`` visible limb joints a person is treated the plain way.

    The motions stand in a world whose camera direction is the photo's: a camera that looks along -z (x to the right,
    level in plain mode, tilted by ``meta["elevation"]`` in the steered) sees the anchor frame as the photo shows the
    person. Sampling depends on (seed, person_id, k) only.

    Args:
        prior: See :class:`MotionPriorModel`; it is moved to ``device``.
        settings: See :class:`SynthesisSettings`.
        body: Body whose pose parameters the motions get; None loads the free one.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"mps"`` or a device. Random numbers are
            drawn on the CPU everywhere, so that devices differ by rounding alone.
        changes: Fields of the settings by name, e.g. ``max_frames=60``.

    Raises:
        InputError: Settings that the prior cannot fulfil, a device that is absent.

    Example:
        >>> synthesizer = MotionSynthesizer.from_pretrained()
        >>> motion = synthesizer.from_captions(["a person walks"], max_frames=24)[0]
        >>> motion.caption, len(motion) <= 24
        ('a person walks', True)
    """

    def __init__(
        self,
        prior: MotionPriorModel,
        settings: SynthesisSettings | None = None,
        *,
        body: Any = None,
        device: str | torch.device = "auto",
        **changes: Any,
    ) -> None:
        settings = with_changes(SynthesisSettings, settings, changes)
        self.settings = settings.checked(prior.frames_per_token, prior.max_tokens)
        self.device = resolve_device(device)
        self.prior = prior.to(self.device).eval()
        self.body = load_body("anny", size="small") if body is None else body
        self.sampler = MotionSampler(self.prior, self.settings, body_offsets(self.body))

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        settings: SynthesisSettings | None = None,
        *,
        body: Any = None,
        device: str | torch.device = "auto",
        **changes: Any,
    ) -> MotionSynthesizer:
        """With a prior that ``MotionPriorModel.save`` or ``posesyn train prior`` wrote.

        Args:
            path: Its file; None takes the one that ``settings.prior`` names, else the shipped one.
            settings, body, device, changes: As for the class.

        Raises:
            FileError, CheckpointError: See :meth:`MotionPriorModel.load`.
            InputError: As for the class.
        """
        settings = with_changes(SynthesisSettings, settings, changes)
        prior = MotionPriorModel.load(settings.prior if path is None else path)
        return cls(prior, settings, body=body, device=device)

    def __repr__(self) -> str:
        return short_repr(self, prior=self.prior.name, device=str(self.device), **changes_of(self.settings))

    @cached_property
    def fitter(self) -> PoseFitter:
        """Fits poses to the 2D truth; with the shipped pose library."""
        return PoseFitter(settings=self.settings.fitting, device=self.device)

    def synthesize(
        self,
        challenging: Sequence[ScoredPerson],
        num_motions: int | None = None,
        seed: int = 0,
        captions: Sequence[str | None] | Mapping[str, str] | None = None,
        progress: bool = True,
        captioner: Captioner | None = None,
    ) -> list[Motion]:
        """``num_motions`` motions for every person, persons in the order given, each person's best motion first.

        Args:
            challenging: From ``ErrorExtractor``; estimators that predict joints only will do. Empty gives no motions.
            num_motions: N; None takes the settings'. If a person has several captions, they take turns.
            seed: Run seed.
            captions: One per person (None where the person's own shall count), or by ``person_id``.
            progress: Show a bar.
            captioner: Describes the persons who have no text in ``captions``, in place of their own captions; where it
                says nothing, these count.

        Returns:
            Motions with ``anchor_frame`` and ``reprojection_error`` (both None where the person has too few visible
            joints) and ``meta``: rank, seed, prior, prefix_tokens, yaw, settings, caption_source (``"user"``,
            ``"model"``, ``"person"`` or ``"pose"``); steered ones also steering, hypothesis and its cost above the best
            one's, elevation (radians, of the photo's camera), reprojection_before (error of the prediction after the
            same fit), reprojection_sampled (of the anchor frame before it was bent) and fit_distance (metres between
            that frame and the fitted pose).

        Raises:
            InputError: num_motions < 1, a number of captions other than persons (the captioner's too), an empty caption
                of the user, a prediction with NaN or without limbs.
        """
        check_several(challenging, ScoredPerson, "synthesize", "pass report.challenging of ErrorExtractor's report")
        count = _positive(self.settings.num_motions if num_motions is None else num_motions, "num_motions")
        given = _captions_by_row(challenging, captions)
        each = count * self.settings.oversample
        motions: list[Motion] = []
        with ProgressBar(len(challenging), "synthesize", "person", shown=progress) as bar:
            for rows in batched(range(len(challenging)), max(1, self.settings.batch_rows // each)):
                silent = [challenging[row].person for row in rows if given[row] is None]
                said = {} if captioner is None else caption_persons(silent, captioner)
                plans = [self._plan(challenging[row], given[row], said, each, seed) for row in rows]
                if self.settings.anchor == "middle":
                    plans = self._led_in(plans)
                samples = self.sampler.sample([job for plan in plans for job in plan.jobs])
                for start, plan in zip(range(0, len(samples), each), plans):
                    own = samples[start : start + each]
                    placed = place(plan.scored, plan.jobs, own, plan.yaw, self.settings)
                    motions += [self._ranked(plan, rank, one) for rank, one in enumerate(placed[:count])]
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
            Job(f"text{row}", k, caption, seed_of(seed, f"text/{k}/{caption}"), none)
            for row, caption in enumerate(captions)
            for k in range(num_motions)
        ]
        motions = []
        with ProgressBar(len(jobs), "synthesize", "motion", shown=progress) as bar:
            for part in batched(jobs, settings.batch_rows):
                for job, joints in zip(part, self.sampler.sample(part, settings)):
                    motions.append(self._of_job(job, joints, {"caption_source": "user", "yaw": 0.0}))
                bar.update(len(part))
        return motions

    def prefix_codes(self, pose: np.ndarray) -> torch.Tensor:
        """(22, 3) joints, y up → (prefix_frames // 4,) codes of the pose held still."""
        return self.sampler.predicted_prefix(pose)[0]

    def embodied(self, motion_id: str, joints: np.ndarray, caption: str, meta: Mapping[str, Any]) -> Motion:
        """Joints (T, 22, 3) in metres, 20 fps, as a motion of the mean body, its soles on the floor."""
        joints = joints.astype(np.float32)
        fitted = fit_pose(joints, self.body, betas=np.zeros(10, np.float32), device=self.device)
        # The prior's floor is at the foot joints; the body's soles are below them.
        lift = np.array([0.0, self._sole_depth, 0.0], np.float32)
        transl, joints = fitted.transl + lift, joints + lift
        return Motion(motion_id, fitted.pose_rotvec, transl, fitted.betas, FPS, joints, caption, meta=meta)

    def _plan(self, scored: ScoredPerson, given: str | None, said: Mapping[str, str], count: int, seed: int) -> _Plan:
        """``count`` jobs for one person, each from its own pose where the person can be fitted."""
        person = scored.person
        seeds = [seed_of(seed, f"person/{k}/{person.person_id}") for k in range(count)]
        pose = joints22(scored.prediction)
        goals = self._goals(scored, seeds)
        aims: Sequence[Goal | None] = goals or [None] * count
        if goals:
            prefixes, yaw = self.sampler.fitted_prefixes(np.stack([goal.pose for goal in goals])), 0.0
            pose = goals[0].pose
        else:
            prefix, yaw = self.sampler.predicted_prefix(pose)
            prefixes = prefix.expand(count, *prefix.shape)
        where = f"person '{person.person_id}'"
        texts, source = choose_captions(given, said.get(person.person_id), person.captions, pose, where)
        jobs = [Job(person.person_id, k, texts[k % len(texts)], seeds[k], prefixes[k], aims[k]) for k in range(count)]
        return _Plan(scored, jobs, source, yaw)

    def _led_in(self, plans: Sequence[_Plan]) -> list[_Plan]:
        """The plans with motion before the poses of steered persons, all at once."""
        steered = [job for plan in plans for job in plan.jobs if job.goal is not None]
        led = iter(self.sampler.led_in(steered) if steered else [])
        return [replace(plan, jobs=[job if job.goal is None else next(led) for job in plan.jobs]) for plan in plans]

    def _goals(self, scored: ScoredPerson, seeds: Sequence[int]) -> list[Goal]:
        """The pose of every sample; none where the person cannot be fitted or shall not be."""
        fitted = self.fitter.fit(scored) if self.settings.steering == "2d" else None
        if fitted is None:
            return []
        return [draw_goal(fitted, k, seed, self.settings.spread, self.settings.fitting) for k, seed in enumerate(seeds)]

    def _ranked(self, plan: _Plan, rank: int, placed: PlacedSample) -> Motion:
        """A placed sample as the motion of that rank of its person."""
        facts = {**placed.facts, "rank": rank, "caption_source": plan.source}
        return replace(
            self._of_job(placed.job, placed.joints, facts),
            person_id=plan.scored.person.person_id,
            anchor_frame=placed.anchor_frame,
            reprojection_error=placed.error,
            view=placed.view,
        )

    def _of_job(self, job: Job, joints: np.ndarray, facts: Mapping[str, Any]) -> Motion:
        meta = {
            "seed": job.seed,
            "prior": self.prior.name,
            "prefix_tokens": job.prefix.tolist(),
            "settings": plain(self.settings),
            **facts,
        }
        return self.embodied(f"{job.name}/m{job.number:03d}", joints, job.caption, meta)

    @cached_property
    def _sole_depth(self) -> float:
        """Metres from the resting body's lowest foot joint down to its soles."""
        with torch.no_grad():
            rest = self.body.rest_joints(torch.zeros(1, 10, device=device_of(self.body)))[0, :22]
        lowest = float(torch.as_tensor(self.body.v_template)[:, 1].min())
        return max(0.0, float(rest[list(FEET), 1].min()) - lowest)


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
        what, where = "one caption per person is needed", "MotionSynthesizer.synthesize"
        got = "one text" if isinstance(captions, str) else len(captions)
        fix = "pass a list with None for persons without a caption, or a mapping from person_id"
        raise InputError(what, where=where, expected=len(challenging), got=got, fix=fix)
    return list(captions)
