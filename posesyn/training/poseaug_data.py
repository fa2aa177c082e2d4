"""Pose pairs as settings name them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from posesyn.data.camera_rig import CameraRig
from posesyn.data.h36m import TRAIN_SUBJECTS
from posesyn.data.pose_pair_sources import (
    h36m_pairs,
    joints_of_motion,
    mpi_inf_3dhp_pairs,
    pairs_of_clips,
    pairs_of_joints,
)
from posesyn.data.pose_pairs import PosePairs
from posesyn.errors import FileError, InputError
from posesyn.storage.arrays import npz_names
from posesyn.training.poseaug_settings import PosePairSettings

_FPS = 20.0  # of motions; what HumanML3D uses


def load_pairs(settings: PosePairSettings, seed: int = 0) -> PosePairs:
    """Reads pose pairs, as :class:`PosePairSettings` says.

    Raises:
        FileError: Nothing is there. InputError: As the readers in :mod:`posesyn.data.pose_pair_sources`.
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
    from posesyn.data.bvh import bvh_joints
    from posesyn.data.motions import load_motion

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
        made: From :func:`posesyn.data.pose_pair_sources.pairs_of_clips`; None adds nothing.
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
