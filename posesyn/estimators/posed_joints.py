"""Joint sets of the published networks on any SMPL-format body."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from posesyn import skeletons
from posesyn.protocols import BodyModel

# What no joint of 'smpl45' can stand for: the top of the head.
_CROWN = ("head_top", "head")


class PosedJoints:
    """Reads a joint set off a posed body: joints of ``smpl45`` and the top of the head.

    The top of the head is the highest vertex of the T-pose. 3DCrowdNet regresses its own from the vertices, with a
    licensed regressor (joint_sets.md section 2); the highest vertex is our own choice, for every body alike.

    Args:
        body: SMPL-format body.
        skeleton: ``smpl30`` or ``hybrik29``.
    """

    def __init__(self, body: BodyModel, skeleton: str) -> None:
        rows = skeletons.mapping("smpl45", skeleton, approximate=False)
        names = skeletons.get(skeleton).joints
        self.body, self.skeleton = body, skeleton
        self._rows = [45 if row < 0 and name in _CROWN else int(row) for row, name in zip(rows, names)]
        # The buffers of a body that is no torch module are assumed to be float32 on the CPU.
        like = next(body.buffers(), torch.zeros(1)) if isinstance(body, torch.nn.Module) else torch.zeros(1)
        rest = torch.eye(3, dtype=like.dtype, device=like.device).expand(11, 24, 3, 3)
        betas = torch.cat((rest.new_zeros(1, 10), torch.eye(10, dtype=like.dtype, device=like.device)))
        with torch.no_grad():
            self._crown = int(body(rest[:1], betas[:1]).vertices[0, :, 1].argmax())
            shapes = self(rest, betas)
        # The T-pose is linear in the betas, so that it takes no vertices once this is known.
        self._template, self._directions = shapes[0], shapes[1:] - shapes[0]

    def __call__(
        self, pose_rotmat: Float[Tensor, "B 24 3 3"], betas: Float[Tensor, "B 10"], transl: Tensor | None = None
    ) -> Float[Tensor, "B J 3"]:
        """Metres, in the frame of the root rotation."""
        posed = self.body(pose_rotmat, betas, transl)
        return torch.cat((posed.joints, posed.vertices[:, self._crown, None]), dim=1)[:, self._rows]

    def at_rest(self, betas: Float[Tensor, "B 10"]) -> Float[Tensor, "B J 3"]:
        """The T-pose."""
        return self._template.to(betas) + torch.einsum("bk,kjc->bjc", betas, self._directions.to(betas))
