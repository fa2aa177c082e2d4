"""3DCrowdNet: a crop and a 2D pose in it → SMPL pose, shape and translation of the person that the pose points at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float
from torch import Tensor

from posesyn import skeletons
from posesyn.data.crops import CropBatch
from posesyn.errors import InputError
from posesyn.estimators.base import PosedJoints, SmplNetwork
from posesyn.estimators.crowdnet.layers import HeatmapFusion, PosePrior, PositionNet, RotationNet, body_pose_of
from posesyn.estimators.crowdnet.pose_noise import PoseNoise
from posesyn.estimators.layers import folded_stages, folded_stem, gaussian_heatmaps, is_foldable
from posesyn.estimators.losses import CROWDNET_RECIPES, require, trainable
from posesyn.estimators.weights import OfficialWeights
from posesyn.geometry.cameras import apply_affine
from posesyn.geometry.rotations import matrix_to_rotvec, rot6d_to_matrix
from posesyn.interfaces import BodyModel, EstimatorSpec
from posesyn.storage.seeds import rng_of
from posesyn.types import Person

# Side of the crop in pixels, cells of the heatmaps, and metres that their depth spans around the pelvis.
CROP, GRID, DEPTH_SPAN = 256, 64, 2.0
# SMPL joints whose rotation a skeleton does not show: ankles, feet, wrists, hands.
_UNSEEN = (7, 8, 10, 11, 20, 21, 22, 23)
_LARGEST_BETA = 3.0
_TO_30 = torch.from_numpy(skeletons.mapping("smpl45", "smpl30", approximate=False))
_TO_15 = skeletons.mapping("smpl30", "graph15", approximate=False).tolist()
_NEEDED = ("keypoints_px", "visible", "has_labels", "joints", "pose_rotmat", "betas", "transl_cam", "intrinsics")


@dataclass(frozen=True)
class CrowdNetLossWeights:
    """Weights of hongsukchoi/3DCrowdNet_RELEASE."""

    body_joint_img: float = 1 / 8
    smpl_joint_img: float = 1 / 8
    smpl_pose: float = 1.0
    smpl_shape: float = 1.0
    body_joint_proj: float = 1 / 8
    body_joint_cam: float = 1.0
    smpl_joint_cam: float = 1.0


def crowdnet_losses(
    prediction: Mapping[str, Tensor], batch: Mapping[str, Tensor], labels30: Float[Tensor, "B 30 3"],
    weights: CrowdNetLossWeights,
) -> dict[str, Tensor]:  # fmt: skip
    """The published losses (``common/nets``), weighted; their sum is minimised. Absolute errors, means over all
    elements, masked too.

    ``body_*`` compare with the data set's own joints, ``smpl_*`` with those of the body fitted to them. Rendered data
    has no fit apart from its labels: there both are the same, and the 2D annotation is the visible part of it. Betas
    above 3 are taken as zero.

    Args:
        prediction: ``joint_img`` (B, 15, 3) cells, ``joints30`` (B, 30, 3) metres from the pelvis, ``joint_proj``
            (B, 30, 2) cells, ``pose`` (B, 72), ``betas`` (B, 10).
        batch: See :mod:`posesyn.data.batches`.
        labels30: The labelled body in the camera of the crop, metres; meaningless where there are no labels.
        weights: See there.

    Raises:
        InputError: A key is missing from the batch.
    """
    require(batch, _NEEDED)
    labelled = batch["has_labels"][:, None].to(prediction["pose"])
    annotated, seen = annotated_places(batch)
    relative = labels30 - labels30[:, :1]
    depth = (relative[..., 2:] / (DEPTH_SPAN / 2) + 1) / 2 * GRID
    fitted = project_to_grid(labels30, batch["intrinsics"])
    inside = ((fitted >= 0) & (fitted < GRID)).all(-1).to(labelled) * labelled
    target = torch.where(batch["betas"].abs().amax(1, keepdim=True) > _LARGEST_BETA, 0, batch["betas"])
    pose = matrix_to_rotvec(batch["pose_rotmat"]).flatten(1)
    shown = torch.ones(24, 3).to(labelled)
    shown[list(_UNSEEN)] = 0
    body_mask = torch.stack((seen, seen, seen * labelled), dim=-1)[:, _TO_15]
    placed = torch.cat((annotated, depth), dim=-1)[:, _TO_15]
    terms = {
        "body_joint_img": _masked_l1(prediction["joint_img"], placed, body_mask),
        "smpl_joint_img": _masked_l1(
            prediction["joint_img"], torch.cat((fitted, depth), dim=-1)[:, _TO_15], inside[:, _TO_15, None]
        ),
        "smpl_pose": _masked_l1(prediction["pose"], pose, labelled * shown.flatten()),
        "smpl_shape": _masked_l1(prediction["betas"], target, labelled),
        "body_joint_proj": _masked_l1(prediction["joint_proj"], annotated, seen[..., None]),
        "body_joint_cam": _masked_l1(prediction["joints30"], relative, (seen * labelled)[..., None]),
        "smpl_joint_cam": _masked_l1(prediction["joints30"], relative, labelled[..., None]),
    }
    return {name: value * getattr(weights, name) for name, value in terms.items()}


def annotated_places(batch: Mapping[str, Tensor]) -> tuple[Float[Tensor, "B 30 2"], Tensor]:
    """The 2D annotation in cells and (B, 30) 1.0 where it is there and inside the crop."""
    rows = _TO_30.to(batch["visible"].device)
    keypoints = batch["keypoints_px"][:, rows.clamp_min(0)]
    inside = ((keypoints >= 0) & (keypoints < CROP)).all(-1)
    seen = batch["visible"][:, rows.clamp_min(0)] & (rows >= 0) & inside
    return keypoints * (GRID / CROP), seen.to(keypoints)


def project_to_grid(joints_cam: Float[Tensor, "B J 3"], intrinsics: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B J 2"]:
    """Pinhole projection to cells, with the published 1e-4 m added to the depth."""
    rays = joints_cam / (joints_cam[..., 2:] + 1e-4)
    return (rays @ intrinsics.transpose(-1, -2))[..., :2] * (GRID / CROP)


def _masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    # where, and not a product: what is masked may be anything, infinities included.
    mask = mask.expand_as(prediction)
    return torch.where(mask > 0, (prediction - target).abs(), torch.zeros_like(prediction)).mean()


# No mean and std; box cut at the image, square, x 1.25; COCO joints, pelvis and neck, as in 3DCrowdNet_RELEASE.
CROWDNET_SPEC = EstimatorSpec(
    "crowdnet",
    input_size=(256, 256),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    box_scale=1.25,
    box_clip=True,
    keypoints_skeleton="coco19",
    camera="translation",
    rot6d_layout="interleaved",
    neighbours=4,  # our own choice
)
# hongsukchoi/3DCrowdNet_RELEASE: sqrt(f² · 2.5 m² / 256²), the depth at which 2.5 m fill the crop.
_DEPTH_SCALE = 5000.0 * 2.5 / CROP
# The published principal point; the middle of the crop is at 127.5 here.
_PRINCIPAL = 128.0
_IGNORED = ("human_model_layer.",)
_NOISE = PoseNoise()


class CrowdNet(SmplNetwork):
    """A crop and 2D joints → SMPL body; a ``TrainableEstimator``.

    Layers, key names and numbers as in hongsukchoi/3DCrowdNet_RELEASE. The pose is decoded by VPoser, whose licensed
    weights come with official checkpoints.

    Args:
        prior: ``frozen`` keeps the pose decoder as loaded. ``trained`` trains it along, for a network that starts
            without official weights: at random it knows nothing of poses.
        noise: How the input pose is corrupted in training; None feeds it as annotated, which is another input than the
            published network was made for.
        body: Body model; default the free one in its small version.
        loss_weights: Default: the published ones.
        batch_size: Persons per forward pass in :meth:`predict`.
    """

    heavy_parts = ("backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4")

    def __init__(
        self,
        *,
        prior: str = "frozen",
        noise: PoseNoise | None = _NOISE,
        body: BodyModel | None = None,
        loss_weights: CrowdNetLossWeights | None = None,
        batch_size: int = 64,
    ) -> None:
        super().__init__(CROWDNET_SPEC, body, batch_size)
        if prior not in ("frozen", "trained"):
            raise InputError("unknown pose prior", where="CrowdNet", expected="'frozen' or 'trained'", got=prior)
        self.backbone = timm.create_model("resnet50", pretrained=False, num_classes=0, global_pool="")
        self.pose2feat = HeatmapFusion()
        self.position_net = PositionNet()
        self.rotation_net = RotationNet()
        self.vposer = PosePrior(frozen=prior == "frozen")
        self.to(memory_format=torch.channels_last)
        self.posed_joints = PosedJoints(self.body, "smpl30")
        self.noise = noise
        self.loss_weights = loss_weights or CrowdNetLossWeights()

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], **options: Any) -> CrowdNet:
        """The network with weights from a ``snapshot_N.pth.tar`` of 3DCrowdNet; the licensed body in it is skipped.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model.
        """
        official = OfficialWeights.read(path, _IGNORED)
        model = cls(**options)
        official.load_into(model)
        return model.eval()

    def forward(
        self, images: Float[Tensor, "B 3 256 256"], joints: Float[Tensor, "B 30 2"],
        joints_mask: Float[Tensor, "B 30 1"],
    ) -> dict[str, Tensor]:  # fmt: skip
        """One pass.

        Args:
            images: Crops.
            joints: ``smpl30`` in cells of a 64 x 64 grid (crop pixels / 4).
            joints_mask: 1 where a joint is known and inside the crop, else 0.

        Returns:
            ``pose_rotmat`` (B, 24, 3, 3) and the same as ``pose`` (B, 72) rotation vectors; ``betas`` (B, 10); ``cam``
            (B, 3) raw; ``cam_t`` (B, 3) metres, focal length 5000, principal point (128, 128) of the crop;
            ``joint_img`` (B, 15, 3) cells; ``joint_score`` (B, 15, 1); ``root_rot6d`` (B, 6); ``z`` (B, 32);
            ``pose2feat`` (B, 64, 64, 64); ``feature`` (B, 2048, 8, 8); ``graph_adj`` (15, 15).

        Raises:
            InputError: Wrong shapes.
        """
        self.check_images(images)
        batch = len(images)
        got, wanted = (tuple(joints.shape), tuple(joints_mask.shape)), ((batch, 30, 2), (batch, 30, 1))
        if got != wanted:
            expected = f"joints {wanted[0]} and joints_mask {wanted[1]}"
            raise InputError("the 2D pose has the wrong shape", where="estimator 'crowdnet'", expected=expected,
                             got=f"{got[0]} and {got[1]}")  # fmt: skip
        heatmaps = gaussian_heatmaps(joints, joints_mask, GRID)
        early, maps = self.run_heavy(self._maps, images, heatmaps)
        places, scores = self.position_net(maps)
        root6d, latent, betas, cam = self.rotation_net(maps, places, scores)
        root = rot6d_to_matrix(root6d, layout=self.spec.rot6d_layout)
        pose = body_pose_of(self.vposer(latent), root)
        depth = _DEPTH_SCALE * torch.sigmoid(cam[:, 2:])
        return {
            "pose_rotmat": pose, "pose": matrix_to_rotvec(pose).flatten(1), "betas": betas, "cam": cam,
            "cam_t": torch.cat((cam[:, :2], depth), dim=1), "joint_img": places * 8, "joint_score": scores,
            "root_rot6d": root6d, "z": latent, "pose2feat": early, "feature": maps,
            "graph_adj": self.rotation_net.adjacency,
        }  # fmt: skip

    def _maps(self, images: Tensor, heatmaps: Tensor) -> list[Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        trunk = self.backbone
        if is_foldable(trunk) and trunk.layer1._compiled_call_impl is None:
            early = self.pose2feat(folded_stem(trunk, images), heatmaps)
            return [early, folded_stages(trunk, early)]
        early = self.pose2feat(trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(images)))), heatmaps)
        return [early, trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(early))))]

    def answer(self, crops: CropBatch, persons: Sequence[Person]) -> dict[str, Tensor]:
        """``forward`` on inference crops and the persons' own keypoints, of any skeleton."""
        poses = [self._input_pose(person, affine) for person, affine in zip(persons, crops.affines)]
        joints, mask = (torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*poses))
        return self(torch.from_numpy(crops.images).to(self.device), joints, mask)

    def _input_pose(self, person: Person, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keypoints, visible = skeletons.convert(person.keypoints_px, person.skeleton, "coco17", person.visible)
        joints, mask = to_input_pose(apply_affine(affine, keypoints), visible)
        if not mask.any():
            raise InputError(
                "the estimator needs 2D keypoints, and the person has none that it can use",
                where=f"person '{person.person_id}', estimator 'crowdnet'",
                expected="at least one visible joint of 'coco17' inside the box",
                got=f"{int(person.visible.sum())} visible joints of '{person.skeleton}'",
                fix="run a 2D detector first, or leave the person out",
            )
        return joints, mask

    def weak_camera(self, output: Mapping[str, Tensor]) -> Tensor:
        """The translation as (s, tx, ty), moved from the published principal point to the middle of the crop."""
        x, y, depth = output["cam_t"].unbind(1)
        focal = self.spec.focal_length
        shift = (_PRINCIPAL - (CROP - 1) / 2) * depth / focal
        return torch.stack((2 * focal / (CROP * depth), x + shift, y + shift), dim=1)

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The published losses, see :func:`crowdnet_losses`, on corrupted input poses.

        Joints are swapped with those of the neighbours that the batch holds (``EstimatorSpec.neighbours``).
        """
        output = self.answer_batch(batch)
        placed = self.posed_joints(output["pose_rotmat"], output["betas"], output["cam_t"])
        focal = self.spec.focal_length
        camera = placed.new_tensor([[focal, 0, _PRINCIPAL], [0, focal, _PRINCIPAL], [0, 0, 1]])
        projected = project_to_grid(placed, camera[None])
        prediction = {**output, "joints30": placed - placed[:, :1], "joint_proj": projected}
        with torch.no_grad():
            labels = self.posed_joints(batch["pose_rotmat"], batch["betas"], batch["transl_cam"])
        return crowdnet_losses(prediction, batch, labels, self.loss_weights)

    def answer_batch(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """``forward`` with the batch's own 2D poses, corrupted as in :meth:`training_poses`."""
        joints, mask = self.training_poses(batch)
        return self(batch["images"], joints.to(self.device), mask.to(self.device))

    def training_poses(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Input poses (B, 30, 2) and masks (B, 30, 1) of a training batch, corrupted unless ``noise`` is None.

        The draw depends on the noise's seed, the person and the number of the batch only.
        """
        points, visible = _to_coco(batch["keypoints_px"], batch["visible"])
        near: list[Any] = []
        if "neighbours_px" in batch:
            near = list(zip(*_to_coco(batch["neighbours_px"], batch["neighbours_visible"])))
        poses = []
        for row, name in enumerate(batch["person_ids"]):
            pose = points[row]
            if self.noise is not None:
                rng = rng_of(self.noise.seed, f"pose-noise/{name}/{batch.get('batch_index', 0)}")
                pose, _ = self.noise.corrupt(pose, visible[row], rng, *(near[row] if near else ()))
            poses.append(to_input_pose(pose, visible[row]))
        joints, mask = (torch.from_numpy(np.stack(part)) for part in zip(*poses))
        return joints, mask

    def published_optimizers(self, learning_rate: float | None = None, recipe: str = "3dpw_crowd") -> dict[str, Any]:
        """One of the two published trainings, see :mod:`posesyn.estimators.losses`."""
        if recipe not in CROWDNET_RECIPES:
            raise InputError("unknown recipe", where="CrowdNet", expected=sorted(CROWDNET_RECIPES), got=recipe)
        return CROWDNET_RECIPES[recipe].build(trainable(self.named_parameters(), ["backbone."]), learning_rate)


def _to_coco(points: Tensor, visible: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return skeletons.convert(points.cpu().numpy(), "smpl45", "coco17", visible.cpu().numpy())


def to_input_pose(keypoints_px: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ``coco17`` pose in crop pixels → what the network takes: (30, 2) float32 cells and (30, 1) float32 mask, known
    and inside the crop. Pelvis and neck are added as midpoints."""
    points, known = skeletons.add_midpoints(keypoints_px, visible)
    points, known = skeletons.convert(points, "coco19", "smpl30", known)
    inside = ((points >= 0) & (points < CROP)).all(-1)
    mask = (known & inside).astype(np.float32)[:, None]
    return (points * (GRID / CROP)).astype(np.float32), mask
