"""Joints-only forward kinematics, local and global rotations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from posesyn.errors import InputError


@lru_cache(maxsize=64)
def _levels(parents: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Joints by depth, each level with the positions of the parents inside the level above."""
    roots = tuple(j for j, parent in enumerate(parents) if parent < 0)
    if len(roots) != 1:
        raise InputError("parents must have exactly one root (-1)", got=parents)
    levels: list[tuple[tuple[int, ...], tuple[int, ...]]] = [(roots, ())]
    placed = 1
    while placed < len(parents):
        above = levels[-1][0]
        joints = tuple(j for j, parent in enumerate(parents) if parent in above)
        if not joints:
            raise InputError("parents do not form one tree", got=parents)
        levels.append((joints, tuple(above.index(parents[j]) for j in joints)))
        placed += len(joints)
    return tuple(levels)


def _check_rotations(rotmat: Tensor, parents: Sequence[int], name: str) -> tuple[int, ...]:
    wanted = f"(..., {len(parents)}, 3, 3)"
    if tuple(rotmat.shape[-3:]) != (len(parents), 3, 3):
        raise InputError(f"{name} has the wrong shape", expected=wanted, got=tuple(rotmat.shape))
    return tuple(int(parent) for parent in parents)


def _check_offsets(value: Tensor, parents: Sequence[int], name: str) -> None:
    if tuple(value.shape[-2:]) != (len(parents), 3):
        wanted = f"(..., {len(parents)}, 3)"
        raise InputError(f"{name} has the wrong shape", expected=wanted, got=tuple(value.shape))


def forward_kinematics(
    local_rotmat: Float[Tensor, "... J 3 3"],
    offsets: Float[Tensor, "... J 3"],
    parents: Sequence[int],
    root: Float[Tensor, "... 3"] | None = None,
) -> tuple[Float[Tensor, "... J 3"], Float[Tensor, "... J 3 3"]]:
    """Joint positions of a posed tree.

    Args:
        local_rotmat: Rotation of each joint relative to its parent; the root's is global.
        offsets: Position of each joint relative to its parent in the rest pose, metres. Batch dimensions broadcast with
            those of ``local_rotmat``, so one skeleton (J, 3) serves all frames.
        parents: Parent of each joint, -1 for the root; any order.
        root: Position of the root joint, or None for its own offset.

    Returns:
        Joints (..., J, 3) and global rotations (..., J, 3, 3).

    Raises:
        InputError: Wrong shapes, or ``parents`` is not one tree.
    """
    parents = _check_rotations(local_rotmat, parents, "local_rotmat")
    _check_offsets(offsets, parents, "offsets")
    global_rotmat = local_to_global(local_rotmat, parents)
    levels = _levels(parents)
    top = levels[0][0][0]
    start = offsets[..., top, :] if root is None else root
    batch = torch.broadcast_shapes(global_rotmat.shape[:-3], offsets.shape[:-2], start.shape[:-1])
    positions = [start.expand(*batch, 3)[..., None, :]]
    for joints, above in levels[1:]:
        turned = global_rotmat[..., [parents[j] for j in joints], :, :] @ offsets[..., list(joints), :, None]
        positions.append(positions[-1][..., list(above), :] + turned[..., 0])
    joints_at = torch.cat(positions, dim=-2)[..., _original_order(levels), :]
    return joints_at, global_rotmat.expand(*batch, len(parents), 3, 3)


def local_to_global(
    local_rotmat: Float[Tensor, "*batch J 3 3"], parents: Sequence[int]
) -> Float[Tensor, "*batch J 3 3"]:
    """Rotations relative to the parent → rotations in the frame of the root's parent (world or camera)."""
    parents = _check_rotations(local_rotmat, parents, "local_rotmat")
    levels = _levels(parents)
    result = [local_rotmat[..., list(levels[0][0]), :, :]]
    for joints, above in levels[1:]:
        result.append(result[-1][..., list(above), :, :] @ local_rotmat[..., list(joints), :, :])
    return torch.cat(result, dim=-3)[..., _original_order(levels), :, :]


def global_to_local(
    global_rotmat: Float[Tensor, "*batch J 3 3"], parents: Sequence[int]
) -> Float[Tensor, "*batch J 3 3"]:
    """Inverse of :func:`local_to_global`."""
    parents = _check_rotations(global_rotmat, parents, "global_rotmat")
    top = _levels(parents)[0][0][0]
    above = [parent if parent >= 0 else j for j, parent in enumerate(parents)]
    local = global_rotmat[..., above, :, :].transpose(-1, -2) @ global_rotmat
    is_root = torch.arange(len(parents), device=global_rotmat.device) == top
    return torch.where(is_root[:, None, None], global_rotmat, local)


def _original_order(levels: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]) -> list[int]:
    order = [j for joints, _ in levels for j in joints]
    return sorted(range(len(order)), key=order.__getitem__)


def offsets_from_joints(
    rest_joints: Float[Tensor, "*batch J 3"], parents: Sequence[int]
) -> Float[Tensor, "*batch J 3"]:
    """Rest-pose joint positions → position of each joint relative to its parent; the root keeps its position."""
    _check_offsets(rest_joints, parents, "rest_joints")
    is_root = torch.tensor([parent < 0 for parent in parents], device=rest_joints.device)
    difference = rest_joints - rest_joints[..., [max(parent, 0) for parent in parents], :]
    return torch.where(is_root[:, None], rest_joints, difference)
