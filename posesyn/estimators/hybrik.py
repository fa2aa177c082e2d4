"""HybrIK: joints as volumes of scores, twists as angles, and a SMPL pose from both in closed form."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn.data.crops import CropBatch
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.batch_norm import fold
from posesyn.estimators.folded_resnet import folded_forward, is_foldable
from posesyn.estimators.hybrik_losses import CROP, DEPTH_SPAN, FOCAL, HybrikLossWeights, hybrik_losses
from posesyn.estimators.joint_volume import expected_uvd, expected_uvd_by_parts
from posesyn.estimators.official import OfficialWeights
from posesyn.estimators.posed_joints import PosedJoints
from posesyn.estimators.recipes import HYBRIK_RECIPE, trainable
from posesyn.estimators.smpl_network import SmplNetwork
from posesyn.estimators.twist_swing import solve_pose, twist_of
from posesyn.protocols import BodyModel, EstimatorSpec
from posesyn.types import Person

# Mean and std are numbers for blue, green, red that the published code applies to red, green, blue: so must we
# (estimators.md section 5).
HYBRIK_SPEC = EstimatorSpec(
    "hybrik",
    input_size=(256, 256),
    mean=(0.406, 0.457, 0.480),
    std=(0.225, 0.224, 0.229),
    box_scale=1.25,
    focal_length=FOCAL,
)
_JOINTS, _CELLS, _DECONV = 29, 64, 256
_IGNORED = ("smpl.",)
_BACKBONES = {
    ("basic", 2): "resnet18",
    ("basic", 6): "resnet34",
    ("bottleneck", 6): "resnet50",
    ("bottleneck", 23): "resnet101",
}
_BLOCK = re.compile(r"preact\.layer3\.(\d+)\.")


class HybrIK(SmplNetwork):
    """Image → 29 joints, twists, shape and camera → SMPL pose; a ``TrainableEstimator``.

    Layers, key names and numbers as in Jeff-sjtu/HybrIK with a ResNet (estimators.md section 5). The inverse kinematics
    is our own, from the paper's equations (:mod:`posesyn.estimators.twist_swing`).

    Args:
        backbone: ``resnet34``, ``resnet50`` or another plain ResNet of timm.
        uvd_loss: See :func:`posesyn.estimators.hybrik_losses.hybrik_losses`.
        body: Body model; default the free one in its small version.
        loss_weights: Default: the published ones.
        batch_size: Persons per forward pass in :meth:`predict`.
    """

    heavy_parts = ("preact", "deconv_layers")

    def __init__(
        self,
        backbone: str = "resnet34",
        *,
        uvd_loss: Literal["laplace", "l1"] = "laplace",
        body: BodyModel | None = None,
        loss_weights: HybrikLossWeights | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(HYBRIK_SPEC, body, batch_size)
        if uvd_loss not in ("laplace", "l1"):
            raise InputError("unknown uvd_loss", where="HybrIK", expected="'laplace' or 'l1'", got=uvd_loss)
        self.preact = timm.create_model(backbone, pretrained=False, num_classes=0, global_pool="")
        channels = self.preact.num_features
        layers: list[nn.Module] = []
        for inputs in (channels, _DECONV, _DECONV):
            layers += [
                nn.ConvTranspose2d(inputs, _DECONV, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(_DECONV),
                nn.ReLU(inplace=True),
            ]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(_DECONV, _JOINTS * _CELLS, 1)
        self.fc1 = nn.Linear(channels, 1024)
        self.drop1 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(1024, 1024)
        self.drop2 = nn.Dropout(0.5)
        self.decshape = nn.Linear(1024, 10)
        self.decphi = nn.Linear(1024, 23 * 2)
        self.deccam = nn.Linear(1024, 3)
        self.decsigma = nn.Linear(1024, _JOINTS)
        # Official checkpoints bring the mean shape of Human3.6M; the default is the mean body.
        self.register_buffer("init_shape", torch.zeros(10))
        self.register_buffer("init_cam", torch.tensor([0.9, 0.0, 0.0]))
        self.to(memory_format=torch.channels_last)
        self.posed_joints = PosedJoints(self.body, "hybrik29")
        self.uvd_loss, self.loss_weights = uvd_loss, loss_weights or HybrikLossWeights()

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], **options: Any) -> HybrIK:
        """The network with weights from a checkpoint of Jeff-sjtu/HybrIK; the licensed body in it is skipped.

        The ResNet is that of the file.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model, the HRNet version included.
        """
        official = OfficialWeights.read(path, _IGNORED)
        if any(name.startswith("preact.stage2.") for name in official.tensors):
            raise CheckpointError(
                "a checkpoint of HybrIK has an HRNet",
                where=official.path,
                expected="a ResNet version",
                fix="use the checkpoint of HybrIK with ResNet-34 or ResNet-50",
            )
        model = cls(_backbone_of(official.tensors), **options)
        official.load_into(model)
        return model.eval()

    def forward(
        self,
        images: Float[Tensor, "B 3 256 256"],
        boxes: Float[Tensor, "B 4"] | None = None,
        image_centre: Float[Tensor, "B 2"] | None = None,
    ) -> dict[str, Tensor]:
        """One pass.

        Args:
            images: Crops.
            boxes: x0, y0, x1, y1 of the crops in the full image, pixels; together with ``image_centre``, or neither.
            image_centre: Middle of the full image, pixels.

        Returns:
            ``uvd`` (B, 29, 3) crop fractions and depth in units of 2.2 m; ``heatmap_max`` and ``sigma`` (B, 29, 1);
            ``phi`` (B, 23, 2) cosine and sine of the twists; ``betas`` (B, 10); ``cam`` (B, 3); ``skeleton_no_box``
            (B, 29, 3) metres from joint 0 and ``root_no_box`` (B, 3), placed by ``cam``; ``skeleton`` and ``root``,
            placed by the box where there is one, else the same; ``pose_rotmat`` (B, 24, 3, 3); ``feature``.

        Raises:
            InputError: Wrong shapes, or only one of ``boxes`` and ``image_centre``.
        """
        self.check_images(images)
        if (boxes is None) != (image_centre is None):
            raise InputError("boxes and image_centre go together", where="estimator 'hybrik'")
        maps, rising = self.run_heavy(self._maps, images)
        uvd, peak = self._places(rising)
        hidden = self.drop1(self.fc1(maps.mean((2, 3))))
        hidden = self.drop2(self.fc2(hidden))
        betas = self.decshape(hidden) + self.init_shape
        phi = self.decphi(hidden).view(-1, 23, 2)
        cam = self.deccam(hidden) + self.init_cam
        distance = FOCAL / (CROP * cam[:, :1] + 1e-9)
        zero = torch.zeros_like(cam[:, 1:])
        free = _back_project(uvd, zero, distance, cam[:, 1:])
        boxed = free
        if boxes is not None:
            size = boxes[:, 2:] - boxes[:, :2]
            boxed = _back_project(uvd, ((boxes[:, :2] + boxes[:, 2:]) / 2 - image_centre) / size, distance, zero)
        skeleton = boxed - boxed[:, :1]
        pose, _ = solve_pose(skeleton, self.posed_joints.at_rest(betas), phi)
        lift = torch.cat((zero, distance), dim=1)
        return {
            "pose_rotmat": pose,
            "betas": betas,
            "cam": cam,
            "uvd": uvd,
            "heatmap_max": peak,
            "sigma": self.decsigma(hidden).sigmoid()[..., None],
            "phi": phi,
            "skeleton": skeleton,
            "root": boxed[:, 0] + lift,
            "skeleton_no_box": free - free[:, :1],
            "root_no_box": free[:, 0] + lift,
            "feature": maps,
        }

    def _maps(self, images: Tensor) -> list[Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        if not is_foldable(self.preact) or self.deconv_layers._compiled_call_impl is not None:
            maps = self.preact(images)
            return [maps, self.deconv_layers(maps)]
        maps = folded_forward(self.preact, images)
        rising = maps
        for index in range(0, len(self.deconv_layers), 3):
            layer, norm = self.deconv_layers[index], self.deconv_layers[index + 1]
            weight, bias = fold(layer.weight, norm, channel_dim=1)
            rising = nn.functional.conv_transpose2d(rising, weight, bias, layer.stride, layer.padding).relu_()
        return [maps, rising]

    def _places(self, maps: Tensor) -> tuple[Float[Tensor, "B 29 3"], Float[Tensor, "B 29 1"]]:
        """The last convolution has no extent: a matrix product, whose result lies cell by cell."""
        cells, size = maps.permute(0, 2, 3, 1).flatten(1, 2), (_CELLS, _CELLS)
        weight, bias = self.final_layer.weight.flatten(1), self.final_layer.bias
        if maps.device.type == "cpu" and not torch.is_grad_enabled() and not self.half_precision:
            return expected_uvd_by_parts(cells, weight, bias, size, _CELLS)
        return expected_uvd(self.run_heavy(nn.functional.linear, cells, weight, bias), size, _CELLS)

    def answer(self, crops: CropBatch, persons: Sequence[Person]) -> dict[str, Tensor]:
        """``forward`` on inference crops, with their boxes."""
        images, centers, sizes, image_sizes = (
            torch.from_numpy(value).to(self.device)
            for value in (crops.images, crops.box_centers, crops.box_sizes[:, None], crops.image_sizes)
        )
        # The network's middle is pixel 128 of the crop, that of the box pixel 127.5.
        centers = centers + 0.5 * sizes / CROP
        boxes = torch.cat((centers - sizes / 2, centers + sizes / 2), dim=1)
        return self(images, boxes, (image_sizes - 1) / 2)

    def place(self, output: Mapping[str, Tensor], crops: CropBatch) -> tuple[Tensor, Tensor]:
        """As published: the camera's focal length is the crop's, enlarged to the box, so it differs between persons."""
        transl = output["root"] - self.posed_joints.at_rest(output["betas"])[:, 0]
        return transl, torch.from_numpy(crops.box_sizes).to(self.device) * (FOCAL / CROP)

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The published losses, see :mod:`posesyn.estimators.hybrik_losses`."""
        output = self(batch["images"])
        with torch.no_grad():
            labels = self.posed_joints(batch["pose_rotmat"], batch["betas"], batch["transl_cam"])
            twist = twist_of(batch["pose_rotmat"], self.posed_joints.at_rest(batch["betas"]))
        return hybrik_losses(output, batch, labels, twist, self.loss_weights, self.uvd_loss)

    def published_optimizers(self, learning_rate: float | None = None) -> dict[str, Any]:
        """The published Adam, see :mod:`posesyn.estimators.recipes`."""
        return HYBRIK_RECIPE.build(trainable(self.named_parameters(), ["preact."]), learning_rate)


def _back_project(uvd: Tensor, offset: Tensor, distance: Tensor, shift: Tensor) -> Float[Tensor, "B J 3"]:
    """Crop fractions and depths → metres; x and y in the camera, z from the plane at ``distance``."""
    relative = DEPTH_SPAN * uvd[..., 2:]
    flat = (uvd[..., :2] + offset[:, None]) * (CROP / FOCAL) * (relative + distance[:, None])
    return torch.cat((flat - shift[:, None], relative), dim=-1)


def _backbone_of(names: Mapping[str, Tensor]) -> str:
    """Which ResNet a file holds; ResNet-34 if it is none of the known ones, so that the report names what differs."""
    kind = "bottleneck" if any(name.endswith(".conv3.weight") for name in names) else "basic"
    blocks = {int(match[1]) for name in names if (match := _BLOCK.match(name))}
    return _BACKBONES.get((kind, len(blocks)), "resnet50" if kind == "bottleneck" else "resnet34")
