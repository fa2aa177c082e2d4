"""Motions as BVH files that animation programs open upright: y up, centimetres, names of MotionBuilder and Mixamo."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from posesyn.data.motions.bvh_file import BvhClip, read_bvh
from posesyn.data.motions.bvh_skeletons import (
    BODY_JOINTS,
    PARENTS,
    SMPL_NAMES,
    aim,
    body_rest,
    bone_lengths,
    bvh_skeleton,
    fit_shape,
    local_rotvec,
    refine,
    rest_correction,
)
from posesyn.errors import InputError
from posesyn.storage.files import write_bytes
from posesyn.types import Motion

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
    jumps = np.flatnonzero(_speeds(clip).max(axis=1, initial=0.0) > max_joint_speed)
    pieces, start, mended = [], 0, []
    for first, last in _groups(jumps, max(1, round(JOIN_SECONDS * clip.fps))):
        # The glitched frames are first + 1 .. last; ``first`` and ``last + 1`` are sound.
        sound = last + 1
        if last > first and first >= start and last - first <= MEND_SECONDS * clip.fps:
            mended_clip = _interpolated(clip, first, sound)
            if _speeds(mended_clip.cut(first, sound + 1)).max() <= max_joint_speed:
                clip = mended_clip
                mended += range(first + 1, sound)
                continue
        if first + 1 > start:
            pieces.append((start, first + 1))
        start = sound
    pieces.append((start, len(clip)))
    return [CleanPiece(clip.cut(a, b), a, b, sum(a <= frame < b for frame in mended)) for a, b in pieces]


def _speeds(clip: BvhClip) -> np.ndarray:
    """(N - 1, 22) metres per second."""
    return np.linalg.norm(np.diff(bvh_skeleton(clip).joints_world(clip), axis=0), axis=-1) * clip.fps


def _groups(jumps: np.ndarray, join: int) -> list[tuple[int, int]]:
    """First and last jump of each run of jumps that lie at most ``join`` frames apart."""
    breaks = np.flatnonzero(np.diff(jumps) > join) + 1
    return [(int(run[0]), int(run[-1])) for run in np.split(jumps, breaks) if len(run)]


def _interpolated(clip: BvhClip, before: int, after: int) -> BvhClip:
    rotations, root = clip.rotations.copy(), clip.root.copy()
    times = np.arange(before + 1, after)
    weight = ((times - before) / (after - before))[:, None]
    root[times] = root[before] * (1 - weight) + root[after] * weight
    for joint in range(rotations.shape[1]):
        ends = Rotation.from_matrix(rotations[[before, after], joint])
        rotations[times, joint] = Slerp([before, after], ends)(times).as_matrix()
    return replace(clip, rotations=rotations, root=root)


_FEET = (7, 8, 10, 11)
# Our own choices. A capture whose lowest foot lies within this distance of the floor stands on it; others hang, climb
# or stand on something and keep their height.
_FLOOR_REACH = 0.15  # metres
_FLOOR_PERCENTILE = 5  # that of floor_m in data/cmu


def bvh_joints(
    path: str | PathLike[str], *, fps: float = 20.0, source_fps: float | None = None, unit_to_m: float | None = None
) -> np.ndarray:
    """The longest glitch-free stretch of a BVH file as (T, 22, 3) float32 joints ``humanml3d22``, metres, y up.

    Arguments and errors are those of :func:`bvh_to_motion`.
    """
    clip = _clean_clip(path, fps, source_fps, unit_to_m)[0]
    return bvh_skeleton(clip).joints_world(clip).astype(np.float32)


def bvh_to_motion(
    path: str | PathLike[str],
    body: Any = None,
    *,
    fps: float = 20.0,
    source_fps: float | None = None,
    unit_to_m: float | None = None,
    caption: str = "",
    betas: np.ndarray | None = None,
) -> Motion:
    """A BVH file as an SMPL motion of ``body``.

    The longest stretch without capture glitches is resampled, each mocap rotation is corrected for the difference of
    the rest poses, and the bones are then aimed at the mocap joints, which keeps the mocap's twist.

    Scaling to the body: betas are fitted to the mocap's bone lengths, and **one** factor (``meta["scale"]``) about the
    world's origin brings the whole mocap, path and floor included, to the size of that body; then everything is raised
    so that the feet stand on the floor. ``joints_world`` of the result are the mocap's joints after this.

    Args:
        path: ``.bvh`` or ``.bvh.gz`` with a known skeleton (``cmu31``, ``cmu31-3dsmax``, ``daz43``).
        body: From ``posesyn.load_body``; None loads the free body.
        fps: Rate of the motion.
        source_fps: True rate of the file where its header is wrong.
        unit_to_m: Metres per file unit; None guesses it from the body height.
        caption: Stored with the motion.
        betas: (10,) shape to use instead of the fitted one.

    Returns:
        The motion, y up, floor y = 0, in the place and direction of the mocap.

    Raises:
        FileError, UnsafeFileError: As :func:`posesyn.data.motions.bvh_file.read_bvh`.
        InputError: Unknown skeleton, unit that cannot be guessed, bad arguments.
    """
    clip, found = _clean_clip(path, fps, source_fps, unit_to_m)
    body = _free_body() if body is None else body
    skeleton = bvh_skeleton(clip)
    source = skeleton.joints_world(clip)
    fitted, scale = fit_shape(bone_lengths(source).mean(axis=0), body, betas)
    rest = body_rest(body, fitted)
    targets = source * scale
    rotations = skeleton.global_rotations(clip) @ rest_correction(skeleton.rest_points(clip), rest)
    rotations, joints = refine(aim(rotations, targets, rest)[0], targets, rest)
    lift = _lift(joints, rest)
    transl = joints[:, 0] - rest[0] + lift
    meta = {"source": str(path), "skeleton": skeleton.name, "scale": scale, "lift_m": float(lift[1]), **found}
    return Motion(_stem(path), local_rotvec(rotations), transl, fitted, fps, targets + lift, caption, meta=meta)


def _free_body() -> Any:
    from posesyn.body import load_body

    return load_body("anny", size="small")


def _clean_clip(
    path: str | PathLike[str], fps: float, source_fps: float | None, unit_to_m: float | None
) -> tuple[BvhClip, dict[str, Any]]:
    if not 0 < fps < math.inf:
        raise InputError("fps must be positive", where=str(path), got=fps)
    clip = read_bvh(path, fps=source_fps, unit_to_m=unit_to_m)
    clip = bvh_skeleton(clip).repaired(clip)
    piece = max(clean_pieces(clip), key=lambda piece: len(piece.clip))
    found = {
        "source_fps": clip.fps,
        "source_frames": [piece.start, piece.stop],
        "source_length": len(clip),
        "mended_frames": piece.mended_frames,
        "unit_to_m": clip.metres_per_unit(),
    }
    return piece.clip.resampled(fps), found


def _lift(joints: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(3,) shift that puts the lowest foot joint of the clip where it is when the body stands at rest.

    The sole is taken to lie as far below the toe joints as they lie below the ankles at rest times one half, which is
    3 cm for SMPL's mean shape (our own choice; joints say nothing about soles).
    """
    lowest = np.percentile(joints[:, list(_FEET), 1].min(axis=1), _FLOOR_PERCENTILE)
    sole = 0.5 * (rest[[7, 8], 1] - rest[[10, 11], 1]).mean()
    return np.array([0.0, sole - lowest if abs(lowest) <= _FLOOR_REACH else 0.0, 0.0])


def _stem(path: str | PathLike[str]) -> str:
    return re.sub(r"(\.bvh)?(\.gz)?$", "", Path(path).name, count=1, flags=re.IGNORECASE)


METRES_PER_UNIT = 0.01
# What all importers read: positions of the root, then z, y, x turns in this order, R = Rz Ry Rx (as MotionBuilder).
_ORDER = ("Zrotation", "Yrotation", "Xrotation")
# Tips of the bones that end, metres; programs draw them, nothing else depends on them. Our own choice.
_TIPS = {15: (0.0, 0.18, 0.0), 10: (0.0, 0.0, 0.07), 11: (0.0, 0.0, 0.07), 22: (0.08, 0.0, 0.0), 23: (-0.08, 0.0, 0.0)}
_FITS = 2


def write_bvh(
    path: str | PathLike[str],
    motion: Motion,
    body: Any = None,
    *,
    bones: Literal["joints", "body"] = "joints",
    source_size: bool = False,
) -> None:
    """Writes a motion as BVH; :func:`posesyn.data.motions.bvh.read_bvh` and animation programs read it.

    Args:
        path: The file, replaced if it exists.
        motion: The motion.
        body: The body it belongs to; None loads the free one.
        bones: ``"body"``: the hierarchy has the body's rest joints and the rotations are the motion's own.
            ``"joints"``: the bones are given the lengths of ``joints_world``, where the motion has them, and are aimed
            at them. Mocap keeps its joints so, which ten betas cannot follow (CMU's upper arms are 4 cm longer).
        source_size: Undo the one factor and the lift that ``bvh_to_motion`` brought the mocap to the body with
            (``meta["scale"]``, ``meta["lift_m"]``), so the file has the size of the person again.

    Raises:
        FileError: The file cannot be written.
        InputError: Unknown ``bones``.
    """
    if bones not in ("joints", "body"):
        raise InputError("unknown choice of bones", where="write_bvh", expected="joints or body", got=bones)
    rest = body_rest(_free_body() if body is None else body, motion.betas)
    local = Rotation.from_rotvec(motion.pose_rotvec.reshape(-1, 3).astype(np.float64)).as_matrix()
    local = local.reshape(-1, len(PARENTS), 3, 3)
    root = motion.transl_world.astype(np.float64) + rest[0]
    if bones == "joints" and motion.joints_world is not None:
        rest, local, root = _own_bones(motion.joints_world.astype(np.float64), local, rest)
    size = 1.0
    if source_size:
        size = 1.0 / float(motion.meta.get("scale", 1.0))
        root = root - np.array([0.0, float(motion.meta.get("lift_m", 0.0)), 0.0])
    write_bytes(path, (_hierarchy(rest * size) + _frames(local, root * size, motion.fps)).encode("ascii"))


def _own_bones(joints: np.ndarray, local: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rest joints with the bones of ``joints`` (T, 22, 3), and the local rotations and root that bring them there."""
    world = _global(local)
    lengths = bone_lengths(joints).mean(axis=0)
    rest = _with_bones(rest, rest[1:BODY_JOINTS] - rest[list(PARENTS[1:BODY_JOINTS])], lengths)
    for _ in range(_FITS):
        turned, placed = refine(aim(world[:, :BODY_JOINTS], joints, rest)[0], joints, rest)
        # With these rotations, the bones that fit best are means: linear least squares.
        bones = [
            np.einsum("tba,tb->ta", turned[:, PARENTS[j]], joints[:, j] - joints[:, PARENTS[j]]).mean(0)
            for j in range(1, BODY_JOINTS)
        ]
        rest = _with_bones(rest, bones, lengths)
    turned, placed = refine(turned, joints, rest)
    hands = local[:, BODY_JOINTS:]
    fitted = Rotation.from_rotvec(local_rotvec(turned)[:, :BODY_JOINTS].reshape(-1, 3)).as_matrix()
    return rest, np.concatenate([fitted.reshape(-1, BODY_JOINTS, 3, 3), hands], axis=1), placed[:, 0]


def _with_bones(rest: np.ndarray, bones: Sequence[np.ndarray] | np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rest joints whose 21 bones point along the given vectors and have the given lengths; hands keep their bones."""
    result = rest.copy()
    for joint, parent in enumerate(PARENTS[1:], 1):
        bone = rest[joint] - rest[parent]
        if joint < BODY_JOINTS and (norm := np.linalg.norm(bones[joint - 1])) > 1e-6:
            bone = bones[joint - 1] * (lengths[joint - 1] / norm)
        result[joint] = result[parent] + bone
    return result


def _global(local: np.ndarray) -> np.ndarray:
    world = local.copy()
    for joint in range(1, len(PARENTS)):
        world[:, joint] = world[:, PARENTS[joint]] @ local[:, joint]
    return world


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(PARENTS) if parent == joint]


def _file_order(joint: int = 0) -> list[int]:
    """A joint and all below in the order in which the hierarchy, and so every line of numbers, names them."""
    return [joint, *(below for child in _children(joint) for below in _file_order(child))]


def _hierarchy(rest: np.ndarray) -> str:
    def offset(values: np.ndarray) -> str:
        return "OFFSET " + " ".join(f"{value / METRES_PER_UNIT:.6f}" for value in values)

    def block(joint: int, depth: int) -> list[str]:
        tab, inner = "\t" * depth, "\t" * (depth + 1)
        # The root's place is in its channels; an offset beside them is added by some readers and not by others.
        bone = np.zeros(3) if joint == 0 else rest[joint] - rest[PARENTS[joint]]
        positions = "Xposition Yposition Zposition " if joint == 0 else ""
        lines = [f"{tab}{'ROOT' if joint == 0 else 'JOINT'} {SMPL_NAMES[joint]}", f"{tab}{{", inner + offset(bone)]
        lines.append(f"{inner}CHANNELS {6 if joint == 0 else 3} {positions}{' '.join(_ORDER)}")
        for child in _children(joint):
            lines += block(child, depth + 1)
        if joint in _TIPS:
            lines += [f"{inner}End Site", f"{inner}{{", f"{inner}\t{offset(np.array(_TIPS[joint]))}", f"{inner}}}"]
        return [*lines, f"{tab}}}"]

    return "\n".join(["HIERARCHY", *block(0, 0)]) + "\n"


def _frames(local: np.ndarray, root: np.ndarray, fps: float) -> str:
    order = _file_order()
    angles = Rotation.from_matrix(local[:, order].reshape(-1, 3, 3)).as_euler("ZYX", degrees=True)
    angles = continuous_angles(angles.reshape(len(local), len(order), 3))
    values = np.concatenate([root / METRES_PER_UNIT, angles.reshape(len(local), -1)], axis=1)
    lines = [" ".join(f"{value:.5f}" for value in row) for row in values]
    return "\n".join(["MOTION", f"Frames: {len(local)}", f"Frame Time: {1 / fps:.9g}", *lines]) + "\n"


def continuous_angles(angles: np.ndarray) -> np.ndarray:
    """(T, J, 3) Euler angles in degrees, outer to inner → the same rotations without jumps of half and whole turns.

    Of the two triples (a, b, c) and (a + 180, 180 - b, c + 180) that mean one rotation, and of their whole turns, each
    frame takes the one nearest to the frame before; programs that interpolate angles else spin limbs between frames.
    """
    result = np.array(angles, np.float64)
    for t in range(1, len(result)):
        before = result[t - 1]
        first = result[t]
        second = first * [1, -1, 1] + 180.0
        candidates = [value + 360.0 * np.round((before - value) / 360.0) for value in (first, second)]
        nearer = np.abs(candidates[1] - before).sum(-1) < np.abs(candidates[0] - before).sum(-1) - 1e-9
        result[t] = np.where(nearer[:, None], candidates[1], candidates[0])
    return result
