"""Iterative error feedback (HMR, CVPR 2018) in the form of SPIN: image features → SMPL pose, shape and camera."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

# 24 joints x 6D, betas, (s, tx, ty).
POSE_SIZE, SHAPE_SIZE, CAM_SIZE = 144, 10, 3
# A SMPL body stands with y up, the camera's y points down: half a turn about x, interleaved 6D (estimators.md §3).
_UPRIGHT = (1.0, 0.0, 0.0, -1.0, 0.0, 0.0)
_IDENTITY = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


class IterativeRegressor(nn.Module):
    """Refines (pose, shape, camera) ``iterations`` times from features and the current estimate.

    Source: nkolot/SPIN ``models/hmr.py`` as described in estimators.md section 3: two linear layers of ``hidden`` with
    dropout and no activation between them, three read-outs with Xavier gain 0.01, residual updates.

    Args:
        features: Size F of the image features.
        hidden: Width of both layers.
        iterations: Rounds of refinement.
        dropout: After each of the two layers.
    """

    def __init__(self, features: int, hidden: int = 1024, iterations: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.iterations = iterations
        self.fc1 = nn.Linear(features + POSE_SIZE + SHAPE_SIZE + CAM_SIZE, hidden)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, hidden)
        self.drop2 = nn.Dropout(dropout)
        self.decpose = nn.Linear(hidden, POSE_SIZE)
        self.decshape = nn.Linear(hidden, SHAPE_SIZE)
        self.deccam = nn.Linear(hidden, CAM_SIZE)
        for readout in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(readout.weight, gain=0.01)
        # Start of the first round. Official checkpoints bring mean parameters of mocap; the default is the rest pose.
        self.register_buffer("init_pose", torch.tensor([_UPRIGHT + _IDENTITY * 23]))
        self.register_buffer("init_shape", torch.zeros(1, SHAPE_SIZE))
        self.register_buffer("init_cam", torch.tensor([[0.9, 0.0, 0.0]]))

    def forward(
        self, features: Float[Tensor, "B F"]
    ) -> tuple[Float[Tensor, "B 144"], Float[Tensor, "B 10"], Float[Tensor, "B 3"]]:
        """Returns 6D pose (24 x 6, flattened), betas and weak-perspective camera (s, tx, ty)."""
        batch = len(features)
        pose, betas, cam = (x.expand(batch, -1) for x in (self.init_pose, self.init_shape, self.init_cam))
        for _ in range(self.iterations):
            hidden = torch.cat((features, pose, betas, cam), dim=1)
            hidden = self.drop1(self.fc1(hidden))
            hidden = self.drop2(self.fc2(hidden))
            pose = pose + self.decpose(hidden)
            betas = betas + self.decshape(hidden)
            cam = cam + self.deccam(hidden)
        return pose, betas, cam
