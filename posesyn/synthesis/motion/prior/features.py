"""The 263 numbers per frame of HumanML3D: joint positions to features and back.

The representation, its constants and its quirks are those of EricGuo5513/HumanML3D (MIT); the order of the steps is
that of its ``process_file``.

Layout of a frame t: 0 half yaw step to t + 1; 1:3 root x, z velocity; 3 root height; 4:67 joints 1..21 without heading
and root x, z; 67:193 rotations of bones 1..21 (6D, first two columns one after the other, swing only: **not** SMPL
rotations); 193:259 velocities of 22 joints; 259:263 contacts of joints 7, 10, 8, 11. World: metres, y up, 20 fps.
Quaternions are (w, x, y, z).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from posesyn.errors import InputError
from posesyn.geometry.devices import device_of
from posesyn.synthesis.motion.prior.normalizer import FEATURE_DIM

Array = TypeVar("Array", np.ndarray, torch.Tensor)

JOINTS = 22
FPS = 20.0
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
# Unit vectors from which each bone's rotation is measured (HumanML3D paramUtil.t2m_raw_offsets).
RAW_OFFSETS = np.array(
    [
        [0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0], [0, -1, 0],
        [0, -1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1],
        [0, -1, 0], [0, -1, 0], [0, -1, 0], [0, -1, 0], [0, -1, 0], [0, -1, 0],
    ],
    np.float64,
)  # fmt: skip
LEG_JOINTS = (5, 8)
CONTACT_JOINTS = (7, 10, 8, 11)
CONTACT_THRESHOLD = 0.002  # squared metres per frame, as the official code compares
HEADING_SIGMA = 20.0  # frames
_FIRST_OF_CHAIN = (1, 2, 3, 13, 14)  # their rotation is relative to the heading, also that of the collars


def motion_features(joints: Array, target_offsets: Array | None = None, *, continuous_heading: bool = False) -> Array:
    """Joint positions of one motion as HumanML3D features.

    The motion is put on the floor (lowest point of the clip at y = 0), its first root above the origin, its first
    frame facing +z.

    Args:
        joints: (T, 22, 3) in the order ``humanml3d22``, metres, y up, 20 fps, T >= 2. NumPy or torch.
        target_offsets: (22, 3) bone vectors of the skeleton whose bone lengths the motion shall get, metres; only
            their lengths count. None keeps the motion's own bones. HumanML3D uses frame 0 of its clip 000021,
            posesyn's prior the free body (:func:`body_offsets`).
        continuous_heading: The official code takes the yaw step from quaternions that change sign where the heading
            crosses 180 degrees, and so stores one step of each full turn with the wrong sign. False reproduces this;
            True stores the true step (all other numbers are equal).

    Returns:
        (T - 1, 263) features, not normalised, float32, same kind of array as ``joints``.

    Raises:
        InputError: Wrong shape, fewer than two frames, NaN or infinite values.
    """
    world = _place(_checked_joints(joints), target_offsets)
    heading = _smoothed_heading(world)
    rotations = _first_two_columns(_bone_rotations(world, heading)[:-1, 1:])

    turn = _quaternion_multiply(heading[1:], _quaternion_conjugate(heading[:-1]))
    yaw_step = turn[:, 2] * np.where(turn[:, 0] < 0, -1.0, 1.0) if continuous_heading else turn[:, 2]
    steps = np.diff(world, axis=0)
    root_velocity = _rotate(heading[1:], steps[:, 0])
    local = world - world[:, :1] * (1.0, 0.0, 1.0)
    local = _rotate(heading[:, None], local)[:-1, 1:]
    velocities = _rotate(heading[:-1, None], steps)
    contacts = (steps[:, CONTACT_JOINTS] ** 2).sum(-1) < CONTACT_THRESHOLD

    frames = len(steps)
    columns = [
        np.arcsin(np.clip(yaw_step, -1, 1))[:, None], root_velocity[:, [0, 2]], world[:-1, 0, 1:2],
        local.reshape(frames, -1), rotations.reshape(frames, -1), velocities.reshape(frames, -1), contacts,
    ]  # fmt: skip
    features = np.concatenate(columns, axis=1).astype(np.float32)
    return torch.from_numpy(features).to(joints.device) if isinstance(joints, torch.Tensor) else features


def still_features(poses: np.ndarray, target_offsets: np.ndarray | None = None) -> np.ndarray:
    """Poses (N, 22, 3) in metres, y up → (N, 263) float32 features of each held still.

    Row i is what :func:`motion_features` (see there for ``target_offsets`` and errors) gives for pose i repeated, in
    every frame but the first (there the official code forces the heading to zero).
    """
    poses = np.asarray(poses)
    joints = _retargeted(_checked_joints(np.concatenate([poses, poses[:1]]))[:-1], target_offsets)
    joints = joints - np.stack([joints[:, 0, 0], joints[..., 1].min(1), joints[:, 0, 2]], -1)[:, None]
    across = joints[:, 2] - joints[:, 1] + joints[:, 17] - joints[:, 16]
    world = _rotate(_rotation_to_z(_forward(across))[:, None], joints)
    heading = _rotation_to_z(_forward(world[:, 1] - world[:, 2] + world[:, 17] - world[:, 16]))
    features = np.zeros((len(poses), FEATURE_DIM), np.float32)
    features[:, 3] = world[:, 0, 1]
    features[:, 4:67] = _rotate(heading[:, None], world)[:, 1:].reshape(len(poses), -1)
    features[:, 67:193] = _first_two_columns(_bone_rotations(world, heading)[:, 1:]).reshape(len(poses), -1)
    features[:, 259:] = 1.0
    return features


def recover_root(features: Array) -> tuple[Array, Array]:
    """Heading quaternion (..., T, 4) (w, x, y, z), world to heading, and root (..., T, 3) metres, from features."""
    tensor = _checked_features(features)
    quaternion, root = _recover_root(tensor)
    return _like(quaternion, features), _like(root, features)


def recover_joints(features: Array) -> Array:
    """Joints from the positions stored in the features (official ``recover_from_ric``).

    Args:
        features: (..., T, 263), not normalised; any leading dimensions; NumPy or torch (differentiable).

    Returns:
        (..., T, 22, 3) metres, y up, first root at x = z = 0 and facing +z.

    Raises:
        InputError: Wrong last dimension, no frame, or NaN.
    """
    tensor = _checked_features(features)
    quaternion, root = _recover_root(tensor)
    local = tensor[..., 4:67].unflatten(-1, (JOINTS - 1, 3))
    joints = _unheading(quaternion[..., None, :], local)
    ground = root * root.new_tensor([1.0, 0.0, 1.0])
    return _like(torch.cat([root[..., None, :], joints + ground[..., None, :]], dim=-2), features)


def recover_joints_from_rotations(features: Array, target_offsets: Array) -> Array:
    """Joints from the stored bone rotations and a skeleton's bone lengths (official ``recover_from_rot``).

    Args:
        features: (..., T, 263), not normalised.
        target_offsets: (22, 3) bone vectors, metres; only their lengths count.

    Returns:
        (..., T, 22, 3) metres. Raises :class:`InputError` as :func:`recover_joints`.
    """
    tensor = _checked_features(features)
    quaternion, root = _recover_root(tensor)
    lengths = torch.as_tensor(_bone_lengths(target_offsets), dtype=tensor.dtype, device=tensor.device)
    offsets = torch.as_tensor(RAW_OFFSETS, dtype=tensor.dtype, device=tensor.device) * lengths[:, None]
    local = _gram_schmidt(tensor[..., 67:193].unflatten(-1, (JOINTS - 1, 2, 3)))
    heading = torch.stack([_unheading(quaternion, tensor.new_tensor(axis)) for axis in np.eye(3)], dim=-1)
    # Features hold rotations as the official code computes them: chained onto the rotation world to heading.
    heading = heading.transpose(-1, -2)
    rotations, joints = [heading], [root]
    for joint in range(1, JOINTS):
        before = heading if joint in _FIRST_OF_CHAIN else rotations[PARENTS[joint]]
        rotations.append(before @ local[..., joint - 1, :, :])
        joints.append(joints[PARENTS[joint]] + rotations[joint] @ offsets[joint])
    return _like(torch.stack(joints, dim=-2), features)


def body_offsets(body, betas=None) -> np.ndarray:
    """Bone vectors (22, 3) float32, metres, of a posesyn body at rest, for ``target_offsets``.

    Args:
        body: What ``posesyn.load_body`` returns: has ``rest_joints(betas (1, 10)) -> (1, 24, 3)``.
        betas: (10,) shape; None is the mean shape.
    """
    shape = torch.zeros(10) if betas is None else torch.as_tensor(betas, dtype=torch.float32)
    with torch.no_grad():
        return bone_offsets(body.rest_joints(shape.to(device_of(body)).reshape(1, 10))[0, :JOINTS].cpu().numpy())


def bone_offsets(rest_joints: np.ndarray) -> np.ndarray:
    """Bone vectors (22, 3) float32 of one pose (22, 3): each joint minus its parent, zero for the root."""
    rest = np.asarray(rest_joints, np.float64)
    if rest.shape != (JOINTS, 3) or not np.isfinite(rest).all():
        raise InputError("rest joints must be finite (22, 3)", where="bone_offsets", got=rest.shape)
    return np.concatenate([np.zeros((1, 3)), _bones(rest)]).astype(np.float32)


def _bones(joints: np.ndarray) -> np.ndarray:
    """(..., 22, 3) → (..., 21, 3): joints 1..21 minus their parents."""
    return joints[..., 1:, :] - joints[..., list(PARENTS[1:]), :]


def _like(tensor: torch.Tensor, template: Array) -> Array:
    return tensor if isinstance(template, torch.Tensor) else tensor.numpy()


def _as_numpy(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _checked_joints(joints: Array) -> np.ndarray:
    values, where = _as_numpy(joints), "motion_features"
    if values.ndim != 3 or values.shape[1:] != (JOINTS, 3):
        raise InputError(
            "motion_features needs the joints of one motion",
            where=where,
            expected="(T, 22, 3) in the order 'humanml3d22'",
            got=values.shape,
            fix="convert the joints with skeletons.convert(...) and pass one motion at a time",
        )
    if len(values) < 2:
        raise InputError("motion_features needs at least 2 frames", where=where, got=len(values))
    bad = ~np.isfinite(values).all((1, 2))
    if bad.any():
        where, fix = f"{where}, frame {int(np.flatnonzero(bad)[0])}", "cut or interpolate such frames first"
        raise InputError("joints have NaN or infinite values", where=where, fix=fix)
    return values.astype(np.float64)


def _checked_features(features: Array) -> torch.Tensor:
    tensor = torch.as_tensor(features)
    if tensor.ndim < 2 or tensor.shape[-1] != FEATURE_DIM or tensor.shape[-2] < 1:
        got = tuple(tensor.shape)
        raise InputError("features have the wrong shape", where="recovery", expected="(..., T, 263)", got=got)
    if not torch.isfinite(tensor).all():
        raise InputError("features have NaN or infinite values", where="recovery of joints")
    return tensor if tensor.is_floating_point() else tensor.float()


def _bone_lengths(offsets: Array) -> np.ndarray:
    values = _as_numpy(offsets)
    if values.shape != (JOINTS, 3) or not np.isfinite(values).all():
        raise InputError("target_offsets must be finite (22, 3)", where="motion_features", got=values.shape)
    return np.linalg.norm(values.astype(np.float64), axis=-1)


def _place(joints: np.ndarray, target_offsets: Array | None) -> np.ndarray:
    """Retargeted, floored, centred joints whose first frame faces +z."""
    joints = _retargeted(joints, target_offsets)
    # In y on all frames (the floor), in x and z on the first frame's root.
    joints = joints - (joints[0, 0, 0], joints[..., 1].min(), joints[0, 0, 2])
    across = joints[0, 2] - joints[0, 1] + joints[0, 17] - joints[0, 16]
    return _rotate(_rotation_to_z(_forward(across)), joints)


def _retargeted(joints: np.ndarray, target_offsets: Array | None) -> np.ndarray:
    """Joints with the same bone directions and the target's bone lengths; the root path is scaled as the legs are."""
    if target_offsets is None:
        return joints
    lengths, bones = _bone_lengths(target_offsets), _bones(joints)
    norms = np.linalg.norm(bones, axis=-1, keepdims=True)
    directions = np.where(norms > 1e-9, bones / np.maximum(norms, 1e-9), RAW_OFFSETS[1:])
    own_leg = sum(norms[0, leg - 1, 0] for leg in LEG_JOINTS)
    if own_leg < 1e-6:
        raise InputError("the legs of the first frame have no length", where="motion_features")
    placed = np.empty_like(joints)
    placed[:, 0] = joints[:, 0] * (sum(lengths[leg] for leg in LEG_JOINTS) / own_leg)
    for joint in range(1, JOINTS):
        placed[:, joint] = placed[:, PARENTS[joint]] + directions[:, joint - 1] * lengths[joint]
    return placed


def _smoothed_heading(joints: np.ndarray) -> np.ndarray:
    """Quaternions (T, 4) world to heading. The hip axis enters reversed here, as in the official code."""
    forward = _forward(joints[:, 1] - joints[:, 2] + joints[:, 17] - joints[:, 16])
    heading = _rotation_to_z(gaussian_filter1d(forward, HEADING_SIGMA, axis=0, mode="nearest"))
    heading[0] = (1.0, 0.0, 0.0, 0.0)
    return heading


def _forward(across: np.ndarray) -> np.ndarray:
    """y axis x the unit ``across``, as in the official code: shorter than 1 where ``across`` is not level."""
    return np.cross((0.0, 1.0, 0.0), across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-12))


def _rotation_to_z(forward: np.ndarray) -> np.ndarray:
    """Shortest rotation of level vectors to +z; half a turn about y where they point to -z, none where they vanish."""
    half = np.arctan2(-forward[..., 0], forward[..., 2]) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, np.sin(half), zero], axis=-1)


def _bone_rotations(joints: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Quaternions (T, 22, 4) of each bone relative to the bone before it in its chain."""
    absolute = np.concatenate([heading[:, None], _shortest_arc(RAW_OFFSETS[1:], _bones(joints))], axis=1)
    before = [0 if joint in _FIRST_OF_CHAIN else PARENTS[joint] for joint in range(1, JOINTS)]
    local = _quaternion_multiply(_quaternion_conjugate(absolute[:, before]), absolute[:, 1:])
    return np.concatenate([heading[:, None], local], axis=1)


def _shortest_arc(unit: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Quaternion that turns ``unit`` into the direction of ``vectors``.

    Opposite vectors leave the axis open (0 / 0 in the official code): half a turn about a fixed perpendicular axis is
    our own choice. A vector without length gives no rotation.
    """
    unit = np.broadcast_to(unit, vectors.shape)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    direction = np.where(norms > 1e-9, vectors / np.maximum(norms, 1e-9), unit)
    cosine = (unit * direction).sum(-1, keepdims=True)
    quaternion = np.concatenate([1 + cosine, np.cross(unit, direction)], axis=-1)
    perpendicular = np.stack([unit[..., 1] + unit[..., 2], unit[..., 0], np.zeros_like(unit[..., 0])], axis=-1)
    opposite = np.concatenate([np.zeros_like(cosine), np.cross(unit, perpendicular)], axis=-1)
    quaternion = np.where(1 + cosine < 1e-12, opposite, quaternion)
    return quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)


def _quaternion_conjugate(q: np.ndarray) -> np.ndarray:
    return q * (1.0, -1.0, -1.0, -1.0)


def _quaternion_multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    w, v = a[..., :1], a[..., 1:]
    s, u = b[..., :1], b[..., 1:]
    return np.concatenate([w * s - (v * u).sum(-1, keepdims=True), w * u + s * v + np.cross(v, u)], axis=-1)


def _rotate(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    axis = np.broadcast_to(q[..., 1:], v.shape)
    twice = 2 * np.cross(axis, v)
    return v + q[..., :1] * twice + np.cross(axis, twice)


def _first_two_columns(q: np.ndarray) -> np.ndarray:
    """(..., 4) unit quaternions → (..., 6): first column of the matrix, then the second."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    second = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return np.stack([*first, *second], axis=-1)


def _recover_root(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The stored half angle goes into the quaternion as it is; both sums lag one frame behind."""
    before = torch.cat([torch.zeros_like(features[..., :1, :3]), features[..., :-1, :3]], dim=-2)
    angle, x, z = before.unbind(-1)
    angle = angle.cumsum(-1)
    zero = torch.zeros_like(angle)
    quaternion = torch.stack([angle.cos(), zero, angle.sin(), zero], dim=-1)
    path = _unheading(quaternion, torch.stack([x, zero, z], dim=-1)).cumsum(-2)
    root = torch.stack([path[..., 0], features[..., 3], path[..., 2]], dim=-1)
    return quaternion, root


def _unheading(quaternion: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Rotates by the inverse of quaternions (cos, 0, sin, 0)."""
    cos_half, sin_half = quaternion[..., 0], quaternion[..., 2]
    cosine, sine = cos_half**2 - sin_half**2, -2 * cos_half * sin_half
    x, y, z = vectors.unbind(-1)
    return torch.stack([cosine * x + sine * z, y + torch.zeros_like(cosine), cosine * z - sine * x], dim=-1)


def _gram_schmidt(columns: torch.Tensor) -> torch.Tensor:
    """(..., 2, 3) first and second column → (..., 3, 3) rotation matrices, in the official order of operations."""
    first = torch.nn.functional.normalize(columns[..., 0, :], dim=-1)
    third = torch.nn.functional.normalize(torch.linalg.cross(first, columns[..., 1, :]), dim=-1)
    return torch.stack([first, torch.linalg.cross(third, first), third], dim=-1)
