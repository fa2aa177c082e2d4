"""HMR-style estimators: one network family from SPIN's ResNet-50 down to the small one that posesyn ships."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn.body import load_body
from posesyn.data.crops import crop_persons
from posesyn.errors import InputError
from posesyn.estimators.losses import LossWeights, smpl_losses
from posesyn.estimators.necks import AverageNeck, JointNeck
from posesyn.estimators.prediction import predict_in_chunks
from posesyn.estimators.regressor import IterativeRegressor
from posesyn.geometry.cameras import (
    crop_to_full_translation,
    full_image_focal,
    intrinsics,
    project,
    weak_perspective_to_translation,
)
from posesyn.geometry.rotations import rot6d_to_matrix
from posesyn.protocols import BodyModel, EstimatorSpec
from posesyn.storage.checkpoints import load_into, load_weights
from posesyn.types import Person, PoseBatch

SPIN_SPEC = EstimatorSpec("hmr", input_size=(224, 224), rot6d_layout="interleaved")
SMALL_SPEC = EstimatorSpec("hmr_small", input_size=(96, 96), rot6d_layout="interleaved")
# Chosen among eight networks by forward + backward speed on one core; the figures are in assets/ESTIMATOR.md.
SMALL_BACKBONE = "regnetx_002"

# Neck and the levels of the backbone (0 is the stem, each halves the resolution) that it sees.
_NECKS = {"average": (AverageNeck, (4,)), "joints": (JointNeck, (2, 3, 4))}

_HEAD = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_")


class HMR(nn.Module):
    """Image → SMPL pose, shape and weak-perspective camera; a ``TrainableEstimator``.

    The defaults are SPIN's network (estimators.md section 3). No weights are downloaded. The body model is no part of
    the state dict: it is licensed or shipped apart.

    Args:
        spec: Input, crop rule, camera and 6D layout.
        backbone: Name of a timm network.
        neck: ``average`` as SPIN has it, or ``joints``, see :mod:`posesyn.estimators.necks`.
        hidden, iterations, dropout: See :class:`posesyn.estimators.regressor.IterativeRegressor`.
        body: Body model; default the free one in its small version.
        loss_weights: Default: SPIN's.
        batch_size: Persons per forward pass in :meth:`predict`.
    """

    def __init__(
        self,
        spec: EstimatorSpec = SPIN_SPEC,
        backbone: str = "resnet50",
        *,
        neck: Literal["average", "joints"] = "average",
        hidden: int = 1024,
        iterations: int = 3,
        dropout: float = 0.5,
        body: BodyModel | None = None,
        loss_weights: LossWeights | None = None,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        self.spec = spec
        if neck not in _NECKS:
            raise InputError("unknown neck", where=f"estimator '{spec.name}'", expected=sorted(_NECKS), got=neck)
        kind, levels = _NECKS[neck]
        self.backbone = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=levels)
        # Channels last: 1.7 times as fast on a CPU with grouped convolutions, the same numbers.
        self.backbone.to(memory_format=torch.channels_last)
        self.neck = kind(self.backbone.feature_info.channels())
        self.regressor = IterativeRegressor(self.neck.features, hidden, iterations, dropout)
        self.loss_weights = loss_weights or LossWeights()
        self.batch_size = batch_size
        # In __dict__ and not a submodule, so that its buffers stay out of state_dict() and parameters().
        self.__dict__["body"] = load_body(size="small") if body is None else body

    @classmethod
    def small(cls, **options: Any) -> HMR:
        """The architecture of the shipped weights, at random."""
        return cls(SMALL_SPEC, SMALL_BACKBONE, **{"neck": "joints", "dropout": 0.0, **options})

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], **options: Any) -> HMR:
        """SPIN's network with weights from a checkpoint of nkolot/SPIN (``model_checkpoint.pt``).

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model.
        """
        model = cls(**options)
        load_into(model, load_weights(path), where=path, rename=_from_spin)
        return model.eval()

    def load_checkpoint(self, path: str | os.PathLike[str]) -> HMR:
        """Loads weights that posesyn saved, or official ones of nkolot/SPIN, strictly.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model.
        """
        weights = load_weights(path)
        official = not any(name.startswith("backbone.") for name in weights)
        load_into(self, weights, where=path, rename=_from_spin if official else None)
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> HMR:
        super()._apply(fn, recurse)
        if isinstance(self.body, nn.Module):
            self.body._apply(fn)
        return self

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Crops → ``pose_rotmat`` (B, 24, 3, 3), ``betas`` (B, 10), ``cam`` (B, 3) (s, tx, ty); with the neck
        ``joints`` also ``heat`` (B, 35, h, w) and ``places`` (B, 35, 3).

        Raises:
            InputError: Images of another size than the network's.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, *self.spec.input_size):
            raise InputError(
                "images have the wrong shape",
                where=f"estimator '{self.spec.name}'",
                expected=("B", 3, *self.spec.input_size),
                got=tuple(images.shape),
                fix="crop them with posesyn.data.crops",
            )
        images = images.contiguous(memory_format=torch.channels_last)
        features, found = self.neck(self.backbone(images))
        return {**self.regress(features), **found}

    def regress(self, features: Float[Tensor, "B F"]) -> dict[str, Tensor]:
        """The part behind the neck."""
        pose, betas, cam = self.regressor(features)
        rotmat = rot6d_to_matrix(pose.view(-1, 24, 6), layout=self.spec.rot6d_layout)
        return {"pose_rotmat": rotmat, "betas": betas, "cam": cam}

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """SPIN's losses, see :func:`posesyn.estimators.losses.smpl_losses`."""
        return self.losses_of(self(batch["images"]), batch)

    def losses_of(self, prediction: Mapping[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The losses of an output of :meth:`forward` or :meth:`regress`."""
        joints = self.body(prediction["pose_rotmat"], prediction["betas"]).joints
        size, focal = self.spec.input_size[1], self.spec.focal_length
        transl = weak_perspective_to_translation(prediction["cam"], focal, size)
        points = joints + transl[:, None]
        # The crop's own pinhole with the middle of the crop at 0 and its borders at ±1.
        keypoints = points[..., :2] / points[..., 2:].clamp_min(1e-4) * (2 * focal / size)
        return smpl_losses({**prediction, "joints": joints, "keypoints_norm": keypoints}, batch, self.loss_weights)

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        """Predicts in the camera of the full image, in the order given; in eval mode, without gradients.

        The focal length of the full image is unknown: HMR2's f / crop size · max(W, H) is assumed (estimators.md §4).

        Raises:
            InputError: No persons, or a box that is empty or outside its image.
            FileError: An image cannot be read.
        """
        return predict_in_chunks(self, self.spec, persons, self._predict, self.batch_size)

    def _predict(self, persons: Sequence[Person]) -> dict[str, np.ndarray]:
        crops = crop_persons(persons, self.spec)
        device = self.regressor.init_cam.device
        output = self(torch.from_numpy(crops.images).to(device))
        sizes = crops.image_sizes
        focal = torch.tensor(
            [full_image_focal(self.spec.focal_length, self.spec.input_size[1], *size) for size in sizes], device=device
        )
        centers, extents, image_sizes = (
            torch.from_numpy(value).to(device) for value in (crops.box_centers, crops.box_sizes, sizes)
        )
        transl = crop_to_full_translation(output["cam"], centers, extents, image_sizes, focal)
        joints = self.body(output["pose_rotmat"], output["betas"], transl).joints
        camera = intrinsics(focal, image_sizes[:, 0], image_sizes[:, 1])
        result = {
            "joints_cam": joints,
            "keypoints_px": project(joints, camera),
            "pose_rotmat": output["pose_rotmat"],
            "betas": output["betas"],
            "transl_cam": transl,
            "intrinsics": camera,
        }
        return {name: value.float().cpu().numpy() for name, value in result.items()}


def _from_spin(name: str) -> str:
    # torchvision's and timm's ResNet-50 have the same names; SPIN keeps trunk and regressor in one flat namespace.
    return f"regressor.{name}" if name.startswith(_HEAD) else f"backbone.{name}"
