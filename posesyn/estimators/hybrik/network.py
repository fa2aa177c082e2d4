"""HybrIK: joints as volumes of scores, twists as angles, and a SMPL pose from both in closed form."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import roma
import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn import skeletons
from posesyn.data.crops import CropBatch
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.base import PosedJoints, SmplNetwork
from posesyn.estimators.hybrik.losses import CROP, DEPTH_SPAN, FOCAL, HybrikLossWeights, hybrik_losses
from posesyn.estimators.layers import expected_uvd, expected_uvd_by_parts, folded_forward, is_foldable
from posesyn.estimators.losses import HYBRIK_RECIPE, trainable
from posesyn.estimators.weights import OfficialWeights, fold
from posesyn.geometry.rotations import rotation_between
from posesyn.interfaces import BodyModel, EstimatorSpec
from posesyn.types import Person

_BODY_JOINTS = 24
# Roma's other method keeps a tensor from its first call; made in inference mode, it breaks a later backward pass.
_SVD = {"method": "svd"} if "method" in inspect.signature(roma.special_procrustes).parameters else {}


def twist_rotation(axis: Float[Tensor, "... 3"], cos_sin: Float[Tensor, "... 2"]) -> Float[Tensor, "... 3 3"]:
    """Rodrigues' formula for a unit axis and the cosine and sine of the angle."""
    cos, sin = cos_sin[..., 0, None, None], cos_sin[..., 1, None, None]
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return eye + sin * cross + (1 - cos) * (cross @ cross)


def unit_twist(phi: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
    """(cos, sin) of length 1; no twist where a prediction has no direction."""
    size = phi.norm(dim=-1, keepdim=True)
    none = torch.tensor([1.0, 0.0], dtype=phi.dtype, device=phi.device)
    return torch.where(size > 1e-8, phi / size.clamp_min(1e-8), none)


@cache
def _tree() -> tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]:
    """Levels of the tree without the root: joints that turn, their parents, the child each one's bone points to (-1 for
    a joint with several children)."""
    parents = skeletons.get("hybrik29").parents
    levels, level = [], _children(0)
    while level := [joint for joint in level if joint < _BODY_JOINTS]:
        children = [_children(joint) for joint in level]
        bones = tuple(found[0] if len(found) == 1 else -1 for found in children)
        levels.append((tuple(level), tuple(parents[joint] for joint in level), bones))
        level = [child for found in children for child in found]
    return tuple(levels)


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(skeletons.get("hybrik29").parents) if parent == joint]


def solve_pose(
    joints: Float[Tensor, "B 29 3"], rest_joints: Float[Tensor, "B 29 3"], phi: Float[Tensor, "B 23 2"]
) -> tuple[Float[Tensor, "B 24 3 3"], Float[Tensor, "B 29 3"]]:
    """Positions and twists → local rotations.

    Args:
        joints: ``hybrik29``, metres; any origin.
        rest_joints: The same joints of the T-pose with the person's shape.
        phi: Cosine and sine of the twist of the joints 1 to 23, of any length. Row k - 1 belongs to the rotation of
            joint k, about the bone from k to its child. Joints with three children ignore theirs.

    Returns:
        Local rotations, the root's global, and the joints (hybrik29) of the reconstruction, with the root where it was.
    """
    twist = unit_twist(phi)
    # Lists of per-joint tensors: each level reads what the one above it wrote, which autograd forbids in place.
    turned: list[Tensor | None] = [None] * _BODY_JOINTS
    local: list[Tensor | None] = [None] * _BODY_JOINTS
    placed: list[Tensor | None] = [None] * rest_joints.shape[1]
    placed[0] = joints[:, 0]
    turned[0] = local[0] = _fit(joints, rest_joints, placed[0], 0)
    for level, parents, bones in _tree():
        above = torch.stack([turned[parent] for parent in parents], dim=1)
        offset = rest_joints[:, level] - rest_joints[:, parents]
        here = torch.stack([placed[parent] for parent in parents], dim=1) + (above @ offset[..., None])[..., 0]
        # A place of its own for the joints that have no single bone: their result is replaced below.
        child = [bone if bone >= 0 else joint for joint, bone in zip(level, bones)]
        bone = rest_joints[:, child] - rest_joints[:, level]
        seen = (above.transpose(-1, -2) @ (joints[:, child] - here)[..., None])[..., 0]
        axis = bone / bone.norm(dim=-1, keepdim=True).clamp_min(1e-8)
        step = rotation_between(bone, seen) @ twist_rotation(axis, twist[:, [joint - 1 for joint in level]])
        for column, (joint, single) in enumerate(zip(level, bones)):
            placed[joint] = here[:, column]
            if single >= 0:
                local[joint] = step[:, column]
                turned[joint] = above[:, column] @ step[:, column]
            else:
                turned[joint] = _fit(joints, rest_joints, here[:, column], joint)
                local[joint] = above[:, column].transpose(-1, -2) @ turned[joint]
    ends = list(range(_BODY_JOINTS, rest_joints.shape[1]))
    parents = [skeletons.get("hybrik29").parents[end] for end in ends]
    last = torch.stack([turned[parent] for parent in parents], dim=1)
    tips = torch.stack([placed[parent] for parent in parents], dim=1)
    tips = tips + (last @ (rest_joints[:, ends] - rest_joints[:, parents])[..., None])[..., 0]
    return torch.stack(local, dim=1), torch.cat((torch.stack(placed[:_BODY_JOINTS], dim=1), tips), dim=1)


def _fit(
    joints: Float[Tensor, "B J 3"], rest_joints: Float[Tensor, "B J 3"], origin: Float[Tensor, "B 3"], joint: int
) -> Float[Tensor, "B 3 3"]:
    """Global rotation that turns the rest offsets of a joint's children into where they are seen from ``origin``."""
    children = _children(joint)
    seen = joints[:, children] - origin[:, None]
    rest = rest_joints[:, children] - rest_joints[:, joint, None]
    return roma.special_procrustes(seen.transpose(-1, -2) @ rest, **_SVD)


def twist_of(pose_rotmat: Float[Tensor, "B 24 3 3"], rest_joints: Float[Tensor, "B 29 3"]) -> Float[Tensor, "B 23 2"]:
    """Cosine and sine of the twists in a pose: the inverse of :func:`solve_pose`, for training targets.

    Joints with three children have no bone of their own and get no twist (1, 0).
    """
    level = list(range(1, _BODY_JOINTS))
    children = [_children(joint) for joint in level]
    bones = [found[0] if len(found) == 1 else joint for joint, found in zip(level, children)]
    bone = rest_joints[:, bones] - rest_joints[:, level]
    axis = bone / bone.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    rotation = pose_rotmat[:, level]
    swing = rotation_between(axis, (rotation @ axis[..., None])[..., 0])
    twist = swing.transpose(-1, -2) @ rotation
    # trace = 1 + 2 cos; the skew part holds sin times the axis.
    cos = (twist.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    odd = twist - twist.transpose(-1, -2)
    skew = torch.stack((odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]), dim=-1)
    single = torch.tensor([len(found) == 1 for found in children], device=bone.device)[:, None]
    none = torch.tensor([1.0, 0.0], dtype=bone.dtype, device=bone.device)
    return torch.where(single, unit_twist(torch.stack((cos, (skew * axis).sum(-1) / 2), dim=-1)), none)


# Mean and std are numbers for blue, green, red that the published code applies to red, green, blue: so must we
# (Jeff-sjtu/HybrIK).
HYBRIK_SPEC = EstimatorSpec(
    "hybrik", (256, 256), mean=(0.406, 0.457, 0.480), std=(0.225, 0.224, 0.229), box_scale=1.25, focal_length=FOCAL
)
_JOINTS, _CELLS, _DECONV = 29, 64, 256
_IGNORED = ("smpl.",)
_BACKBONES = {
    ("basic", 2): "resnet18", ("basic", 6): "resnet34", ("bottleneck", 6): "resnet50", ("bottleneck", 23): "resnet101",
}  # fmt: skip
_BLOCK = re.compile(r"preact\.layer3\.(\d+)\.")


class HybrIK(SmplNetwork):
    """Image → 29 joints, twists, shape and camera → SMPL pose; a ``TrainableEstimator``.

    Layers, key names and numbers as in Jeff-sjtu/HybrIK with a ResNet. The inverse kinematics is our own, from the
    paper's equations.

    Args:
        backbone: ``resnet34``, ``resnet50`` or another plain ResNet of timm.
        uvd_loss: See :func:`posesyn.estimators.hybrik.losses.hybrik_losses`.
        body: Body model; default the free one in its small version.
        loss_weights: Default: the published ones.
        batch_size: Persons per forward pass in :meth:`predict`.
    """

    heavy_parts = ("preact", "deconv_layers")

    init_shape: Tensor
    init_cam: Tensor

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
            layers.append(nn.ConvTranspose2d(inputs, _DECONV, 4, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(_DECONV), nn.ReLU(inplace=True)]
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
        """The network with the ResNet and the weights of a checkpoint of Jeff-sjtu/HybrIK; the licensed body is
        skipped.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model, the HRNet version included.
        """
        official = OfficialWeights.read(path, _IGNORED)
        if any(name.startswith("preact.stage2.") for name in official.tensors):
            fix = "use the checkpoint of HybrIK with ResNet-34 or ResNet-50"
            raise CheckpointError("a checkpoint of HybrIK has an HRNet", where=official.path,
                                  expected="a ResNet version", fix=fix)  # fmt: skip
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
            "pose_rotmat": pose, "betas": betas, "cam": cam, "uvd": uvd, "heatmap_max": peak,
            "sigma": self.decsigma(hidden).sigmoid()[..., None], "phi": phi, "skeleton": skeleton,
            "root": boxed[:, 0] + lift, "skeleton_no_box": free - free[:, :1], "root_no_box": free[:, 0] + lift,
            "feature": maps,
        }  # fmt: skip

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
        """The published losses, see :mod:`posesyn.estimators.hybrik.losses`."""
        output = self(batch["images"])
        with torch.no_grad():
            labels = self.posed_joints(batch["pose_rotmat"], batch["betas"], batch["transl_cam"])
            twist = twist_of(batch["pose_rotmat"], self.posed_joints.at_rest(batch["betas"]))
        return hybrik_losses(output, batch, labels, twist, self.loss_weights, self.uvd_loss)

    def published_optimizers(self, learning_rate: float | None = None) -> dict[str, Any]:
        """The published Adam, see :mod:`posesyn.estimators.losses`."""
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
