"""SMPL pose from joint positions and twist angles, in closed form.

Written from the equations of Li et al., "HybrIK: A Hybrid Analytical-Neural Inverse Kinematics Solution for 3D Human
Pose and Shape Estimation" (CVPR 2021), section 3: each rotation is a swing, which turns the bone of the rest pose into
the direction where its child is seen, after a twist about the bone, which no joint shows and the network predicts.
Joints with three children are oriented by the least-squares rotation of all three. Adaptive: a child's direction is
taken from where the reconstruction has put its parent, so that errors of bone lengths do not pile up along a limb.
"""

from __future__ import annotations

import inspect
from functools import cache

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from posesyn import skeletons
from posesyn.geometry.rotations import rotation_between

_JOINTS = 24
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
    """Levels of the tree without the root: joints that turn, their parents, the child each one's bone points to.

    A joint with several children has -1 in place of the child.
    """
    parents = skeletons.get("hybrik29").parents
    children = {joint: [c for c, p in enumerate(parents) if p == joint] for joint in range(_JOINTS)}
    levels, level = [], children[0]
    while level := [joint for joint in level if joint < _JOINTS]:
        bones = tuple(children[joint][0] if len(children[joint]) == 1 else -1 for joint in level)
        levels.append((tuple(level), tuple(parents[joint] for joint in level), bones))
        level = [child for joint in level for child in children[joint]]
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
    turned: list[Tensor | None] = [None] * _JOINTS
    local: list[Tensor | None] = [None] * _JOINTS
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
    ends = list(range(_JOINTS, rest_joints.shape[1]))
    parents = [skeletons.get("hybrik29").parents[end] for end in ends]
    last = torch.stack([turned[parent] for parent in parents], dim=1)
    tips = torch.stack([placed[parent] for parent in parents], dim=1)
    tips = tips + (last @ (rest_joints[:, ends] - rest_joints[:, parents])[..., None])[..., 0]
    return torch.stack(local, dim=1), torch.cat((torch.stack(placed[:_JOINTS], dim=1), tips), dim=1)


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
    level = list(range(1, _JOINTS))
    children = [_children(joint) for joint in level]
    bones = [found[0] if len(found) == 1 else joint for joint, found in zip(level, children)]
    bone = rest_joints[:, bones] - rest_joints[:, level]
    axis = bone / bone.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    rotation = pose_rotmat[:, level]
    swing = rotation_between(axis, (rotation @ axis[..., None])[..., 0])
    twist = swing.transpose(-1, -2) @ rotation
    # trace = 1 + 2 cos; the skew part holds sin times the axis.
    cos = (twist.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    skew = torch.stack(
        (twist[..., 2, 1] - twist[..., 1, 2], twist[..., 0, 2] - twist[..., 2, 0], twist[..., 1, 0] - twist[..., 0, 1]),
        dim=-1,
    )
    single = torch.tensor([len(found) == 1 for found in children], device=bone.device)[:, None]
    none = torch.tensor([1.0, 0.0], dtype=bone.dtype, device=bone.device)
    return torch.where(single, unit_twist(torch.stack((cos, (skew * axis).sum(-1) / 2), dim=-1)), none)
