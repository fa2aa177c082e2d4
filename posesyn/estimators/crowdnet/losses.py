"""3DCrowdNet's training losses (``common/nets``): absolute errors, means over all elements, masked too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from posesyn import skeletons
from posesyn.estimators.base import require
from posesyn.geometry.rotations import matrix_to_rotvec

# Cells of the heatmaps, and metres that their depth spans around the pelvis.
GRID, DEPTH_SPAN = 64.0, 2.0
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
    prediction: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    labels30: Float[Tensor, "B 30 3"],
    weights: CrowdNetLossWeights,
    crop_size: int = 256,
) -> dict[str, Tensor]:
    """Weighted losses; their sum is minimised.

    ``body_*`` compare with the data set's own joints, ``smpl_*`` with those of the body fitted to them. Rendered data
    has no fit apart from its labels: there both are the same, and the 2D annotation is the visible part of it. Betas
    above 3 are taken as zero.

    Args:
        prediction: ``joint_img`` (B, 15, 3) cells, ``joints30`` (B, 30, 3) metres from the pelvis, ``joint_proj``
            (B, 30, 2) cells, ``pose`` (B, 72), ``betas`` (B, 10).
        batch: See :mod:`posesyn.data.batches`.
        labels30: The labelled body in the camera of the crop, metres; meaningless where there are no labels.
        weights: See there.
        crop_size: Side of the crop in pixels.

    Raises:
        InputError: A key is missing from the batch.
    """
    require(batch, _NEEDED)
    labelled = batch["has_labels"][:, None].to(prediction["pose"])
    annotated, seen = annotated_places(batch, crop_size)
    relative = labels30 - labels30[:, :1]
    depth = (relative[..., 2:] / (DEPTH_SPAN / 2) + 1) / 2 * GRID
    fitted = project_to_grid(labels30, batch["intrinsics"], crop_size)
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


def annotated_places(batch: Mapping[str, Tensor], crop_size: int) -> tuple[Float[Tensor, "B 30 2"], Tensor]:
    """The 2D annotation in cells and (B, 30) 1.0 where it is there and inside the crop."""
    rows = _TO_30.to(batch["visible"].device)
    keypoints = batch["keypoints_px"][:, rows.clamp_min(0)]
    inside = ((keypoints >= 0) & (keypoints < crop_size)).all(-1)
    seen = batch["visible"][:, rows.clamp_min(0)] & (rows >= 0) & inside
    return keypoints * (GRID / crop_size), seen.to(keypoints)


def project_to_grid(
    joints_cam: Float[Tensor, "B J 3"], intrinsics: Float[Tensor, "B 3 3"], crop_size: int
) -> Float[Tensor, "B J 2"]:
    """Pinhole projection to cells, with the published 1e-4 m added to the depth."""
    rays = joints_cam / (joints_cam[..., 2:] + 1e-4)
    return (rays @ intrinsics.transpose(-1, -2))[..., :2] * (GRID / crop_size)


def _masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    # where, and not a product: what is masked may be anything, infinities included.
    mask = mask.expand_as(prediction)
    return torch.where(mask > 0, (prediction - target).abs(), torch.zeros_like(prediction)).mean()
