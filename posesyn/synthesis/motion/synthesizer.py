"""Motions for the poses on which the estimator failed (PoseSyn's motion synthesis module)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from posesyn.body import load_body
from posesyn.body.inverse_kinematics import fit_pose
from posesyn.errors import InputError
from posesyn.synthesis.motion.captions import choose_captions
from posesyn.synthesis.motion.completion import CAM_TO_WORLD, joints22, turned, yaw_between
from posesyn.synthesis.motion.features import FPS, body_offsets, motion_features, recover_joints
from posesyn.synthesis.motion.prior import MotionPriorModel
from posesyn.synthesis.motion.ranking import Reprojection, reproject
from posesyn.synthesis.motion.sampling import row_seed
from posesyn.synthesis.motion.settling import settled
from posesyn.synthesis.motion.text import checked_texts
from posesyn.types import Motion, ScoredPerson, batched


@dataclass(frozen=True)
class SynthesisSettings:
    """How motions are made. PoseSyn publishes none of these values (posesyn.md section 8): all are our own choice.

    Attributes:
        prefix_frames: Frames for which the wrong pose is repeated (T); a multiple of the prior's frames per token (4).
        max_frames: Longest motion, prefix included; the prior holds at most 200 frames.
        min_frames: END is not drawn earlier.
        temperature, top_k: Sampling, see ``SamplingOptions``.
        guidance: Classifier-free guidance; None takes the prior's own value.
        oversample: Candidates per motion asked for; the ones that reproject best are kept.
        yaw_search: Radians; the motion may be turned by these angles to fit the person's 2D truth.
        smoothing: Standard deviation in frames of the Gaussian that takes the jitter out of decoded joints.
        batch_rows: Motions sampled at once.
    """

    prefix_frames: int = 8
    max_frames: int = 100
    min_frames: int = 40
    temperature: float = 1.0
    top_k: int | None = None
    guidance: float | None = None
    oversample: int = 1
    yaw_search: tuple[float, ...] = (0.0, -0.26, 0.26, -0.52, 0.52)
    smoothing: float = 1.0
    batch_rows: int = 64

    def checked(self, step: int, most_tokens: int) -> SynthesisSettings:
        """Itself, if a prior with ``step`` frames per token and so many tokens can do it; else :class:`InputError`."""
        where = "SynthesisSettings"
        if self.prefix_frames < step or self.prefix_frames % step:
            raise InputError(
                "prefix_frames must fill whole tokens",
                where=where,
                expected=f"a positive multiple of {step}",
                got=self.prefix_frames,
            )
        if self.prefix_frames > step * most_tokens:
            raise InputError(
                "the prefix is too long",
                where=where,
                expected=f"at most {step * most_tokens} frames (prefix + new frames)",
                got=self.prefix_frames,
            )
        if not self.prefix_frames <= self.max_frames <= step * most_tokens:
            raise InputError(
                "max_frames is out of range",
                where=where,
                expected=f"{self.prefix_frames} (the prefix) to {step * most_tokens} frames",
                got=self.max_frames,
            )
        if self.oversample < 1 or self.batch_rows < 1 or not self.smoothing >= 0 or not self.yaw_search:
            raise InputError(
                "oversample and batch_rows must be positive, and yaw_search not empty", where=where, got=self
            )
        return replace(self, min_frames=min(self.min_frames, self.max_frames))


@dataclass(frozen=True)
class _Job:
    """One motion to sample."""

    name: str
    caption: str
    seed: int
    prefix: torch.Tensor  # (P,) codes
    number: int


class MotionSynthesizer:
    """Continues wrong poses with motions sampled from the prior, and ranks them by the persons' 2D truth.

    Follows the published order (posesyn.md section 3): the estimator's wrong pose, repeated ``prefix_frames`` frames,
    is encoded to prefix tokens; the transformer sees ``[text, prefix, ...]`` and continues; prefix and continuation are
    decoded together. The text is the user's, else the person's, else a rule-based description of the wrong pose.

    The motions stand in a world whose camera direction is the photo's: a camera that looks along -z (level, x to the
    right) sees the anchor frame as the photo shows the person. Sampling depends on (seed, person_id, k) only.

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
    ) -> list[Motion]:
        """``num_motions`` motions for every person, persons in the order given, each person's best motion first.

        Args:
            challenging: From ``ErrorExtractor``; estimators that predict joints only will do. Empty gives no motions.
            num_motions: N. If a person has several captions, they take turns.
            seed: Run seed.
            captions: One per person (None where the person's own shall count), or by ``person_id``.
            progress: Show a bar.

        Returns:
            Motions with ``anchor_frame`` and ``reprojection_error`` (both None where the person has too few visible
            joints) and ``meta``: rank, seed, prior, prefix_tokens, yaw, caption_source.

        Raises:
            InputError: num_motions < 1, a number of captions other than persons, an empty caption, a prediction with
                NaN or without limbs.
        """
        jobs_per_person = _positive(num_motions, "num_motions") * self.settings.oversample
        given = _captions_by_row(challenging, captions)
        motions: list[Motion] = []
        group = max(1, self.settings.batch_rows // jobs_per_person)
        with tqdm(total=len(challenging), desc="synthesize", unit="person", disable=not progress) as bar:
            for rows in batched(range(len(challenging)), group):
                jobs, yaws, sources = [], [], []
                for row in rows:
                    person = challenging[row].person
                    pose = joints22(challenging[row].prediction)
                    own = choose_captions(given[row], person.captions, pose, f"person '{person.person_id}'")
                    sources.append(
                        "user" if given[row] is not None else "person" if own[0] in person.captions else "pose"
                    )
                    prefix, yaw = self._prefix(pose)
                    for k in range(jobs_per_person):
                        job_seed = row_seed(seed, person.person_id, k)
                        jobs.append(_Job(person.person_id, own[k % len(own)], job_seed, prefix, k))
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
    ) -> list[Motion]:
        """``num_motions`` motions for every caption, without a pose to start from; all of caption 0 first.

        A motion depends on (seed, its caption, its number); the same caption twice gives the same motions.

        Raises:
            InputError: An empty caption, num_motions < 1, or max_frames beyond the prior.
        """
        captions = checked_texts(captions, "MotionSynthesizer.from_captions")
        _positive(num_motions, "num_motions")
        settings = self.settings
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

    def _sample(self, jobs: Sequence[_Job], settings: SynthesisSettings | None = None) -> list[np.ndarray]:
        """Joints (T_i, 22, 3) of every job, facing about +z at first, standing on the floor."""
        settings, step = settings or self.settings, self.prior.frames_per_token
        options: dict[str, Any] = {
            "max_tokens": settings.max_frames // step,
            "min_tokens": max(1, settings.min_frames // step),
            "temperature": settings.temperature,
            "top_k": settings.top_k,
        }
        if settings.guidance is not None:
            options["guidance"] = settings.guidance
        texts = self.prior.embed([job.caption for job in jobs])
        codes = self.prior.sample(texts, [job.prefix for job in jobs], seed=[job.seed for job in jobs], **options)
        return [self._decode(row) for row in codes]

    def _decode(self, codes: torch.Tensor) -> np.ndarray:
        joints = recover_joints(self.prior.decode(codes[None]))[0].numpy()
        return settled(joints, self.settings.smoothing)

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
