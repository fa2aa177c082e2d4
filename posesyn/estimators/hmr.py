"""HMR-style estimators: one network family from SPIN's ResNet-50 down to the small one that posesyn ships."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.estimators.base import SmplNetwork
from posesyn.estimators.layers import IterativeRegressor, folded_forward, is_foldable
from posesyn.estimators.losses import HMR_RECIPE, SCORED_JOINTS, LossWeights, smpl_losses, trainable
from posesyn.estimators.weights import OfficialWeights
from posesyn.geometry.cameras import weak_perspective_to_translation
from posesyn.geometry.rotations import rot6d_to_matrix
from posesyn.interfaces import BodyModel, EstimatorSpec


class AverageNeck(nn.Module):
    """Averages the last feature map, as HMR and SPIN do; ``channels`` are those of the backbone's maps, finest
    first."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.features = channels[-1]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "B F"], dict[str, Tensor]]:
        """Features and nothing else."""
        return maps[-1].mean((2, 3)), {}


class JointNeck(nn.Module):
    """Finds the joints in the crop first; features are their places and the averaged last map through two layers.

    Each joint has a heat map and a depth map; its place is their expectation (integral regression, Sun et al., ECCV
    2018, which HybrIK uses as well). A small network that starts from nothing learns where joints are within minutes,
    and from there to rotations is a small step; straight from the last feature map it had hardly got beyond the
    mean pose after 70,000 crops (assets/ESTIMATOR.md). The maps, finest first, are merged at the finest resolution to
    ``width`` channels; found are the first ``joints`` of ``smpl45``. Layout and sizes are our own choice.
    """

    def __init__(
        self, channels: Sequence[int], width: int = 64, features: int = 512, joints: int = SCORED_JOINTS
    ) -> None:
        super().__init__()
        self.features = features
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.merge = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.maps = nn.Conv2d(width, 2 * joints, 1)
        self.lift = nn.Sequential(
            nn.Linear(3 * joints + channels[-1], features), nn.ReLU(), nn.Linear(features, features), nn.ReLU()
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "B F"], dict[str, Tensor]]:
        """Features, and what was found on the way: ``heat`` (B, J, H, W) before the softmax, and ``places`` (B, J, 3):
        x and y with the borders of the crop at ±1, depth from the pelvis in metres."""
        merged = self.lateral[-1](maps[-1])
        for lateral, finer in zip(reversed(self.lateral[:-1]), reversed(maps[:-1])):
            merged = lateral(finer) + functional.interpolate(merged, size=finer.shape[-2:], mode="nearest")
        heat, depth = self.maps(self.merge(merged)).chunk(2, dim=1)
        places = expected_places(heat, depth)
        return self.features_of(places, maps[-1].mean((2, 3))), {"heat": heat, "places": places}

    def features_of(self, places: Float[Tensor, "B J 3"], pooled: Float[Tensor, "B C"]) -> Float[Tensor, "B F"]:
        """The second half: places and averaged map → features."""
        return self.lift(torch.cat((places.flatten(1), pooled), dim=1))


def expected_places(heat: Float[Tensor, "B J H W"], depth: Float[Tensor, "B J H W"]) -> Float[Tensor, "B J 3"]:
    """Soft-argmax: expectation of x, y (cell centres, borders of the map at ±1) and depth under softmax(heat)."""
    height, width = heat.shape[-2:]
    share = heat.flatten(2).softmax(-1)
    x = (torch.arange(width, device=heat.device) + 0.5) / width * 2 - 1
    y = (torch.arange(height, device=heat.device) + 0.5) / height * 2 - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = torch.stack((columns.flatten(), rows.flatten()), dim=-1).to(share)
    return torch.cat((share @ grid, (share * depth.flatten(2)).sum(-1, keepdim=True)), dim=-1)


# Boxes of joints and of annotators grow by 1.2 both (nkolot/SPIN, datasets/preprocess: hr_lspet.py, coco.py); crops
# are made with scipy.misc.imresize, which is Pillow's bilinear resize (utils/imutils.py).
SPIN_SPEC = EstimatorSpec(
    "hmr", input_size=(224, 224), rot6d_layout="interleaved", tight_box_scale=1.0, antialias="average"
)
SMALL_SPEC = EstimatorSpec(
    "hmr_small", input_size=(96, 96), rot6d_layout="interleaved", tight_box_scale=1.0, antialias="average"
)
# Chosen among eight networks by forward + backward speed on one core; the figures are in assets/ESTIMATOR.md.
SMALL_BACKBONE = "regnetx_002"

# SPIN's weights pull the limbs in where it is unclear which way a person faces, which on a small network is often:
# chosen on the demo's worlds of seeds 100 and 101 (assets/ESTIMATOR.md). Our own choice.
SMALL_WEIGHTS = LossWeights(keypoints_3d=1.0, keypoints_local=20.0, pose=5.0, orientation=4.0)

# Neck and the levels of the backbone (0 is the stem, each halves the resolution) that it sees.
_NECKS = {"average": (AverageNeck, (4,)), "joints": (JointNeck, (2, 3, 4))}

_HEAD = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_")


class HMR(SmplNetwork):
    """Image → SMPL pose, shape and weak-perspective camera; a ``TrainableEstimator``.

    The defaults are SPIN's network (nkolot/SPIN, models/hmr.py). No weights are downloaded.

    Args:
        spec: Input, crop rule, camera and 6D layout.
        backbone: Name of a timm network.
        neck: ``average`` as SPIN has it, or ``joints``, see :class:`JointNeck`.
        hidden, iterations, dropout: See :class:`posesyn.estimators.layers.IterativeRegressor`.
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
        super().__init__(spec, body, batch_size)
        if neck not in _NECKS:
            raise InputError("unknown neck", where=f"estimator '{spec.name}'", expected=sorted(_NECKS), got=neck)
        kind, levels = _NECKS[neck]
        self.backbone = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=levels)
        # Channels last: 1.7 times as fast on a CPU with grouped convolutions, the same numbers.
        self.backbone.to(memory_format=torch.channels_last)
        self.neck = kind(self.backbone.feature_info.channels())
        self.regressor = IterativeRegressor(self.neck.features, hidden, iterations, dropout)
        self.loss_weights = loss_weights or LossWeights()

    @classmethod
    def small(cls, **options: Any) -> HMR:
        """The architecture of the shipped weights, at random, with losses that suit its size."""
        defaults = {"neck": "joints", "dropout": 0.0, "loss_weights": SMALL_WEIGHTS}
        return cls(SMALL_SPEC, SMALL_BACKBONE, **{**defaults, **options})

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], **options: Any) -> HMR:
        """SPIN's network with the weights of a file, see :meth:`load_checkpoint`, in eval mode."""
        return cls(**options).load_checkpoint(path).eval()

    def load_checkpoint(self, path: str | os.PathLike[str]) -> HMR:
        """Loads weights that posesyn saved, or official ones of nkolot/SPIN (``model_checkpoint.pt``), strictly.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model.
        """
        weights = OfficialWeights.read(path)
        if any(name.startswith("backbone.") for name in weights.tensors):
            weights.load_into(self)
        else:
            weights.load_into(self, _from_spin, _to_spin)
        return self

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Crops → ``pose_rotmat`` (B, 24, 3, 3), also as ``rotmat``, ``betas`` (B, 10), ``cam`` (B, 3) (s, tx, ty) and
        ``cam_t`` (B, 3), the translation in the camera of the crop; with the neck ``joints`` also ``heat``
        (B, 35, h, w) and ``places`` (B, 35, 3).

        Raises:
            InputError: Images of another size than the network's.
        """
        self.check_images(images)
        images = images.contiguous(memory_format=torch.channels_last)
        features, found = self.neck(self.run_heavy(self._maps, images))
        output = self.regress(features)
        cam_t = weak_perspective_to_translation(output["cam"], self.spec.focal_length, self.spec.input_size[1])
        return {**output, **found, "rotmat": output["pose_rotmat"], "cam_t": cam_t}

    def _maps(self, images: Tensor) -> list[Tensor]:
        if is_foldable(self.backbone) and isinstance(self.neck, AverageNeck):
            return [folded_forward(self.backbone, images)]
        return self.backbone(images)

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

    def published_optimizers(self, learning_rate: float | None = None) -> dict[str, Any]:
        """SPIN's optimiser, see :mod:`posesyn.estimators.losses`."""
        return HMR_RECIPE.build(trainable(self.named_parameters(), ["backbone."]), learning_rate)


def _from_spin(name: str) -> str:
    # torchvision's and timm's ResNet-50 have the same names; SPIN keeps trunk and regressor in one flat namespace.
    return f"regressor.{name}" if name.startswith(_HEAD) else f"backbone.{name}"


def _to_spin(name: str) -> str:
    return name.removeprefix("regressor.").removeprefix("backbone.")
