"""BVH motion capture to SMPL motions. Reading is in ``bvh_file``, the meaning of the joints in ``bvh_skeletons``."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from posesyn.data.bvh_file import BvhClip, read_bvh
from posesyn.data.bvh_glitches import clean_pieces
from posesyn.data.bvh_retarget import aim, body_rest, bone_lengths, fit_shape, local_rotvec, refine, rest_correction
from posesyn.data.bvh_skeletons import bvh_skeleton
from posesyn.errors import InputError
from posesyn.types import Motion

__all__ = ["BvhClip", "bvh_joints", "bvh_to_motion", "read_bvh"]

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
        FileError, UnsafeFileError: As :func:`posesyn.data.bvh_file.read_bvh`.
        InputError: Unknown skeleton, unit that cannot be guessed, bad arguments.
    """
    clip, found = _clean_clip(path, fps, source_fps, unit_to_m)
    if body is None:
        from posesyn.body import load_body

        body = load_body("anny", size="small")
    skeleton = bvh_skeleton(clip)
    source = skeleton.joints_world(clip)
    fitted, scale = fit_shape(bone_lengths(source).mean(axis=0), body, betas)
    rest = body_rest(body, fitted)
    targets = source * scale
    rotations = skeleton.global_rotations(clip) @ rest_correction(skeleton.rest_points(clip), rest)
    rotations, joints = refine(aim(rotations, targets, rest)[0], targets, rest)
    lift = _lift(joints, rest)
    transl = joints[:, 0] - rest[0] + lift
    return Motion(
        motion_id=_stem(path),
        pose_rotvec=local_rotvec(rotations),
        transl_world=transl,
        betas=fitted,
        fps=fps,
        joints_world=targets + lift,
        caption=caption,
        meta={"source": str(path), "skeleton": skeleton.name, "scale": scale, "lift_m": float(lift[1]), **found},
    )


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
    name = Path(path).name
    for suffix in (".gz", ".bvh"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name
