"""HMR2's training losses (shubham-goel/4D-Humans, hmr2/models/hmr2.py): sums over the batch, masked per person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.losses import require
from posesyn.types import Motion

_JOINTS = 23


class PoseDiscriminator(nn.Module):
    """Tells mocap poses and shapes from predicted ones: 25 scores, one per joint, one for the shape, one for the pose.

    Layers as in shubham-goel/4D-Humans: two 1x1 convolutions 9→32→32 over the joints' rotation matrices and a read-out
    per joint; 10→10→5→1 for the shape; 736→1024→1024→1 for the whole pose. ReLU between layers is HMR's (paper,
    section 3.2 and its code).
    """

    def __init__(self) -> None:
        super().__init__()
        self.joint_features = nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.joint_weight = nn.Parameter(torch.empty(_JOINTS, 32))
        self.joint_bias = nn.Parameter(torch.zeros(_JOINTS))
        nn.init.xavier_uniform_(self.joint_weight)
        self.shape = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1))
        self.whole = nn.Sequential(
            nn.Linear(32 * _JOINTS, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1)
        )

    def forward(self, body_pose: Float[Tensor, "B 23 3 3"], betas: Float[Tensor, "B 10"]) -> Float[Tensor, "B 25"]:
        """Scores; 1 means mocap, 0 means predicted."""
        joints = self.joint_features(body_pose.flatten(2))
        each = (joints * self.joint_weight).sum(-1) + self.joint_bias
        return torch.cat((each, self.shape(betas), self.whole(joints.flatten(1))), dim=1)


class MocapPoses:
    """Real poses and shapes for the discriminator, drawn from the frames of motions; InputError without any."""

    def __init__(self, motions: list[Motion], seed: int = 0) -> None:
        if not motions:
            raise InputError("the discriminator needs at least one motion", where="MocapPoses")
        self.pose_rotvec = np.concatenate([motion.pose_rotvec[:, 1:] for motion in motions]).astype(np.float32)
        self.betas = np.concatenate([np.tile(m.betas, (len(m.pose_rotvec), 1)) for m in motions]).astype(np.float32)
        self.seed = seed

    def sample(self, count: int, step: int) -> tuple[Float[Tensor, "B 23 3"], Float[Tensor, "B 10"]]:
        """Rotation vectors and betas; the draw depends on the seed and ``step`` only."""
        rows = np.random.default_rng((self.seed, step)).integers(len(self.betas), size=count)
        return torch.from_numpy(self.pose_rotvec[rows]), torch.from_numpy(self.betas[rows])


# The published 44 joints as far as a SMPL body has them: the 25 of OpenPose, and those of the other 19 that are no
# regressed points. Some joints are in both parts and count twice, as published.
_ROWS = [int(row) for row in skeletons.mapping("smpl45", "hmr2_44") if row >= 0]
_PELVIS = 0
_NEEDED = ("keypoints_norm", "visible", "has_labels", "joints", "pose_rotmat", "betas")


@dataclass(frozen=True)
class Hmr2LossWeights:
    """Weights of shubham-goel/4D-Humans."""

    keypoints_3d: float = 0.05
    keypoints_2d: float = 0.01
    global_orient: float = 0.001
    body_pose: float = 0.001
    betas: float = 0.0005
    adversarial: float = 0.0005


def hmr2_losses(
    prediction: Mapping[str, Tensor], batch: Mapping[str, Tensor], weights: Hmr2LossWeights
) -> dict[str, Tensor]:
    """Weighted losses without the adversarial ones; their sum is minimised.

    * ``keypoints_2d``: absolute error, crop from -0.5 to 0.5, visible joints of every person.
    * ``keypoints_3d``: absolute error in metres from the pelvis; persons with labels. Published: MPII's pelvis, which a
      regressor gives; here SMPL's.
    * ``global_orient``, ``body_pose``: squared error of rotation matrices; ``betas``: of shapes; persons with labels.

    Args:
        prediction: ``pose_rotmat`` (B, 24, 3, 3), ``betas`` (B, 10), ``joints`` (B, 45, 3) metres, ``keypoints_norm``
            (B, 45, 2) with the borders of the crop at ±1.
        batch: See :mod:`posesyn.data.batches`.
        weights: See there.

    Raises:
        InputError: A key is missing from the batch.
    """
    require(batch, _NEEDED)
    labelled = batch["has_labels"].to(prediction["joints"])
    seen = batch["visible"][:, _ROWS, None].to(prediction["joints"])
    flat = (prediction["keypoints_norm"] - batch["keypoints_norm"])[:, _ROWS] / 2
    centred = [x[:, _ROWS] - x[:, _PELVIS : _PELVIS + 1] for x in (prediction["joints"], batch["joints"])]
    turned = (prediction["pose_rotmat"] - batch["pose_rotmat"]).square().sum((2, 3))
    shape = (prediction["betas"] - batch["betas"]).square().sum(1)
    terms = {
        "keypoints_2d": (seen * flat.abs()).sum(),
        "keypoints_3d": (labelled * (centred[0] - centred[1]).abs().sum((1, 2))).sum(),
        "global_orient": (labelled * turned[:, 0]).sum(),
        "body_pose": (labelled * turned[:, 1:].sum(1)).sum(),
        "betas": (labelled * shape).sum(),
    }
    return {name: value * getattr(weights, name) for name, value in terms.items()}


def adversarial_losses(
    discriminator: PoseDiscriminator, predicted: tuple[Tensor, Tensor], real: tuple[Tensor, Tensor], weight: float
) -> dict[str, Tensor]:
    """Least-squares GAN losses of network and discriminator for one common backward pass.

    ``adversarial`` moves the network only, ``discriminator`` the discriminator only; published as two steps of two
    optimisers with the same settings. ``predicted`` and ``real`` are body_pose (B, 23, 3, 3) and betas (B, 10) of the
    network and of mocap.
    """
    frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
    fooled = torch.func.functional_call(discriminator, frozen, predicted)
    fake = discriminator(*(value.detach() for value in predicted))
    terms = {"adversarial": (fooled - 1).square(), "discriminator": fake.square() + (discriminator(*real) - 1).square()}
    return {name: weight * value.sum() / len(fake) for name, value in terms.items()}


def project_to_crop(joints: Tensor, cam_t: Tensor, focal: float, size: int) -> Tensor:
    """(B, J, 3) joints → (B, J, 2) in the crop's own pinhole, its middle at 0 and its borders at ±1."""
    points = joints + cam_t[:, None]
    return points[..., :2] / points[..., 2:].clamp_min(1e-4) * (2 * focal / size)
