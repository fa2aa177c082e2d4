"""Pose pairs as settings name them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.pose_pairs.h36m import TRAIN_SUBJECTS, H36MPoses, LabCamera
from posesyn.data.pose_pairs.pairs import SKELETON, SYNTHETIC, PosePairs, check_metres, see
from posesyn.errors import FileError, InputError
from posesyn.settings.lifters import CameraRig, PosePairSettings
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import npz_names, read_npz
from posesyn.types import Clip, Motion


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
        seen = see(rig, to_sixteen(joints, skeleton, f"sequence '{group}'"), group, subject, (seed, number))
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
            subject = motion.subject or motion.motion_id
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

    Their subject is :data:`posesyn.data.pose_pairs.pairs.SYNTHETIC`, which no split holds out beside recorded people.

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
            matrix, size = labels["intrinsics"], (width, height)
            parts.append(_pinhole(labels["joints_cam"][keep], "smpl45", matrix, size, group, SYNTHETIC))
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
        keypoints: ``data_2d_h36m_gt.npz`` or a file of detections, 16 or 17 joints in Human3.6M's order; None projects
            the 3D joints.
        subjects: For example :data:`posesyn.data.pose_pairs.h36m.TRAIN_SUBJECTS`; None takes all.
        stride: Every so many frames.

    Raises:
        FileError, UnsafeFileError, InputError: As :class:`posesyn.data.pose_pairs.h36m.H36MPoses`; a stride below 1.
    """
    if stride < 1:
        raise InputError("the stride must be at least 1", where="h36m_pairs", got=stride)
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
    """Pixels → units of half the image width, origin in the middle: x / w · 2 - [1, h / w] (jfzhang95/PoseAug)."""
    width, height = size
    return np.asarray(points_px, np.float64) / width * 2 - (1, height / width)


def to_sixteen(joints: np.ndarray, skeleton: str, where: object) -> np.ndarray:
    """(T, J, 3) of any joint set that has the 16 joints → (T, 16, 3)."""
    points, present = skeletons.convert(np.asarray(joints, np.float64), skeleton, SKELETON)
    if present.size and not present.all():
        lacking = [skeletons.get(SKELETON).joints[i] for i in np.flatnonzero(~present.all(0))]
        what, fix = (
            f"'{skeleton}' lacks joints of '{SKELETON}'",
            "use data with 16 or 17 joints of Human3.6M, or SMPL joints",
        )
        raise InputError(what, where=where, got=f"no {', '.join(lacking)}", fix=fix)
    if not len(points) or not np.isfinite(points).all():
        raise InputError("joints must be finite, at least one frame", where=where, got=points.shape)
    check_metres(points, where)
    return points


def _pinhole(
    joints: np.ndarray, skeleton: str, matrix: np.ndarray, size: tuple[int, int], group: str, subject: str
) -> PosePairs:
    cam = to_sixteen(joints, skeleton, group)
    # Integer pixels are pixel centres here; PoseAug counts from the corner of the image.
    pixels = cam[..., :2] / cam[..., 2:] * np.diag(matrix)[:2] + matrix[:2, 2] + 0.5
    camera = np.zeros((len(cam), 9))
    camera[:, :2] = 2 * np.diag(matrix)[:2] / size[0]
    camera[:, 2:4] = normalise(matrix[:2, 2] + 0.5, size)
    return PosePairs(cam, normalise(pixels, size), camera, np.full(len(cam), group), np.full(len(cam), subject))


def _lab_vector(camera: LabCamera) -> np.ndarray:
    """Calibration as the nine numbers of PoseAug: OpenCV's k1, k2, p1, p2, k3 are sorted, and its p1 belongs to y."""
    k1, k2, p1, p2, k3 = camera.distortion
    focal = 2 * camera.intrinsics[[0, 1], [0, 1]] / camera.size[0]
    # p here is the pair that multiplies (x, y): OpenCV's (p2, p1).
    return np.array([*focal, *normalise(camera.intrinsics[:2, 2], camera.size), k1, k2, k3, p2, p1])


_FPS = 20.0  # of motions; what HumanML3D uses


def load_pairs(settings: PosePairSettings, seed: int = 0) -> PosePairs:
    """Reads pose pairs, as :class:`PosePairSettings` says.

    Raises:
        FileError: Nothing is there. InputError: As the readers in :mod:`posesyn.data.pose_pairs.sources`.
    """
    if settings.format == "h36m":
        subjects = TRAIN_SUBJECTS if settings.subjects is None else tuple(settings.subjects)
        return h36m_pairs(settings.path, settings.keypoints, subjects, settings.stride)
    if settings.format == "3dhp":
        pairs = mpi_inf_3dhp_pairs(settings.path)
    elif settings.format == "clips":
        pairs = pairs_of_clips(settings.path)
    elif settings.format == "motions":
        return _motions(Path(settings.path), settings, seed)
    else:
        raise InputError("unknown format of pose pairs", expected="h36m, motions, clips or 3dhp", got=settings.format)
    if settings.subjects is not None:
        pairs = pairs.of_subjects(settings.subjects)
    return pairs[:: settings.stride]


def _motions(folder: Path, settings: PosePairSettings, seed: int) -> PosePairs:
    from posesyn.data.motions.amass import load_motion
    from posesyn.data.motions.bvh import bvh_joints

    files = sorted(path for end in ("*.bvh", "*.bvh.gz", "*.npz") for path in folder.rglob(end))
    # AMASS keeps shapes and calibrations in npz files beside the motions.
    motions = [path for path in files if path.suffix != ".npz" or "poses" in npz_names(path)]
    if len(motions) < len(files):
        warnings.warn(f"{len(files) - len(motions)} npz files in {folder} hold no poses and are left out", stacklevel=3)
    if not motions:
        raise FileError("no motions", where=folder, expected=".bvh, .bvh.gz or AMASS-style .npz files")
    wanted = [path for path in motions if settings.subjects is None or _subject(path, folder) in settings.subjects]
    if not wanted:
        known = sorted({_subject(path, folder) for path in motions})
        raise InputError("no motions of these subjects", where=folder, expected=known, got=settings.subjects)

    def rows():
        for path in wanted:
            if path.suffix == ".npz":
                motion = load_motion(path)
                motion = motion.resampled(_FPS) if motion.fps > _FPS else motion
                joints = joints_of_motion(motion.take(np.arange(0, len(motion), settings.stride)))
            else:
                joints = bvh_joints(path, fps=_FPS)[:: settings.stride]
            yield joints, "humanml3d22", str(path.relative_to(folder)), _subject(path, folder)

    return pairs_of_joints(rows(), settings.rig or CameraRig(), seed)


def _subject(path: Path, folder: Path) -> str:
    """AMASS has a folder per person; elsewhere the person stands before the first underscore (CMU's ``02_01.bvh``)."""
    name = path.name.split(".")[0]
    if name.endswith(("_poses", "_stageii")) and path.parent != folder:
        return str(path.parent.relative_to(folder))
    return name.split("_")[0]


def with_synthesised(pairs: PosePairs, made: PosePairs | None, share: float = 0.5, seed: int = 0) -> PosePairs:
    """Recorded pairs joined with pairs that PoseSyn made, which PoseAug then augments alike.

    Args:
        pairs: Recorded, with cameras.
        made: From :func:`posesyn.data.pose_pairs.sources.pairs_of_clips`; None adds nothing.
        share: Largest share of made pairs in the result; more than that are drawn from. Our own choice.
        seed: Draws them.

    Raises:
        InputError: A share outside (0, 1).
    """
    if not 0 < share < 1:
        raise InputError("the share of synthesised pairs must lie between 0 and 1", got=share)
    if made is None:
        return pairs
    return PosePairs.concatenate([pairs, made.thinned(max(1, round(len(pairs) * share / (1 - share))), seed)])
