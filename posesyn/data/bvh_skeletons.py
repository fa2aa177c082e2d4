"""Which points of a BVH skeleton stand for the 22 joints ``humanml3d22``.

Hips, knees, ankles, toe bases, shoulders, elbows and wrists are joints of the source as they are. The joints between
hips and head have no counterpart in mocap skeletons (CMU's back has three equal bones, and its root lies behind the
hips), so each of these eight is a point fixed in the frame of one source joint. Its place there is calibrated in the
source's rest pose: the torso of :data:`TORSO` is laid between the middle of the hips and the middle of the shoulders.
This is our own choice; it makes a source at rest look like a SMPL body at rest and moves with the source's own bones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from posesyn.data.bvh_file import BvhClip
from posesyn.errors import InputError

JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
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
        offsets, chest = np.array(clip.offsets), clip.index(self.chest)
        lost = [clip.index(name) for name in self.above_chest if not offsets[clip.index(name)].any()]
        if not lost:
            return clip
        offsets[lost] = offsets[chest]
        return replace(clip, offsets=offsets)

    def carriers(self, clip: BvhClip) -> np.ndarray:
        """(22,) index of the source joint that carries each joint."""
        return np.array([clip.index(self.limbs.get(joint) or self.torso[joint]) for joint in JOINTS])

    def rest_points(self, clip: BvhClip) -> np.ndarray:
        """(22, 3) metres, the 22 joints in the source's rest pose."""
        points = clip.rest_joints()[self.carriers(clip)]
        if self.has_torso:
            return points * clip.metres_per_unit()
        hips, shoulders = (
            (points[JOINTS.index(f"left_{part}")] + points[JOINTS.index(f"right_{part}")]) / 2
            for part in ("hip", "shoulder")
        )
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
    """The known skeleton whose names the clip has.

    Raises:
        InputError: None fits; lists the known ones and the clip's joints.
    """
    for skeleton in SKELETONS.values():
        if skeleton.fits(clip):
            return skeleton
    raise InputError(
        "unknown BVH skeleton",
        where=clip.name,
        expected=f"the joint names of one of {list(SKELETONS)}",
        got=[name for name in clip.joints if not name.endswith(" end")],
        fix="rename the joints, or describe the skeleton with posesyn.data.bvh_skeletons.BvhSkeleton",
    )


def _sagittal(source: np.ndarray, target: np.ndarray, clip: BvhClip) -> tuple[np.ndarray, float]:
    """Rotation about x and scale that bring the torso vector ``source`` to ``target`` in the y-z plane."""
    length = np.hypot(target[1], target[2])
    if length < 1e-9 or target[1] <= 0:
        raise InputError(
            "the shoulders are not above the hips in the rest pose", where=clip.name, got=np.round(target, 4).tolist()
        )
    angle = np.arctan2(target[2], target[1]) - np.arctan2(source[2], source[1])
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return turn, float(length / np.hypot(source[1], source[2]))


def _limbs(left: str, right: str, parts: Mapping[str, str]) -> dict[str, str]:
    sides = (("left", left), ("right", right))
    return {f"{side}_{part}": prefix + word for side, prefix in sides for part, word in parts.items()}


def _cmu(name: str, spine: str, chest: str, low_neck: str, neck: str, collar: str, **parts: str) -> BvhSkeleton:
    """The ASF tree of CMU in the words of one release."""
    torso = {"pelvis": "Hips", "spine1": spine, "spine2": chest, "spine3": chest, "neck": neck, "head": "Head"}
    torso |= {"left_collar": chest, "right_collar": chest}
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
