"""Camera frame → normalised image coordinates, differentiable (jfzhang95/PoseAug, common/camera.py)."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posesyn import skeletons
from posesyn.errors import InputError

SKELETON = "poseaug16"
JOINTS, BONES = 16, 15
PARENTS = skeletons.get(SKELETON).parents
# Shortest length that is divided by; mocap has no bone this short.
_TINY = 1e-12

# Bone → ratio of BL (PoseAug, utils/gan_utils.py): hips, thighs, shins, spine, thorax, head, shoulders, upper arms,
# forearms.
RATIO_OF_BONE = (0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8)
RATIOS = 9
# "A tall person far away looks like a short one near": the thorax keeps its length (comment in the official code).
FIXED_RATIO = 4
# Pelvis-spine and spine-thorax keep their direction, so that the whole body cannot turn at no cost.
FROZEN_BONES = (6, 7)
# KCS parts by bone, in the order of the discriminator's branches: left arm, right arm, right leg, left leg, trunk.
KCS_PARTS = ((7, 9, 10, 11), (7, 12, 13, 14), (0, 1, 2, 3, 6), (0, 3, 4, 5, 6), (0, 3, 6, 7, 8, 9, 12))


@cache
def _matrices() -> tuple[np.ndarray, np.ndarray]:
    """(45, 48) joints → bones and (48, 45) bones → joints with the root at 0, for flattened poses."""
    to_bones, to_joints = np.zeros((BONES, JOINTS)), np.zeros((JOINTS, BONES))
    for bone in range(BONES):
        child, parent = bone + 1, PARENTS[bone + 1]
        to_bones[bone, parent], to_bones[bone, child] = 1.0, -1.0
        to_joints[child] = to_joints[parent]
        to_joints[child, bone] = -1.0
    return np.kron(to_bones, np.eye(3)), np.kron(to_joints, np.eye(3))


@cache
def _on_device(which: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Outside inference mode: a tensor made inside one could never take part in a backward pass.
    with torch.inference_mode(False):
        return torch.as_tensor(_matrices()[which].T.copy(), dtype=dtype, device=device)


def bone_vectors(joints: Float[Tensor, "*batch 16 3"]) -> Float[Tensor, "*batch 15 3"]:
    """Parent minus child of each of the 15 bones, in the unit of the joints. InputError: not 16 joints."""
    check_joints(joints, "bone_vectors")
    flat = joints.reshape(*joints.shape[:-2], 3 * JOINTS)
    return (flat @ _on_device(0, joints.dtype, joints.device)).unflatten(-1, (BONES, 3))


def joints_from_bones(bones: Float[Tensor, "*batch 15 3"]) -> Float[Tensor, "*batch 16 3"]:
    """Joints with the root at the origin."""
    if bones.shape[-2:] != (BONES, 3):
        raise InputError("bones must be (..., 15, 3)", where="joints_from_bones", got=tuple(bones.shape))
    flat = bones.reshape(*bones.shape[:-2], 3 * BONES)
    return (flat @ _on_device(1, bones.dtype, bones.device)).unflatten(-1, (JOINTS, 3))


def bone_lengths(bones: Float[Tensor, "*batch 15 3"]) -> Float[Tensor, "*batch 15"]:
    """Lengths; the gradient of a bone of length zero is zero, not NaN."""
    return bones.square().sum(-1).clamp_min(_TINY * _TINY).sqrt()


def unit_bones(bones: Float[Tensor, "*batch 15 3"]) -> Float[Tensor, "*batch 15 3"]:
    """Directions."""
    return bones / bone_lengths(bones)[..., None]


def with_bone_lengths(
    joints: Float[Tensor, "*batch 16 3"], lengths: Float[Tensor, "*batch 15"]
) -> Float[Tensor, "*batch 16 3"]:
    """The same bone directions with other lengths (bone-length swap); the root stays where it is."""
    moved = joints_from_bones(unit_bones(bone_vectors(joints)) * lengths[..., None])
    return moved + joints[..., :1, :]


def check_joints(joints: Tensor, where: str) -> None:
    """Raises InputError unless the last two axes are (16, 3)."""
    if joints.ndim < 2 or tuple(joints.shape[-2:]) != (JOINTS, 3):
        raise InputError(
            f"poses must be (..., {JOINTS}, 3) in the order '{SKELETON}'",
            where=where,
            got=tuple(joints.shape),
            fix="convert them with skeletons.convert(points, source, 'poseaug16')",
        )


CAMERA_SIZE = 9  # fx, fy, cx, cy, k1, k2, k3, p1, p2


def project_normalised(
    points_cam: Float[Tensor, "*batch J 3"], camera: Float[Tensor, "*batch 9"]
) -> Float[Tensor, "*batch J 2"]:
    """Pinhole with radial and tangential distortion, as the official code has it.

    Rays are clamped to ±1 (45 degrees), where the gradient is zero. The result is in units in which the image is 2 wide
    and 2 h/w high, the middle of the image at the origin if the principal point is there.

    Args:
        points_cam: Metres, z forward.
        camera: fx, fy, cx, cy, k1, k2, k3, p1, p2, all for those units (fx = 2 · focal in pixels / width).

    Raises:
        InputError: Wrong shapes.
    """
    if points_cam.shape[-1] != 3 or camera.shape[-1] != CAMERA_SIZE:
        problem, got = "projection needs points (..., J, 3) and cameras (..., 9)", (points_cam.shape, camera.shape)
        raise InputError(problem, where="project_normalised", got=tuple(map(tuple, got)))
    camera = camera[..., None, :]
    focal, center, k, p = camera[..., :2], camera[..., 2:4], camera[..., 4:7], camera[..., 7:9]
    rays = (points_cam[..., :2] / points_cam[..., 2:]).clamp(-1, 1)
    square = rays.square().sum(-1, keepdim=True)
    radial = 1 + square * (k[..., :1] + square * (k[..., 1:2] + square * k[..., 2:]))
    tangential = (p * rays).sum(-1, keepdim=True)
    return focal * (rays * (radial + tangential) + p * square) + center
