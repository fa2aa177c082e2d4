"""Mocap rotations to SMPL rotations: rest-pose correction, body proportions, limbs aimed at the mocap joints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from posesyn.body import inverse_kinematics
from posesyn.geometry.kinematics import forward_kinematics, global_to_local, offsets_from_joints

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
JOINTS = 22
# The one child that a joint's bone points to. Pelvis and upper spine carry three bones and are fitted to all of them.
# Wrists continue the forearm's correction, head and toes need none (both rest poses look ahead, upright).
_CHILD = {1: 4, 2: 5, 3: 6, 4: 7, 5: 8, 6: 9, 7: 10, 8: 11, 12: 15, 13: 16, 14: 17, 16: 18, 17: 19, 18: 20, 19: 21}
_CHILDREN = {0: [1, 2, 3], 9: [12, 13, 14]}
_FOLLOWS = {20: 18, 21: 19}
# Our own choice: keeps a fitted shape inside the range of real people where bone lengths leave it open.
_BETA_RIDGE = 0.01  # metres per unit of beta
REFINE_STEPS = 8


def fit_shape(lengths: np.ndarray, body: Any, betas: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Shape and scale at which the bones of ``body`` fit a mocap skeleton.

    Least squares over the 21 bone lengths with a ridge on the betas, linearised at the current shape; the remaining
    misfit of size goes into the scale, which multiplies the mocap.

    Args:
        lengths: (21,) bone lengths of joints 1..21, metres.
        body: A body with ``rest_joints``.
        betas: (10,) shape to keep; only the scale is fitted then.

    Returns:
        betas (10,) float32 and the factor that brings the mocap to the body's size.
    """
    fixed, betas = betas is not None, np.zeros(10) if betas is None else np.asarray(betas, np.float64)
    for _ in range(0 if fixed else 5):
        own, jacobian = _lengths_and_jacobian(betas, body)
        system = np.concatenate([jacobian, np.eye(10) * _BETA_RIDGE])
        residual = np.concatenate([lengths - own, -betas * _BETA_RIDGE])
        betas = betas + np.linalg.lstsq(system, residual, rcond=None)[0]
    own = bone_lengths(_rest(betas, body))
    return betas.astype(np.float32), float(own @ lengths / (lengths @ lengths))


def rest_correction(source_rest: np.ndarray, body_rest: np.ndarray) -> np.ndarray:
    """(22, 3, 3) rotations that bring the body's rest pose to the source's rest pose, bone by bone.

    Each is the shortest arc from the body's bone to the source's bone at rest, so it adds no twist: CMU's legs
    spread by 20 degrees become a turn about z, arms that hang at rest a turn of 90 degrees.

    Args:
        source_rest: (22, 3) source joints at rest, facing +z.
        body_rest: (22, 3) or (24, 3) joints of the body at rest, facing +z.
    """
    corrections = np.tile(np.eye(3), (JOINTS, 1, 1))
    for joint, child in _CHILD.items():
        corrections[joint] = shortest_arc(body_rest[child] - body_rest[joint], source_rest[child] - source_rest[joint])
    for joint, children in _CHILDREN.items():
        bones, source = body_rest[children] - body_rest[joint], source_rest[children] - source_rest[joint]
        corrections[joint] = Rotation.align_vectors(source, bones)[0].as_matrix()
    for joint, before in _FOLLOWS.items():
        corrections[joint] = corrections[before]
    return corrections


def aim(rotations: np.ndarray, targets: np.ndarray, body_rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns each bone, from the root outwards, by the shortest arc that points it at the target of its child.

    Args:
        rotations: (T, 22, 3, 3) global rotations of the body's bones; their twist is kept.
        targets: (T, 22, 3) metres.
        body_rest: (24, 3) rest joints of the body.

    Returns:
        Global rotations (T, 22, 3, 3) and the body's joints (T, 22, 3), moved as a whole so that their mean lies on
        the targets' mean in each frame.
    """
    rotations, joints = rotations.copy(), np.empty_like(targets)
    joints[:, 0] = targets[:, 0]
    for joint in range(JOINTS):
        if joint:
            parent = PARENTS[joint]
            joints[:, joint] = joints[:, parent] + rotations[:, parent] @ (body_rest[joint] - body_rest[parent])
        if joint in _CHILD:
            child = _CHILD[joint]
            bone = rotations[:, joint] @ (body_rest[child] - body_rest[joint])
            turn = shortest_arc(bone, targets[:, child] - joints[:, joint])
            rotations[:, joint] = turn @ rotations[:, joint]
            follower = next((f for f, before in _FOLLOWS.items() if before == joint), None)
            if follower is not None:
                rotations[:, follower] = turn @ rotations[:, follower]
    return rotations, joints + (targets - joints).mean(axis=1, keepdims=True)


def refine(
    rotations: np.ndarray, targets: np.ndarray, body_rest: np.ndarray, steps: int = REFINE_STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Divides what remains between body and targets over all joints; twist, of which joints say nothing, is kept.

    The least-squares steps of :func:`posesyn.body.inverse_kinematics.refine`, which stay near ``rotations``.

    Args:
        rotations: (T, 22, 3, 3) global rotations, e.g. from :func:`aim`.
        targets: (T, 22, 3) metres.
        body_rest: (24, 3) rest joints of the body.

    Returns:
        Global rotations (T, 22, 3, 3) and joints (T, 22, 3).
    """
    goal = torch.from_numpy(np.array(targets, np.float64))
    offsets = offsets_from_joints(torch.from_numpy(np.array(body_rest, np.float64)), PARENTS)
    start = torch.from_numpy(np.concatenate([rotations, rotations[:, 20:]], 1))  # hands turn with the wrists
    local, root = inverse_kinematics.refine(
        global_to_local(start.double(), PARENTS), goal, offsets, torch.ones(JOINTS, dtype=torch.float64), steps
    )
    joints, world = forward_kinematics(local, offsets, PARENTS, root)
    return world[:, :JOINTS].numpy(), joints[:, :JOINTS].numpy()


def local_rotvec(rotations: np.ndarray) -> np.ndarray:
    """Global rotations (T, 22, 3, 3) → local SMPL rotations (T, 24, 3), hands not bent."""
    local = rotations.copy()
    for joint in range(1, JOINTS):
        local[:, joint] = np.swapaxes(rotations[:, PARENTS[joint]], -1, -2) @ rotations[:, joint]
    pose = np.zeros((len(rotations), 24, 3))
    pose[:, :JOINTS] = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(-1, JOINTS, 3)
    return pose


def shortest_arc(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation from the direction of ``source`` to that of ``target``.

    Half a turn about a fixed perpendicular axis where they are opposite; identity where one has no length.
    """
    source, target = np.broadcast_arrays(source, target)
    norms = [np.linalg.norm(v, axis=-1, keepdims=True) for v in (source, target)]
    a, b = source / np.maximum(norms[0], 1e-12), target / np.maximum(norms[1], 1e-12)
    cross, cosine = np.cross(a, b), (a * b).sum(-1, keepdims=True)
    helper = np.where(np.abs(a[..., :1]) < 0.9, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    opposite = np.cross(a, helper)
    quaternion = np.where(1 + cosine > 1e-9, np.concatenate([cross, 1 + cosine], -1), np.insert(opposite, 3, 0.0, -1))
    quaternion = np.where(np.minimum(*norms) > 1e-9, quaternion, [0.0, 0.0, 0.0, 1.0])
    return Rotation.from_quat(quaternion.reshape(-1, 4)).as_matrix().reshape(*a.shape[:-1], 3, 3)


def body_rest(body: Any, betas: np.ndarray) -> np.ndarray:
    """(24, 3) float64 rest joints of a body, metres."""
    return _rest(betas, body)


def _rest(betas: np.ndarray, body: Any) -> np.ndarray:
    with torch.no_grad():
        rest = body.rest_joints(torch.as_tensor(np.asarray(betas), dtype=torch.float32).reshape(-1, 10))
    return rest.double().cpu().numpy().reshape(*np.shape(betas)[:-1], 24, 3)


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    """(..., 21) lengths of the bones of joints 1..21 from (..., 22 or 24, 3) joints."""
    bones = joints[..., 1:JOINTS, :] - joints[..., list(PARENTS[1:JOINTS]), :]
    return np.linalg.norm(bones, axis=-1)


def _lengths_and_jacobian(betas: np.ndarray, body: Any) -> tuple[np.ndarray, np.ndarray]:
    # Rest joints are linear in the betas, so a difference over one unit has no rounding trouble.
    shapes = np.concatenate([betas[None], betas + 0.5 * np.eye(10), betas - 0.5 * np.eye(10)])
    lengths = bone_lengths(_rest(shapes, body))
    return lengths[0], (lengths[1:11] - lengths[11:]).T
