"""HMR's pose discriminator, which HMR2 trains against free mocap."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn.errors import InputError
from posesyn.types import Motion

_JOINTS = 23


class PoseDiscriminator(nn.Module):
    """Tells mocap poses and shapes from predicted ones: 25 scores, one per joint, one for the shape, one for the pose.

    Layers as in estimators.md section 4: two 1x1 convolutions 9→32→32 over the joints' rotation matrices and a read-out
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
    """Real poses and shapes for the discriminator, drawn from motions.

    Args:
        motions: Their frames; at least one.
        seed: Of the draws.

    Raises:
        InputError: No motions.
    """

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
