"""From poses and captions to joints over time: the prior continues the codes of a pose, and decodes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posesyn.settings.synthesis import SynthesisSettings
from posesyn.synthesis.motion.cleanup import grounded, settled
from posesyn.synthesis.motion.continuation import continue_codes
from posesyn.synthesis.motion.prior.features import motion_features, recover_joints, still_features
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.steering.estimator_pose import yaw_between
from posesyn.synthesis.motion.steering.steering import Goal


@dataclass(frozen=True, eq=False)
class Job:
    """One motion to sample.

    Attributes:
        name: Whose motion it is: a ``person_id``, or ``text0`` ...
        number: k, its number among the motions of that name.
        caption: What it shows.
        seed: Of its random stream.
        prefix: (P,) or (P, quantizers) codes to start from; empty where there is no pose.
        goal: The pose that it is steered to, if any.
    """

    name: str
    number: int
    caption: str
    seed: int
    prefix: Tensor
    goal: Goal | None = None


class MotionSampler:
    """The motion prior with the settings of sampling. Tensors are made where the prior is.

    Args:
        prior: The prior.
        settings: Lengths, temperature, guidance and cleaning.
        offsets: (22, 3) bone vectors of the body that the prior was trained for, metres.
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

    def sample(self, jobs: Sequence[Job], settings: SynthesisSettings | None = None) -> list[np.ndarray]:
        """Joints (T_i, 22, 3) of every job, facing about +z at first, standing on the floor; ``settings`` in place of
        the sampler's own."""
        settings = settings or self.settings
        captions, prefixes, seeds = map(list, zip(*[(job.caption, job.prefix, job.seed) for job in jobs]))
        step, options = self.prior.frames_per_token, drawing(settings)
        tokens = settings.max_frames // step
        if tokens > self.prior.max_tokens:
            codes, _ = continue_codes(self.prior, [[text] for text in captions], tokens, prefixes, seeds, **options)
        else:
            options |= {"max_tokens": tokens, "min_tokens": max(1, settings.min_frames // step)}
            codes = self.prior.sample(self.prior.embed(captions), prefixes, seed=seeds, **options)
        return [self.joints(row, settings.smoothing, settings.airborne) for row in codes]

    def joints(self, codes: Tensor, smoothing: float, airborne: int | None = None, frames: int | None = None) -> Any:
        """(N,) or (N, quantizers) codes → (T, 22, 3) clean joints, the first ``frames`` of them."""
        joints = recover_joints(self.prior.decode(codes[None]))[0].cpu().numpy()[:frames]
        if airborne is not None:  # before feet are set, which asks where the floor is
            joints = grounded(joints, airborne)
        return settled(joints, smoothing)


def drawing(settings: SynthesisSettings) -> dict[str, Any]:
    """How tokens are drawn, as options of ``MotionPriorModel.sample``; the prior's own guidance where none is set."""
    options: dict[str, Any] = {"temperature": settings.temperature, "top_k": settings.top_k}
    if settings.guidance is not None:
        options["guidance"] = settings.guidance
    return options
