"""Finds frames in which a mocap skeleton jumps, and mends or cuts them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from posesyn.data.bvh_file import BvhClip
from posesyn.data.bvh_skeletons import bvh_skeleton

# A joint of a body faster than this is a fault of the capture; the CMU pack's README gives the same limit.
MAX_JOINT_SPEED = 13.0  # m/s
# Our own choices: jumps closer together than this belong to one glitch; shorter ones are interpolated, longer are cut.
JOIN_SECONDS = 0.2
MEND_SECONDS = 0.11


@dataclass(frozen=True)
class CleanPiece:
    """A stretch of a clip without glitches: frames ``start`` to ``stop`` (exclusive) of the source."""

    clip: BvhClip
    start: int
    stop: int
    mended_frames: int


def clean_pieces(clip: BvhClip, max_joint_speed: float = MAX_JOINT_SPEED) -> list[CleanPiece]:
    """Splits a clip at glitches, in order of time; a clip without glitches is one piece.

    A jump is a step between two frames in which one of the 22 joints moves faster than ``max_joint_speed`` (m/s). A
    glitch of at most 0.11 s from which the body returns to where it can be is filled in between its neighbours (slerp);
    at any other the clip is cut and the frames of the glitch are dropped.
    """
    speed = np.linalg.norm(np.diff(bvh_skeleton(clip).joints_world(clip), axis=0), axis=-1) * clip.fps
    jumps = np.flatnonzero(speed.max(axis=1, initial=0.0) > max_joint_speed)
    pieces, start, mended = [], 0, []
    for first, last in _groups(jumps, max(1, round(JOIN_SECONDS * clip.fps))):
        # The glitched frames are first + 1 .. last; ``first`` and ``last + 1`` are sound.
        sound = last + 1
        if last > first and first >= start and last - first <= MEND_SECONDS * clip.fps:
            mended_clip = _interpolated(clip, first, sound)
            speeds = np.linalg.norm(
                np.diff(bvh_skeleton(clip).joints_world(mended_clip.cut(first, sound + 1)), axis=0), axis=-1
            )
            if speeds.max() * clip.fps <= max_joint_speed:
                clip = mended_clip
                mended += range(first + 1, sound)
                continue
        if first + 1 > start:
            pieces.append((start, first + 1))
        start = sound
    pieces.append((start, len(clip)))
    return [CleanPiece(clip.cut(a, b), a, b, sum(a <= frame < b for frame in mended)) for a, b in pieces]


def _groups(jumps: np.ndarray, join: int) -> list[tuple[int, int]]:
    """First and last jump of each run of jumps that lie at most ``join`` frames apart."""
    if len(jumps) == 0:
        return []
    breaks = np.flatnonzero(np.diff(jumps) > join) + 1
    return [(int(run[0]), int(run[-1])) for run in np.split(jumps, breaks)]


def _interpolated(clip: BvhClip, before: int, after: int) -> BvhClip:
    rotations, root = clip.rotations.copy(), clip.root.copy()
    times = np.arange(before + 1, after)
    weight = ((times - before) / (after - before))[:, None]
    root[times] = root[before] * (1 - weight) + root[after] * weight
    for joint in range(rotations.shape[1]):
        ends = Rotation.from_matrix(rotations[[before, after], joint])
        rotations[times, joint] = Slerp([before, after], ends)(times).as_matrix()
    return replace(clip, rotations=rotations, root=root)
