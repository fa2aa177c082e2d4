"""HMR2.0 (4D-Humans): a ViT-H and a one-token decoder, image → SMPL pose, shape and weak-perspective camera."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from posesyn.body import load_body
from posesyn.estimators.hmr2_losses import Hmr2LossWeights, adversarial_losses, hmr2_losses, project_to_crop
from posesyn.estimators.official import OfficialWeights
from posesyn.estimators.pose_discriminator import MocapPoses, PoseDiscriminator
from posesyn.estimators.recipes import HMR2_RECIPE, trainable
from posesyn.estimators.smpl_decoder import SmplDecoder
from posesyn.estimators.smpl_network import SmplNetwork
from posesyn.estimators.vit import VisionTransformer
from posesyn.geometry.cameras import weak_perspective_to_translation
from posesyn.geometry.rotations import rot6d_to_matrix, rotvec_to_matrix
from posesyn.protocols import BodyModel, EstimatorSpec
from posesyn.types import Motion

# The box is padded to 192:256 and then to a square (estimators.md section 1); detector boxes are not enlarged.
HMR2_SPEC = EstimatorSpec("hmr2", input_size=(256, 256), box_scale=1.0, box_aspect=192 / 256, rot6d_layout="contiguous")
# Columns of the crop that the backbone does not see, on either side.
_MARGIN = 32
_DEPTH = 32
_IGNORED = ("smpl.", "discriminator.", "initialized")
_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.")


class HMR2(SmplNetwork):
    """Image → SMPL pose, shape and weak-perspective camera; a ``TrainableEstimator`` of 670 million weights.

    Layers, key names and numbers as in shubham-goel/4D-Humans (estimators.md section 4).

    Args:
        depth: Blocks of the backbone; 32 as published.
        drop_path: Stochastic depth in training.
        body: Body model; default the free one in its small version.
        loss_weights: Default: the published ones.
        batch_size: Persons per forward pass in :meth:`predict`.
    """

    def __init__(
        self,
        depth: int = _DEPTH,
        *,
        drop_path: float = 0.55,
        body: BodyModel | None = None,
        loss_weights: Hmr2LossWeights | None = None,
        batch_size: int = 16,
    ) -> None:
        super().__init__(HMR2_SPEC, body, batch_size)
        self.backbone = VisionTransformer(depth=depth, drop_path=drop_path)
        self.smpl_head = SmplDecoder()
        self.loss_weights = loss_weights or Hmr2LossWeights()
        self.mocap: MocapPoses | None = None
        self.losses_computed = 0

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], **options: Any) -> HMR2:
        """The network with weights from a checkpoint of shubham-goel/4D-Humans (a Lightning ``.ckpt``).

        Its configuration is read as plain data, never run; body model and discriminator in it are skipped. The depth
        is that of the file. Needs about 2.7 GB of memory for the published depth.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model.
        """
        official = OfficialWeights.read(path, _IGNORED)
        options.setdefault("body", load_body(size="small"))
        # Nothing is drawn at random for weights that are about to come, and they are not copied either.
        with torch.device("meta"):
            model = cls(_depth_of(official.tensors), **options)
        official.load_into(model, assign=True)
        return model.eval()

    def set_mocap(self, motions: Sequence[Motion], seed: int = 0) -> HMR2:
        """Adds the adversarial losses: a discriminator is trained along against the poses of these motions.

        Raises:
            InputError: No motions.
        """
        self.mocap = MocapPoses(list(motions), seed)
        self.discriminator = PoseDiscriminator().to(self.device)
        return self

    def forward(self, images: Float[Tensor, "B 3 256 256"]) -> dict[str, Tensor]:
        """Crops → ``pose_rotmat`` (B, 24, 3, 3), also as ``global_orient`` (B, 1, 3, 3) and ``body_pose``
        (B, 23, 3, 3), ``betas`` (B, 10), ``cam`` (B, 3) (s, tx, ty), ``cam_t`` (B, 3) metres in the camera of the
        crop, ``feature`` (B, 1280, 16, 12).

        Raises:
            InputError: Images of another size.
        """
        self.check_images(images)
        maps = self.run_heavy(self.backbone, images[..., _MARGIN:-_MARGIN])
        pose, betas, cam = self.smpl_head(maps)
        rotmat = rot6d_to_matrix(pose.view(-1, 24, 6), layout=self.spec.rot6d_layout)
        return {
            "pose_rotmat": rotmat,
            "global_orient": rotmat[:, :1],
            "body_pose": rotmat[:, 1:],
            "betas": betas,
            "cam": cam,
            "cam_t": weak_perspective_to_translation(cam, self.spec.focal_length, self.spec.input_size[1]),
            "feature": maps,
        }

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The published losses, see :mod:`posesyn.estimators.hmr2_losses`; adversarial ones after :meth:`set_mocap`."""
        output = self(batch["images"])
        joints = self.body(output["pose_rotmat"], output["betas"]).joints
        keypoints = project_to_crop(joints, output["cam_t"], self.spec.focal_length, self.spec.input_size[1])
        losses = hmr2_losses({**output, "joints": joints, "keypoints_norm": keypoints}, batch, self.loss_weights)
        if self.mocap is not None:
            step = batch.get("batch_index", self.losses_computed)
            self.losses_computed += 1
            rotvec, betas = (value.to(joints.device) for value in self.mocap.sample(len(joints), step))
            predicted = (output["body_pose"], output["betas"])
            real = (rotvec_to_matrix(rotvec), betas)
            losses |= adversarial_losses(self.discriminator, predicted, real, self.loss_weights.adversarial)
        return losses

    def published_optimizers(self, learning_rate: float | None = None) -> dict[str, Any]:
        """The published AdamW, see :mod:`posesyn.estimators.recipes`."""
        groups = trainable(self.named_parameters(), ["backbone.", "smpl_head.", "discriminator."])
        return HMR2_RECIPE.build(groups, learning_rate)


def _depth_of(names: Mapping[str, Tensor]) -> int:
    """Blocks numbered without a gap from 0; the published depth for a file without any, so that the report is right."""
    found = {int(match[1]) for name in names if (match := _BLOCK.match(name))}
    depth = 0
    while depth in found:
        depth += 1
    return depth or _DEPTH
