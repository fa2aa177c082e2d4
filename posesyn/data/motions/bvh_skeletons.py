"""Skeletons of BVH files: which of their joints are ours, and how their motions move to our body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from posesyn import skeletons
from posesyn.body import inverse_kinematics
from posesyn.data.motions.bvh_file import BvhClip
from posesyn.errors import InputError
from posesyn.geometry.kinematics import forward_kinematics, global_to_local, offsets_from_joints

JOINTS = skeletons.get("humanml3d22").joints
# Rest pose of the free body's mean shape in metres (x left, y up, z ahead), from which the torso is calibrated.
_REST_HIPS = (0.0, -0.298, 0.018)
_REST_SHOULDERS = (0.0, 0.185, 0.037)
TORSO = {
    "pelvis": (0.0, -0.220, 0.031),
    "spine1": (0.0, -0.092, 0.001),
    "spine2": (0.0, 0.041, -0.006),
    "spine3": (0.0, 0.094, -0.005),
    "neck": (0.0, 0.309, 0.034),
    "left_collar": (0.065, 0.191, 0.042),
    "right_collar": (-0.065, 0.191, 0.042),
    "head": (0.0, 0.364, 0.076),
}


@dataclass(frozen=True)
class BvhSkeleton:
    """A family of BVH files with the same joint names.

    Attributes:
        name: ``cmu31``, ``cmu31-3dsmax``, ``daz43`` or ``smpl24``.
        limbs: The source joint at which each of the 14 limb joints lies.
        torso: The source joint whose frame carries each joint of :data:`TORSO`.
        collars: Left and right source joint that turn the shoulders; every other joint turns with the source joint
            that carries it.
        chest: The joint from whose end neck and collars start.
        above_chest: Those joints. Releases that lost their offsets have zero there (see :meth:`repaired`).
        has_torso: The source's own torso joints are those of SMPL; nothing is calibrated.
    """

    name: str
    limbs: Mapping[str, str]
    torso: Mapping[str, str]
    collars: tuple[str, str]
    chest: str
    above_chest: tuple[str, ...] = ()
    has_torso: bool = False

    def fits(self, clip: BvhClip) -> bool:
        """Whether the clip has all joints that this skeleton needs."""
        return {*self.limbs.values(), *self.torso.values(), *self.collars, *self.above_chest} <= set(clip.joints)

    def repaired(self, clip: BvhClip) -> BvhClip:
        """The clip with the bone between chest and shoulders restored where the file lost it.

        The MotionBuilder and 3ds Max releases of CMU have offset zero for neck and collars, which makes the torso
        12 cm too short. The ASF skeletons divide the back into three nearly equal bones, so the chest's own offset
        stands in (our own choice; within 4 mm on subject 05).
        """
        offsets = np.array(clip.offsets)
        lost = [clip.index(name) for name in self.above_chest if not offsets[clip.index(name)].any()]
        offsets[lost] = offsets[clip.index(self.chest)]
        return replace(clip, offsets=offsets) if lost else clip

    def carriers(self, clip: BvhClip) -> np.ndarray:
        """(22,) index of the source joint that carries each joint."""
        return np.array([clip.index(self.limbs.get(joint) or self.torso[joint]) for joint in JOINTS])

    def rest_points(self, clip: BvhClip) -> np.ndarray:
        """(22, 3) metres, the 22 joints in the source's rest pose."""
        points = clip.rest_joints()[self.carriers(clip)]
        if self.has_torso:
            return points * clip.metres_per_unit()
        pairs = [[JOINTS.index(f"{side}_{part}") for side in ("left", "right")] for part in ("hip", "shoulder")]
        hips, shoulders = ((points[left] + points[right]) / 2 for left, right in pairs)
        turn, scale = _sagittal(np.subtract(_REST_SHOULDERS, _REST_HIPS), shoulders - hips, clip)
        for joint, place in TORSO.items():
            points[JOINTS.index(joint)] = hips + scale * turn @ np.subtract(place, _REST_HIPS)
        return points * clip.metres_per_unit()

    def joints_world(self, clip: BvhClip) -> np.ndarray:
        """(N, 22, 3) float64 metres, y up, order ``humanml3d22``."""
        carriers = self.carriers(clip)
        places = self.rest_points(clip) - clip.rest_joints()[carriers] * clip.metres_per_unit()
        rotations, positions = clip.transforms()
        return positions[:, carriers] + np.einsum("njab,jb->nja", rotations[:, carriers], places)

    def global_rotations(self, clip: BvhClip) -> np.ndarray:
        """(N, 22, 3, 3) rotation of each joint's bone from the source's rest pose to the world."""
        turners = self.carriers(clip)
        turners[[JOINTS.index("left_collar"), JOINTS.index("right_collar")]] = [clip.index(n) for n in self.collars]
        return clip.transforms()[0][:, turners]


def bvh_skeleton(clip: BvhClip) -> BvhSkeleton:
    """The known skeleton whose names the clip has; :class:`InputError` where none fits, with both lists of names."""
    for skeleton in SKELETONS.values():
        if skeleton.fits(clip):
            return skeleton
    raise InputError(
        "unknown BVH skeleton",
        where=clip.name,
        expected=f"the joint names of one of {list(SKELETONS)}",
        got=[name for name in clip.joints if not name.endswith(" end")],
        fix="rename the joints, or describe the skeleton with posesyn.data.motions.bvh_skeletons.BvhSkeleton",
    )


def _sagittal(source: np.ndarray, target: np.ndarray, clip: BvhClip) -> tuple[np.ndarray, float]:
    """Rotation about x and scale that bring the torso vector ``source`` to ``target`` in the y-z plane."""
    length = np.hypot(target[1], target[2])
    if length < 1e-9 or target[1] <= 0:
        what = "the shoulders are not above the hips in the rest pose"
        raise InputError(what, where=clip.name, got=np.round(target, 4).tolist())
    angle = np.arctan2(target[2], target[1]) - np.arctan2(source[2], source[1])
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return turn, float(length / np.hypot(source[1], source[2]))


def _limbs(left: str, right: str, parts: Mapping[str, str]) -> dict[str, str]:
    sides = (("left", left), ("right", right))
    return {f"{side}_{part}": prefix + word for side, prefix in sides for part, word in parts.items()}


def _cmu(name: str, spine: str, chest: str, low_neck: str, neck: str, collar: str, **parts: str) -> BvhSkeleton:
    """The ASF tree of CMU in the words of one release."""
    torso = {"pelvis": "Hips", "spine1": spine, "neck": neck, "head": "Head"}
    torso |= dict.fromkeys(("spine2", "spine3", "left_collar", "right_collar"), chest)
    collars = ("Left" + collar, "Right" + collar)
    return BvhSkeleton(name, _limbs("Left", "Right", parts), torso, collars, chest, (low_neck, *collars))


_CMU31 = _cmu(
    "cmu31", "Spine", "Spine1", "Neck", "Neck1", "Shoulder",
    hip="UpLeg", knee="Leg", ankle="Foot", foot="ToeBase", shoulder="Arm", elbow="ForeArm", wrist="Hand",
)  # fmt: skip
_CMU31_3DSMAX = _cmu(
    "cmu31-3dsmax", "Chest", "Chest2", "lowerneck", "Neck", "Collar",
    hip="Hip", knee="Knee", ankle="Ankle", foot="Toe", shoulder="Shoulder", elbow="Elbow", wrist="Wrist",
)  # fmt: skip
_DAZ43 = BvhSkeleton(
    "daz43",
    _limbs(
        "l",
        "r",
        {
            "hip": "Thigh", "knee": "Shin", "ankle": "Foot", "foot": "Foot end",
            "shoulder": "Shldr", "elbow": "ForeArm", "wrist": "Hand",
        },
    ),
    {
        "pelvis": "hip", "spine1": "abdomen", "spine2": "chest", "spine3": "chest", "neck": "neck", "head": "head",
        "left_collar": "chest", "right_collar": "chest",
    },
    ("lCollar", "rCollar"),
    "chest",
)  # fmt: skip
# What posesyn writes: the joints of SMPL under the names that MotionBuilder and Mixamo use.
SMPL_NAMES = (
    "Hips", "LeftUpLeg", "RightUpLeg", "Spine", "LeftLeg", "RightLeg", "Spine1", "LeftFoot", "RightFoot", "Spine2",
    "LeftToeBase", "RightToeBase", "Neck", "LeftShoulder", "RightShoulder", "Head", "LeftArm", "RightArm",
    "LeftForeArm", "RightForeArm", "LeftHand", "RightHand", "LeftHandMiddle1", "RightHandMiddle1",
)  # fmt: skip
_SMPL24 = BvhSkeleton(
    "smpl24",
    {joint: name for joint, name in zip(JOINTS, SMPL_NAMES) if joint not in TORSO},
    {joint: name for joint, name in zip(JOINTS, SMPL_NAMES) if joint in TORSO},
    ("LeftShoulder", "RightShoulder"),
    "Spine2",
    has_torso=True,
)
SKELETONS = {skeleton.name: skeleton for skeleton in (_CMU31, _CMU31_3DSMAX, _DAZ43, _SMPL24)}


PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
BODY_JOINTS = 22
# The one child that a joint's bone points to. Pelvis and upper spine carry three bones and are fitted to all of them.
# Wrists continue the forearm's correction, head and toes need none (both rest poses look ahead, upright).
_CHILD = {1: 4, 2: 5, 3: 6, 4: 7, 5: 8, 6: 9, 7: 10, 8: 11, 12: 15, 13: 16, 14: 17, 16: 18, 17: 19, 18: 20, 19: 21}
_CHILDREN = {0: [1, 2, 3], 9: [12, 13, 14]}
_FOLLOWS = {20: 18, 21: 19}
# Our own choice: keeps a fitted shape inside the range of real people where bone lengths leave it open.
_BETA_RIDGE = 0.01  # metres per unit of beta
REFINE_STEPS = 8


def fit_shape(lengths: np.ndarray, body: Any, betas: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Shape (10,) float32 and scale at which the bones of ``body`` fit a mocap skeleton of bone lengths (21,), metres.

    Least squares over the bones of joints 1..21 with a ridge on the betas, linearised at the current shape; the
    remaining misfit of size goes into the scale, which multiplies the mocap. ``betas`` (10,) is a shape to keep.
    """
    fixed, betas = betas is not None, np.zeros(10) if betas is None else np.asarray(betas, np.float64)
    for _ in range(0 if fixed else 5):
        own, jacobian = _lengths_and_jacobian(betas, body)
        system = np.concatenate([jacobian, np.eye(10) * _BETA_RIDGE])
        residual = np.concatenate([lengths - own, -betas * _BETA_RIDGE])
        betas = betas + np.linalg.lstsq(system, residual, rcond=None)[0]
    own = bone_lengths(body_rest(body, betas))
    return betas.astype(np.float32), float(own @ lengths / (lengths @ lengths))


def rest_correction(source_rest: np.ndarray, body_rest: np.ndarray) -> np.ndarray:
    """(22, 3, 3) rotations that bring the body's rest pose to the source's rest pose, bone by bone.

    Each is the shortest arc from the body's bone to the source's bone at rest, so it adds no twist: CMU's legs
    spread by 20 degrees become a turn about z, arms that hang at rest a turn of 90 degrees. Both rest poses, (22, 3)
    or (24, 3), face +z.
    """
    corrections = np.tile(np.eye(3), (BODY_JOINTS, 1, 1))
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
        Global rotations, and the body's joints (T, 22, 3) with their mean on the targets' mean in each frame.
    """
    rotations, joints = rotations.copy(), np.empty_like(targets)
    joints[:, 0] = targets[:, 0]
    for joint in range(BODY_JOINTS):
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

    The least-squares steps of :func:`posesyn.body.inverse_kinematics.refine`, which stay near ``rotations``. Arguments
    and results are those of :func:`aim`, the joints where they come to lie.
    """
    goal = torch.from_numpy(np.array(targets, np.float64))
    offsets = offsets_from_joints(torch.from_numpy(np.array(body_rest, np.float64)), PARENTS)
    start = torch.from_numpy(np.concatenate([rotations, rotations[:, 20:]], 1))  # hands turn with the wrists
    local, root = inverse_kinematics.refine(
        global_to_local(start.double(), PARENTS), goal, offsets, torch.ones(BODY_JOINTS, dtype=torch.float64), steps
    )
    joints, world = forward_kinematics(local, offsets, PARENTS, root)
    return world[:, :BODY_JOINTS].numpy(), joints[:, :BODY_JOINTS].numpy()


def local_rotvec(rotations: np.ndarray) -> np.ndarray:
    """Global rotations (T, 22, 3, 3) → local SMPL rotations (T, 24, 3), hands not bent."""
    local = rotations.copy()
    for joint in range(1, BODY_JOINTS):
        local[:, joint] = np.swapaxes(rotations[:, PARENTS[joint]], -1, -2) @ rotations[:, joint]
    pose = np.zeros((len(rotations), 24, 3))
    pose[:, :BODY_JOINTS] = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(-1, BODY_JOINTS, 3)
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
    """(..., 24, 3) float64 rest joints of a body with shapes (..., 10), metres."""
    with torch.no_grad():
        rest = body.rest_joints(torch.as_tensor(np.asarray(betas), dtype=torch.float32).reshape(-1, 10))
    return rest.double().cpu().numpy().reshape(*np.shape(betas)[:-1], 24, 3)


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    """(..., 21) lengths of the bones of joints 1..21 from (..., 22 or 24, 3) joints."""
    bones = joints[..., 1:BODY_JOINTS, :] - joints[..., list(PARENTS[1:BODY_JOINTS]), :]
    return np.linalg.norm(bones, axis=-1)


def _lengths_and_jacobian(betas: np.ndarray, body: Any) -> tuple[np.ndarray, np.ndarray]:
    # Rest joints are linear in the betas, so a difference over one unit has no rounding trouble.
    shapes = np.concatenate([betas[None], betas + 0.5 * np.eye(10), betas - 0.5 * np.eye(10)])
    lengths = bone_lengths(body_rest(body, shapes))
    return lengths[0], (lengths[1:11] - lengths[11:]).T
