"""Sources of pose pairs: Human3.6M, MPI-INF-3DHP as PoseAug publishes it, any motion seen by sampled cameras."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.h36m import H36MPoses
from posesyn.data.h36m_cameras import LabCamera
from posesyn.data.pose_pairs import SKELETON, PosePairs, check_metres
from posesyn.errors import InputError
from posesyn.storage.arrays import read_npz
from posesyn.storage.clip_store import ClipStore
from posesyn.types import Clip, Motion, Person

# Focal length of the Human3.6M cameras in half image widths (poseaug.md section 2).
FOCAL = 2.29
_MIN_DEPTH = 0.2  # metres; nearer joints are out of any picture. Our own choice.


@dataclass(frozen=True)
class CameraRig:
    """Cameras around a person. Each sequence is seen by ``count`` of them, each looking at the person's middle place.

    Attributes:
        heights: Range of heights above the floor, metres.
        distances: Range of horizontal distances, metres.
        count: Cameras per sequence.
        azimuths: Directions in radians, the same for all sequences as in a studio; None draws them.
        aim: Range of heights looked at, metres.
        focal: Range of focal lengths in half image widths.
        aspect: Image height / width.
    """

    heights: tuple[float, float] = (1.4, 1.7)
    distances: tuple[float, float] = (4.0, 6.0)
    count: int = 4
    azimuths: tuple[float, ...] | None = None
    aim: tuple[float, float] = (0.8, 1.0)
    focal: tuple[float, float] = (FOCAL, FOCAL)
    aspect: float = 1.0

    def __post_init__(self) -> None:
        for name in ("heights", "distances", "aim", "focal"):
            low, high = getattr(self, name)
            if not np.isfinite((low, high)).all() or low > high or (name in ("distances", "focal") and low <= 0):
                raise InputError(f"CameraRig.{name} must be a range low <= high", got=(low, high))
        if self.count < 1 or (self.azimuths is not None and not self.azimuths):
            raise InputError("a rig needs at least one camera", where="CameraRig", got=self.count)

    def see(
        self, joints_world: np.ndarray, group: str = "", subject: str = "", seed: int | Sequence[int] = 0
    ) -> PosePairs | None:
        """Pairs of one sequence (T, 16, 3), y up, metres; frames that do not fit the picture are left out.

        Returns None where no frame is left.
        """
        rng = np.random.default_rng(seed)
        parts = []
        for index in range(self.count):
            azimuth = rng.uniform(0, 2 * np.pi) if self.azimuths is None else self.azimuths[index % len(self.azimuths)]
            distance, height, aim, focal = (
                rng.uniform(*bounds) for bounds in (self.distances, self.heights, self.aim, self.focal)
            )
            middle = np.median(joints_world[:, 0], axis=0)
            target = np.array([middle[0], aim, middle[2]])
            eye = np.array([middle[0] + distance * np.sin(azimuth), height, middle[2] + distance * np.cos(azimuth)])
            cam = (joints_world - eye) @ _looking(eye, target).T
            fits = cam[..., 2].min(1) > _MIN_DEPTH
            points = np.where(fits[:, None, None], cam, 1.0)
            flat = focal * points[..., :2] / points[..., 2:]
            fits &= (np.abs(flat[..., 0]) <= 1).all(1) & (np.abs(flat[..., 1]) <= self.aspect).all(1)
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


def pairs_of_joints(sequences: Iterable[tuple[np.ndarray, str, str, str]], rig: CameraRig, seed: int = 0) -> PosePairs:
    """Sequences of joints seen by a rig.

    Args:
        sequences: (joints_world (T, J, 3) metres y up, skeleton, group, subject).
        rig: The cameras.
        seed: With the number of the sequence it decides the cameras.

    Raises:
        InputError: No sequence, a skeleton without the 16 joints, joints not in metres, or no frame in the picture.
    """
    parts = []
    for number, (joints, skeleton, group, subject) in enumerate(sequences):
        seen = rig.see(to_sixteen(joints, skeleton, f"sequence '{group}'"), group, subject, (seed, number))
        if seen is not None:
            parts.append(seen)
    if not parts:
        raise InputError("no pose is in the picture of any camera", where="pairs_of_joints", got=rig)
    return PosePairs.concatenate(parts)


def pairs_of_motions(motions: Iterable[Motion], rig: CameraRig, seed: int = 0, body: Any = None) -> PosePairs:
    """Motions (recorded, read from BVH or AMASS, or synthesised) seen by a rig.

    Args:
        motions: Those without joints, as AMASS files are, are performed by ``body``.
        rig, seed: As in :func:`pairs_of_joints`.
        body: From :func:`posesyn.load_body`; None takes the free body.

    Raises:
        InputError: As :func:`pairs_of_joints`.
    """

    def rows():
        for motion in motions:
            subject = str(motion.meta.get("subject", motion.motion_id))
            yield joints_of_motion(motion, body), "humanml3d22", motion.motion_id, subject

    return pairs_of_joints(rows(), rig, seed)


def joints_of_motion(motion: Motion, body: Any = None) -> np.ndarray:
    """(T, 22, 3) joints of a motion, posed on ``body`` (None: the free one) where the motion has none."""
    if motion.joints_world is not None:
        return motion.joints_world
    import torch

    from posesyn.body import load_body
    from posesyn.geometry.rotations import rotvec_to_matrix

    pose, transl = (torch.as_tensor(np.asarray(x, np.float32)) for x in (motion.pose_rotvec, motion.transl_world))
    betas = torch.as_tensor(np.asarray(motion.betas, np.float32)).expand(len(pose), -1)
    performer = load_body(size="small") if body is None else body
    with torch.inference_mode():
        return performer.joints_only(rotvec_to_matrix(pose), betas, transl)[:, :22].numpy()


def pairs_of_clips(clips: Iterable[Clip] | ClipStore | str | os.PathLike[str]) -> PosePairs:
    """The kept frames of rendered clips, so that a lifter learns from what PoseSyn made.

    Args:
        clips: Clips, a :class:`posesyn.storage.ClipStore` or its folder (``clips`` of ``posesyn run``); of a store no
            frame is decoded.

    Raises:
        InputError: No kept frame. FileError, UnsafeFileError: The folder holds no clips.
    """
    if isinstance(clips, str | os.PathLike):
        clips = ClipStore(clips)
    if isinstance(clips, ClipStore):
        rows = ((clips.header(row), clips.labels(row)) for row in range(len(clips)))
        found = ((h.motion_id or h.clip_id, h.shape[1:3], x) for h, x in rows)
    else:
        found = ((clip.motion_id or clip.clip_id, clip.frames.shape[1:3], vars(clip)) for clip in clips)
    parts = []
    for group, (height, width), labels in found:
        keep = labels["keep"]
        if keep.any():
            parts.append(_pinhole(labels["joints_cam"][keep], "smpl45", labels["intrinsics"], (width, height), group))
    return PosePairs.concatenate(parts)


def pairs_of_persons(persons: Sequence[Person]) -> PosePairs:
    """Persons with exact labels.

    Raises:
        InputError: A person without labels, or none at all.
    """
    parts = []
    for person in persons:
        if person.labels is None:
            raise InputError("the person has no 3D labels", where=f"person '{person.person_id}'")
        size = person.meta.get("image_width_height")
        if size is None:
            height, width = person.image.load().shape[:2]
            size = (width, height)
        labels = person.labels
        parts.append(_pinhole(labels.joints_cam[None], "smpl45", labels.intrinsics, size, person.person_id))
    return PosePairs.concatenate(parts)


def h36m_pairs(
    positions: str | os.PathLike[str],
    keypoints: str | os.PathLike[str] | None = None,
    subjects: tuple[str, ...] | None = None,
    stride: int = 1,
) -> PosePairs:
    """Human3.6M of VideoPose3D, all four cameras.

    Args:
        positions: ``data_3d_h36m.npz``.
        keypoints: ``data_2d_h36m_gt.npz`` or a file of detections, 16 or 17 joints; None projects the 3D joints.
        subjects: For example :data:`posesyn.data.h36m.TRAIN_SUBJECTS`; None takes all.
        stride: Every so many frames.

    Raises:
        FileError, UnsafeFileError, InputError: As :class:`posesyn.data.h36m.H36MPoses`.
    """
    parts = []
    for view in H36MPoses(positions, keypoints, skeleton=SKELETON).views(subjects):
        joints, pixels = view.joints_cam[::stride], view.keypoints_px[::stride]
        camera = np.tile(_lab_vector(view.calibration), (len(joints), 1))
        flat = normalise(pixels, view.calibration.size)
        names = np.full(len(joints), f"{view.subject} {view.action}")
        parts.append(PosePairs(joints, flat, camera, names, np.full(len(joints), view.subject)))
    if not parts:
        raise InputError("the file holds none of these subjects", where=Path(positions), got=subjects)
    return PosePairs.concatenate(parts)


def mpi_inf_3dhp_pairs(path: str | os.PathLike[str]) -> PosePairs:
    """PoseAug's ``test_3dhp.npz``: ``pose3d`` (N, 16, 3) metres and ``pose2d`` (N, 16, 2) normalised.

    Files with 17 joints (canonical Human3.6M order) lose Neck/Nose. The cameras are unknown: for testing only.

    Raises:
        FileError, UnsafeFileError: Not readable. InputError: Other arrays, other joints, millimetres.
    """
    path = Path(path)
    arrays = read_npz(path)
    if not {"pose3d", "pose2d"} <= arrays.keys():
        raise InputError("this is not test_3dhp.npz", where=path, expected="pose3d and pose2d", got=sorted(arrays))
    joints, flat = (np.asarray(arrays[name], np.float64) for name in ("pose3d", "pose2d"))
    if joints.ndim != 3 or flat.shape[:-1] != joints.shape[:-1] or flat.shape[-1:] != (2,):
        raise InputError("pose3d and pose2d do not fit", where=path, got=(joints.shape, flat.shape))
    source = {16: SKELETON, 17: "h36m17"}.get(joints.shape[1])
    if source is None:
        raise InputError("poses must have 16 or 17 joints", where=path, got=joints.shape[1])
    joints, flat = (skeletons.convert(points, source, SKELETON)[0] for points in (joints, flat))
    if len(joints) and np.isfinite(joints).all():  # the rest is seen by PosePairs
        check_metres(joints, path)
    return PosePairs(joints - joints[:, :1], flat)


def normalise(points_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels → units of half the image width, origin in the middle: x / w · 2 - [1, h / w] (poseaug.md section 2)."""
    width, height = size
    return np.asarray(points_px, np.float64) / width * 2 - (1, height / width)


def to_sixteen(joints: np.ndarray, skeleton: str, where: object) -> np.ndarray:
    """(T, J, 3) of any joint set that has the 16 joints → (T, 16, 3)."""
    points, present = skeletons.convert(np.asarray(joints, np.float64), skeleton, SKELETON)
    if present.size and not present.all():
        lacking = [skeletons.get(SKELETON).joints[i] for i in np.flatnonzero(~present.all(0))]
        raise InputError(
            f"'{skeleton}' lacks joints of '{SKELETON}'", where=where, got=f"no {', '.join(lacking)}",
            fix="use data with 16 or 17 joints of Human3.6M, or SMPL joints",
        )  # fmt: skip
    if not len(points) or not np.isfinite(points).all():
        raise InputError("joints must be finite, at least one frame", where=where, got=points.shape)
    check_metres(points, where)
    return points


def _pinhole(joints: np.ndarray, skeleton: str, matrix: np.ndarray, size: tuple[int, int], group: str) -> PosePairs:
    cam = to_sixteen(joints, skeleton, group)
    # Integer pixels are pixel centres here; PoseAug counts from the corner of the image.
    pixels = cam[..., :2] / cam[..., 2:] * np.diag(matrix)[:2] + matrix[:2, 2] + 0.5
    camera = np.zeros((len(cam), 9))
    camera[:, :2] = 2 * np.diag(matrix)[:2] / size[0]
    camera[:, 2:4] = normalise(matrix[:2, 2] + 0.5, size)
    names = np.full(len(cam), group)
    return PosePairs(cam, normalise(pixels, size), camera, names, names)


def _lab_vector(camera: LabCamera) -> np.ndarray:
    """Calibration as the nine numbers of PoseAug: OpenCV's k1, k2, p1, p2, k3 are sorted, and its p1 belongs to y."""
    k1, k2, p1, p2, k3 = camera.distortion
    focal = 2 * camera.intrinsics[[0, 1], [0, 1]] / camera.size[0]
    # p here is the pair that multiplies (x, y): OpenCV's (p2, p1).
    return np.array([*focal, *normalise(camera.intrinsics[:2, 2], camera.size), k1, k2, k3, p2, p1])
