"""Pose pairs as settings name them."""

from __future__ import annotations

from pathlib import Path

from posesyn.data.pose_pair_sources import (
    CameraRig,
    h36m_pairs,
    joints_of_motion,
    mpi_inf_3dhp_pairs,
    pairs_of_clips,
    pairs_of_joints,
)
from posesyn.data.pose_pairs import PosePairs
from posesyn.errors import FileError, InputError
from posesyn.training.poseaug_settings import PosePairSettings


def load_pairs(settings: PosePairSettings, seed: int = 0) -> PosePairs:
    """Reads pose pairs; motions are seen by the default :class:`CameraRig`.

    A motion's subject is what stands before the first underscore of its file's name, as in CMU's ``02_01.bvh``.

    Raises:
        FileError: Nothing is there. InputError: As the readers in :mod:`posesyn.data.pose_pair_sources`.
    """
    if settings.format == "h36m":
        subjects = None if settings.subjects is None else tuple(settings.subjects)
        return h36m_pairs(settings.path, settings.keypoints, subjects, settings.stride)
    if settings.format == "3dhp":
        pairs = mpi_inf_3dhp_pairs(settings.path)
    elif settings.format == "clips":
        pairs = pairs_of_clips(settings.path)
    elif settings.format == "motions":
        pairs = _motions(Path(settings.path), seed)
    else:
        raise InputError("unknown format of pose pairs", expected="h36m, motions, clips or 3dhp", got=settings.format)
    if settings.subjects is not None:
        pairs = pairs.of_subjects(settings.subjects)
    return pairs[:: settings.stride]


def _motions(folder: Path, seed: int) -> PosePairs:
    from posesyn.data.bvh import bvh_joints
    from posesyn.data.motions import load_motion

    files = sorted(path for end in ("*.bvh", "*.bvh.gz", "*.npz") for path in folder.rglob(end))
    if not files:
        raise FileError("no motions", where=folder, expected=".bvh, .bvh.gz or AMASS-style .npz files")

    def rows():
        for path in files:
            joints = joints_of_motion(load_motion(path)) if path.suffix == ".npz" else bvh_joints(path)
            name = path.name.split(".")[0]
            yield joints, "humanml3d22", name, name.split("_")[0]

    return pairs_of_joints(rows(), CameraRig(), seed)


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
