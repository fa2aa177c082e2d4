"""Pairs of 2D and 3D poses, as lifters are trained on: arrays, checked once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.settings.lifters import CameraRig
from posesyn.types.looks import short_repr

SKELETON = "poseaug16"
JOINTS = 16
SYNTHETIC = "synthetic"  # subject of poses that posesyn made: several bodies, none of them recorded
_LEGS = (1, 2, 4, 5)  # thighs and shins among the bones
# A leg of 0.25-1.6 m covers small children to giants; 1000 times that are millimetres. Our own choice.
_LEG_RANGE = (0.25, 1.6)


@dataclass(frozen=True, eq=False, repr=False)
class PosePairs:
    """N poses in the order ``poseaug16`` with their 2D keypoints.

    Attributes:
        joints_cam: (N, 16, 3) float32 metres, camera frame; relative to the root where ``cameras`` is None.
        keypoints: (N, 16, 2) float32, normalised: the image is 2 wide and 2 h/w high, its middle at the origin.
        cameras: (N, 9) float32 fx, fy, cx, cy, k1, k2, k3, p1, p2 in the same units, or None where unknown.
        groups: (N,) name of the sequence (or action) of each pose, for splits and intervals.
        subjects: (N,) name of the person, for splits; :data:`SYNTHETIC` for what posesyn made.
    """

    joints_cam: np.ndarray
    keypoints: np.ndarray
    cameras: np.ndarray | None = None
    groups: np.ndarray | None = None
    subjects: np.ndarray | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        joints, keypoints = np.asarray(self.joints_cam, np.float32), np.asarray(self.keypoints, np.float32)
        where = "PosePairs"
        if joints.ndim != 3 or joints.shape[1:] != (JOINTS, 3) or keypoints.shape != (len(joints), JOINTS, 2):
            raise InputError(
                f"pose pairs must be (N, {JOINTS}, 3) and (N, {JOINTS}, 2) in the order '{SKELETON}'",
                where=where,
                got=(joints.shape, keypoints.shape),
                fix="convert both with skeletons.convert(points, source, 'poseaug16'); 14 joints lack spine and pelvis",
            )
        if not len(joints):
            raise InputError("there are no poses", where=where, fix="check the files and the subjects asked for")
        for name, value in (("joints_cam", joints), ("keypoints", keypoints)):
            bad = ~np.isfinite(value).all((1, 2))
            if bad.any():
                what, got = f"PosePairs.{name} has NaN or infinite values", _some(bad)
                raise InputError(what, where=where, got=got, fix="leave such poses out")
        check_metres(joints, where)
        object.__setattr__(self, "joints_cam", joints)
        object.__setattr__(self, "keypoints", keypoints)
        if self.cameras is not None:
            cameras = np.asarray(self.cameras, np.float32)
            if cameras.shape != (len(joints), 9) or not np.isfinite(cameras).all() or (cameras[:, :2] <= 0).any():
                what = "cameras must be (N, 9) finite numbers with positive focal lengths"
                raise InputError(what, where=where, got=cameras.shape)
            behind = (joints[..., 2] <= 0).any(1)
            if behind.any():
                raise InputError(
                    "a person stands behind the camera",
                    where=where,
                    expected="z > 0 for every joint (OpenCV camera, z forward)",
                    got=_some(behind),
                    fix="pass absolute camera coordinates, or cameras=None for root-relative poses",
                )
            object.__setattr__(self, "cameras", cameras)
        for name in ("groups", "subjects"):
            value = getattr(self, name)
            value = np.full(len(joints), "") if value is None else np.asarray(value).astype(str)
            if value.shape != (len(joints),):
                raise InputError(f"PosePairs.{name} must be (N,)", where=where, got=value.shape)
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.joints_cam)

    def __getitem__(self, rows: slice | np.ndarray) -> PosePairs:
        """Some of the pairs."""
        return PosePairs(**{f.name: None if (v := getattr(self, f.name)) is None else v[rows] for f in fields(self)})

    @property
    def centred(self) -> np.ndarray:
        """(N, 16, 3) relative to the root."""
        return self.joints_cam - self.joints_cam[:, :1]

    @property
    def lengths(self) -> np.ndarray:
        """(N, 15) bone lengths, metres."""
        return bone_lengths(self.joints_cam)

    def fingerprint(self) -> str:
        """SHA-256 over all arrays: tells two sets of pairs apart."""
        digest = hashlib.sha256()
        for f in fields(self):
            value = getattr(self, f.name)
            # Names as bytes of one kind: NumPy pads strings to the longest.
            array = np.zeros(0) if value is None else np.ascontiguousarray(value)
            digest.update(f"{f.name}{array.shape}".encode())
            digest.update("\0".join(array).encode() if array.dtype.kind == "U" else array.tobytes())
        return digest.hexdigest()

    def thinned(self, count: int, seed: int = 0) -> PosePairs:
        """At most ``count`` pairs, drawn without repetition."""
        if len(self) <= count:
            return self
        return self[np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False))]

    def of_subjects(self, names: Sequence[str]) -> PosePairs:
        """The pairs of some persons.

        Raises:
            InputError: None of them is there.
        """
        rows = np.isin(self.subjects, list(names))
        if not rows.any():
            known = sorted(set(self.subjects))
            raise InputError("no pairs of these subjects", where="PosePairs", expected=known, got=list(names))
        return self[rows]

    def split_by_subject(self, share: float = 0.2, seed: int = 0) -> tuple[PosePairs, PosePairs]:
        """Training and validation pairs without a common subject; sequences instead where there is one subject only.

        Pairs that posesyn made (:data:`SYNTHETIC`) are not held out where there are recorded ones.

        Raises:
            InputError: One sequence of one subject cannot be split.
        """
        recorded = self.subjects != SYNTHETIC
        names = self.subjects if len(set(self.subjects[recorded])) > 1 else self.groups
        unique = np.unique(names[recorded] if recorded.any() else names)
        if len(unique) < 2:
            where, fix = "PosePairs.split_by_subject", "pass validation data of your own"
            raise InputError("the pairs come from one sequence of one subject", where=where, fix=fix)
        order = np.random.default_rng(seed).permutation(unique)
        held = order[: max(1, min(len(order) - 1, round(share * len(order))))]
        rows = np.isin(names, held) & (recorded | ~recorded.any())
        return self[~rows], self[rows]

    @classmethod
    def concatenate(cls, parts: Sequence[PosePairs]) -> PosePairs:
        """All pairs of several sets, e.g. of recorded, synthesised and augmented poses.

        Cameras are kept if all parts have them.

        Raises:
            InputError: No parts.
        """
        if not parts:
            raise InputError("there are no pose pairs to join", where="PosePairs.concatenate")
        known = all(part.cameras is not None for part in parts)
        joints = [part.joints_cam if known else part.centred for part in parts]
        return cls(
            np.concatenate(joints),
            np.concatenate([part.keypoints for part in parts]),
            np.concatenate([part.cameras for part in parts]) if known else None,
            np.concatenate([part.groups for part in parts]),
            np.concatenate([part.subjects for part in parts]),
        )


def _some(bad: np.ndarray) -> str:
    return f"{bad.sum()} of {len(bad)} poses, the first at row {int(bad.argmax())}"


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    """(..., 16, 3) → (..., 15)."""
    parents, children = (list(side) for side in zip(*skeletons.get(SKELETON).bones))
    return np.linalg.norm(joints[..., parents, :] - joints[..., children, :], axis=-1)


def check_metres(joints: np.ndarray, where: object) -> None:
    """Raises InputError if the legs of (N, 16, 3) poses are not as long as human legs in metres."""
    leg = float(np.median(bone_lengths(joints)[:, list(_LEGS)].sum(1) / 2))
    if not _LEG_RANGE[0] <= leg <= _LEG_RANGE[1]:
        factor = next((f for f in (1000, 100) if _LEG_RANGE[0] <= leg / f <= _LEG_RANGE[1]), None)
        unit = {1000: "millimetres", 100: "centimetres"}.get(factor)
        raise InputError(
            "poses are not in metres" if unit else "bones are not as long as a human's",
            where=where,
            expected=f"legs of {_LEG_RANGE[0]}-{_LEG_RANGE[1]} m",
            got=f"a median leg of {leg:.3g}" + (f", as in {unit}" if unit else ""),
            fix=f"divide by {factor}" if factor else "check the joint order and the unit",
        )


_MIN_DEPTH = 0.2  # metres; nearer joints are out of any picture. Our own choice.


def see(
    rig: CameraRig, joints_world: np.ndarray, group: str = "", subject: str = "", seed: int | Sequence[int] = 0
) -> PosePairs | None:
    """Pairs of one sequence (T, 16, 3), y up, metres; frames that do not fit the picture are left out.

    Returns None where no frame is left.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for index in range(rig.count):
        azimuth = rng.uniform(0, 2 * np.pi) if rig.azimuths is None else rig.azimuths[index % len(rig.azimuths)]
        ranges = (rig.distances, rig.heights, rig.aim, rig.focal)
        distance, height, aim, focal = (rng.uniform(*bounds) for bounds in ranges)
        middle = np.median(joints_world[:, 0], axis=0)
        target = np.array([middle[0], aim, middle[2]])
        eye = np.array([middle[0] + distance * np.sin(azimuth), height, middle[2] + distance * np.cos(azimuth)])
        cam = (joints_world - eye) @ _looking(eye, target).T
        fits = cam[..., 2].min(1) > _MIN_DEPTH
        points = np.where(fits[:, None, None], cam, 1.0)
        flat = focal * points[..., :2] / points[..., 2:]
        fits &= (np.abs(flat[..., 0]) <= 1).all(1) & (np.abs(flat[..., 1]) <= rig.aspect).all(1)
        camera = np.array([focal, focal, 0, 0, 0, 0, 0, 0, 0], np.float32)
        if fits.any():
            parts.append((cam[fits], flat[fits], np.tile(camera, (int(fits.sum()), 1))))
    if not parts:
        return None
    joints, flat, cameras = (np.concatenate(arrays) for arrays in zip(*parts))
    return PosePairs(joints, flat, cameras, np.full(len(joints), group), np.full(len(joints), subject))


def _looking(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """World (y up) → camera (y down, z forward)."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    return np.stack((right, np.cross(forward, right), forward))
