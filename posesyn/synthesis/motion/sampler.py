"""From poses and captions to steady joints over time: the prior continues the codes of a pose, and decodes them.

Decoded joints are cleaned: jitter smoothed, standing feet held, floating bodies lowered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d
from torch import Tensor

from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.prior.features import motion_features, recover_joints, still_features
from posesyn.synthesis.motion.prior.prior import MotionPriorModel, continue_codes
from posesyn.synthesis.motion.steering.steering import Goal, yaw_between


@dataclass(frozen=True, eq=False)
class Job:
    """One motion to sample."""

    name: str  # whose motion it is: a person_id, or text0 ...
    number: int  # among the motions of that name
    caption: str
    seed: int
    prefix: Tensor  # (P,) or (P, quantizers) codes to start from; empty where there is no pose
    goal: Goal | None = None  # the pose that it is steered to
    pose_frame: int | None = None  # where that pose stands; None: where the motion comes nearest to it


class MotionSampler:
    """The motion prior with the settings of sampling. Tensors are made where the prior is.

    ``offsets`` are the (22, 3) bone vectors of the body that the prior was trained for, metres.
    """

    def __init__(self, prior: MotionPriorModel, settings: SynthesisSettings, offsets: np.ndarray) -> None:
        self.prior, self.settings, self.offsets = prior, settings, offsets

    def predicted_prefix(self, pose: np.ndarray) -> tuple[Tensor, float]:
        """Codes of a pose (22, 3) held still, and the yaw by which decoded motions must be turned to face as it does.

        As published, through the features of a motion (:meth:`fitted_prefixes` makes those of a still pose directly).
        """
        # T features need T + 1 frames, and the first one differs: HumanML3D forces its heading to zero.
        held = np.repeat(pose[None], self.settings.prefix_frames + 2, axis=0)
        features = torch.from_numpy(motion_features(held, self.offsets, continuous_heading=True)[1:])
        yaw = yaw_between(recover_joints(features[:1])[0].numpy(), pose)
        return self.prior.encode(features[None].to(self.prior.device))[0], yaw

    def fitted_prefixes(self, poses: np.ndarray) -> Tensor:
        """(N, prefix tokens) codes of N poses (N, 22, 3) held still."""
        still = torch.from_numpy(still_features(poses, self.offsets)).to(self.prior.device)
        return self.prior.encode(still[:, None].repeat(1, self.settings.prefix_frames, 1))

    @property
    def _lead(self) -> int:
        """Most tokens before a pose: half of the motion, or of what the prior holds."""
        return min(self.settings.max_frames // self.prior.frames_per_token, self.prior.max_tokens) // 2

    @property
    def _windows(self) -> bool:
        """Whether motions are longer than the prior holds; then all have the same number of tokens, prefixes too."""
        return self.settings.max_frames // self.prior.frames_per_token > self.prior.max_tokens

    def led_in(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs with motion before their poses, as codes to start from, made by a prior that only continues.

        What the prior draws after a pose is played backwards: it ends in the pose, and the prior goes on from there. In
        which direction a body moves through a pose, a single picture does not tell.
        """
        step, lead = self.prior.frames_per_token, self._lead
        if not lead:
            return list(jobs)
        least = lead if self._windows else min(lead, max(1, self.settings.min_frames // step // 2))
        captions, poses = [job.caption for job in jobs], [job.prefix[:1] for job in jobs]
        seeds = [seed_of(job.seed, "lead-in") for job in jobs]
        options = self.drawing(self.settings) | {"max_tokens": lead + 1, "min_tokens": least + 1}
        codes = self.prior.sample(self.prior.embed(captions), poses, seed=seeds, **options)
        return [self._reversed(job, row) for job, row in zip(jobs, codes)]

    def _reversed(self, job: Job, codes: Tensor) -> Job:
        """A job that starts from codes (1 + n, ...) played backwards, the pose of the first of them last."""
        step = self.prior.frames_per_token
        joints = recover_joints(self.prior.decode(codes[None]))[0].cpu().numpy()
        frames = (len(codes) - 1) * step
        joints = joints[step // 2 :][::-1]
        joints = np.concatenate([joints, joints[-1:]])[-frames - 1 :]  # T features need T + 1 frames
        features = torch.from_numpy(motion_features(joints, self.offsets, continuous_heading=True))
        return replace(job, prefix=self.prior.encode(features[None].to(self.prior.device))[0], pose_frame=frames - 1)

    def sample(self, jobs: Sequence[Job], settings: SynthesisSettings | None = None) -> list[np.ndarray]:
        """Joints (T_i, 22, 3) of every job, facing about +z at first, standing on the floor; ``settings`` in place of
        the sampler's own."""
        settings = settings or self.settings
        codes: dict[int, Tensor] = {}
        for led in (False, True):  # apart, since they differ in length: a sample must not depend on the others
            rows = [row for row, job in enumerate(jobs) if (job.pose_frame is not None) == led]
            if rows:
                codes |= zip(rows, self._codes([jobs[row] for row in rows], settings, led))
        return [self.joints(codes[row], settings.smoothing, settings.airborne) for row in range(len(jobs))]

    def _codes(self, jobs: Sequence[Job], settings: SynthesisSettings, led: bool) -> list[Tensor]:
        captions, prefixes, seeds = map(list, zip(*[(job.caption, job.prefix, job.seed) for job in jobs]))
        step, options = self.prior.frames_per_token, self.drawing(settings)
        tokens = settings.max_frames // step
        if tokens > self.prior.max_tokens:
            codes, _ = continue_codes(self.prior, [[text] for text in captions], tokens, prefixes, seeds, **options)
            return codes
        least = max(1, settings.min_frames // step)
        if led:  # half of it after the pose
            least = min(tokens, self._lead + max(1, least // 2))
        return self.prior.sample(
            self.prior.embed(captions), prefixes, seed=seeds, **options, max_tokens=tokens, min_tokens=least
        )

    @staticmethod
    def drawing(settings: SynthesisSettings) -> dict[str, Any]:
        """How tokens are drawn, as options of ``MotionPriorModel.sample``; without guidance the prior's own counts."""
        options: dict[str, Any] = {"temperature": settings.temperature, "top_k": settings.top_k}
        return options if settings.guidance is None else options | {"guidance": settings.guidance}

    def joints(self, codes: Tensor, smoothing: float, airborne: int | None = None, frames: int | None = None) -> Any:
        """(N,) or (N, quantizers) codes → (T, 22, 3) clean joints, the first ``frames`` of them."""
        joints = recover_joints(self.prior.decode(codes[None]))[0].cpu().numpy()[:frames]
        if airborne is not None:  # before feet are set, which asks where the floor is
            joints = grounded(joints, airborne)
        return settled(joints, smoothing)


# How far flesh reaches below each joint when it is what the body rests on, metres: pelvis, hips, spine1, knees ... in
# the order of humanml3d22. Feet count as they are: the prior's floor is at the foot joints.
FLESH = np.array(
    [0.10, 0.10, 0.10, 0.10, 0.05, 0.05, 0.10, 0.0, 0.0, 0.10, 0.0, 0.0, 0.05, 0.08, 0.08, 0.10, 0.06, 0.06, 0.04, 0.04,
     0.03, 0.03]
)  # fmt: skip


def clearance(joints: np.ndarray) -> np.ndarray:
    """(T, 22, 3) metres, y up → (T,) height of the body's lowest point, estimated, above y = 0."""
    return (np.asarray(joints, np.float64)[..., 1] - FLESH).min(1)


def grounded(joints: np.ndarray, airborne: int) -> np.ndarray:
    """(T, 22, 3) metres, y up, shifted up and down, slowly, to touch y = 0 at least every ``airborne`` frames.

    What rises for a shorter time, a jump, keeps its height above the ground before and after it. Climbing is brought
    down to the floor like floating: positions alone do not tell them apart.
    """
    joints = np.asarray(joints, np.float64)
    low = clearance(joints)
    # Morphological opening: the highest floor of which no point is exceeded by a stretch of ``airborne`` frames.
    floor = maximum_filter1d(minimum_filter1d(low, airborne, mode="nearest"), airborne, mode="nearest")
    floor = gaussian_filter1d(floor, airborne / 6, mode="nearest")
    return (joints - floor[:, None, None] * np.array([0.0, 1.0, 0.0])).astype(np.float32)


# hip, knee, ankle, toe
_LEGS = ((1, 4, 7, 10), (2, 5, 8, 11))
_TOES = (10, 11)
CONTACT_HEIGHT = 0.06  # metres above the floor below which a toe may be on it
STEADY = 0.1  # metres per frame of 1/20 s; a toe that moves faster swings
SHORTEST = 2  # frames of a contact
CLEARANCE = 0.06  # metres to which a swinging toe is raised; recorded ones pass at 5 cm or more in 3 of 4 frames
WANDER = 0.15  # metres from its first place after which a toe on the floor is let go and caught again


def path_planted(joints: np.ndarray) -> np.ndarray:
    """(T, 22, 3) metres, y up, 20 fps, with the path changed so that the toe that carries the body stays where it is.

    The whole body is shifted level, frame by frame, against the movement of the low and slow toes, the lower and slower
    one counting more. Poses stay as they are; a body without support moves on as it did.
    """
    joints = np.asarray(joints, np.float64)
    if len(joints) < 2:
        return joints
    toes = joints[:, _TOES]
    height = np.maximum(toes[1:, :, 1], toes[:-1, :, 1]) - _floor(toes)
    steps = np.diff(toes[..., [0, 2]], axis=0)  # (T - 1, 2 toes, 2)
    speed = np.linalg.norm(steps, axis=-1)
    support = _gate(height, CONTACT_HEIGHT, 0.008) * _gate(speed, STEADY, 0.008)
    share = support * np.exp(-np.clip(height, 0, None) / 0.02 - speed / 0.015)
    share = share / np.maximum(share.sum(1, keepdims=True), 1e-12)
    drift = (share[..., None] * steps).sum(1) * support.max(1)[:, None]
    joints = joints.copy()
    joints[1:, :, [0, 2]] -= np.cumsum(drift, axis=0)[:, None]
    return joints


def feet_locked(joints: np.ndarray) -> np.ndarray:
    """(T, 22, 3) metres, y up, 20 fps, with each foot held level in place while its toe is on the floor; knees follow.

    Between contacts the foot passes smoothly from one correction to the next, and a swinging one is raised off the
    floor (decoders flatten steps). Bones keep their lengths; a foot that the leg cannot reach stays as near as it can.
    """
    joints = np.array(joints, np.float64)
    floor = _floor(joints[:, _TOES])
    for hip, knee, ankle, toe in _LEGS:
        place = joints[:, toe][:, [0, 2]]
        known = np.zeros(len(joints), bool)
        offset = np.zeros((len(joints), 2))
        for start, stop in _contacts(joints[:, toe], floor):
            known[start:stop] = True
            offset[start:stop] = np.median(place[start:stop], axis=0) - place[start:stop]
        if not known.any():
            continue
        frames = np.arange(len(joints))
        shift = np.zeros((len(joints), 3))
        for axis in range(2):
            shift[:, 2 * axis] = np.interp(frames, frames[known], offset[known, axis])
        shift[:, 1] = _raise(joints[:, toe], known, floor)
        _bend(joints, (hip, knee, ankle, toe), shift)
    return joints


def _floor(toes: np.ndarray) -> float:
    return float(np.percentile(toes[..., 1].min(1), 10))


def _gate(values: np.ndarray, limit: float, width: float) -> np.ndarray:
    """1 well below the limit, 0 well above."""
    return 1 / (1 + np.exp(np.clip((values - limit) / width, -50, 50)))


def _contacts(toe: np.ndarray, floor: float) -> list[tuple[int, int]]:
    """Frame ranges in which a toe (T, 3) is on the floor, broken where it wanders off."""
    step = np.linalg.norm(np.diff(toe[:, [0, 2]], axis=0), axis=-1)
    if not len(step):
        return []
    # A frame is slow if it is so towards either neighbour.
    slow = np.minimum(np.append(step, np.inf), np.insert(step, 0, np.inf)) < STEADY
    down = slow & (toe[:, 1] - floor < CONTACT_HEIGHT)
    ranges, start = [], None
    for frame in range(len(toe) + 1):
        on = frame < len(toe) and down[frame]
        if start is not None and (not on or np.linalg.norm((toe[frame] - toe[start])[[0, 2]]) > WANDER):
            if frame - start >= SHORTEST:
                ranges.append((start, frame))
            start = None
        if on and start is None:
            start = frame
    return ranges


def _raise(toe: np.ndarray, down: np.ndarray, floor: float) -> np.ndarray:
    """(T,) metres by which a toe (T, 3) is raised where it swings, smooth in time and zero while it is down."""
    speed = np.linalg.norm(np.gradient(toe[:, [0, 2]], axis=0), axis=-1)
    lack = np.clip(CLEARANCE - (toe[:, 1] - floor), 0, None) * (1 - _gate(speed, STEADY, 0.015))
    lack[down] = 0
    return np.where(down, 0, np.maximum(lack, gaussian_filter1d(lack, 1.0)))


def _bend(joints: np.ndarray, leg: tuple[int, int, int, int], shift: np.ndarray) -> None:
    """Moves a foot by shifts (T, 3) and puts the knee where its bones reach both ends, in place."""
    hip, knee, ankle, toe = leg
    upper, lower = joints[:, knee] - joints[:, hip], joints[:, ankle] - joints[:, knee]
    long, short = (np.linalg.norm(bone, axis=-1) for bone in (upper, lower))
    target = joints[:, ankle] + shift
    reach = target - joints[:, hip]
    distance = np.maximum(np.linalg.norm(reach, axis=-1), 1e-6)
    allowed = np.clip(distance, np.abs(long - short) + 1e-4, 0.9995 * (long + short))
    reach = reach / distance[:, None]
    target = joints[:, hip] + reach * allowed[:, None]
    along = (long**2 - short**2 + allowed**2) / (2 * allowed)
    side = upper - (upper * reach).sum(-1, keepdims=True) * reach
    width = np.linalg.norm(side, axis=-1, keepdims=True)
    # A straight leg has no bend to go by: the toe points to where knees bend.
    ahead = joints[:, toe] - joints[:, ankle]
    ahead = ahead - (ahead * reach).sum(-1, keepdims=True) * reach
    side = np.where(width > 1e-4, side, ahead)
    side = side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-9)
    out = np.sqrt(np.clip(long**2 - along**2, 0, None))
    moved = target - joints[:, ankle]
    joints[:, knee] = joints[:, hip] + reach * along[:, None] + side * out[:, None]
    joints[:, ankle] = target
    joints[:, toe] += moved


FEET = (7, 8, 10, 11)
AFTERWARDS = 0.4  # of the smoothing once more, after the feet were set; more makes them slide again
FLOOR_WINDOW = 9  # frames over which the lowest foot is sought


def settled(joints: np.ndarray, smoothing: float = 1.0) -> np.ndarray:
    """(T, 22, 3) metres, y up → smoothed over time, feet that carry kept in place, on the floor y = 0, never below it.

    ``smoothing`` is the Gaussian's standard deviation in frames, 0 for none. The clip's floor is a low percentile of
    the lowest foot joint; frames that still sink are lifted, smoothly.
    """
    joints = np.asarray(joints, np.float64)
    if smoothing > 0 and len(joints) > 1:
        joints = gaussian_filter1d(joints, smoothing, axis=0, mode="nearest")
    joints = feet_locked(path_planted(joints))
    if smoothing > 0:  # where contacts begin and end
        joints = gaussian_filter1d(joints, AFTERWARDS * smoothing, axis=0, mode="nearest")
    lowest = joints[:, FEET, 1].min(1)
    joints = joints - np.array([0.0, 1.0, 0.0]) * np.percentile(lowest, 10)
    sunk = np.minimum(joints[..., 1].min(1), 0.0)
    lift = gaussian_filter1d(minimum_filter1d(sunk, FLOOR_WINDOW), FLOOR_WINDOW / 4, mode="nearest")
    lift = np.minimum(lift, sunk)
    return (joints - lift[:, None, None] * np.array([0.0, 1.0, 0.0])).astype(np.float32)
