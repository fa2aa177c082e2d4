"""Motions as npz files in the form of AMASS: ``poses, trans, betas, mocap_framerate, gender``, z up.

The world is turned at this boundary only: z up in the file, y up in a :class:`posesyn.Motion` (x, y, z) → (x, z, -y).
The turn goes about the world's origin while ``trans`` is added to a body whose pelvis is not at its own origin, so the
translation changes by the rest pelvis: trans' = Q (pelvis + trans) - pelvis.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from posesyn.errors import FileError, InputError
from posesyn.storage.files import read_npz, write_npz
from posesyn.types import Motion, ViewRequest

# z up → y up, no mirror.
_Z_TO_Y = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
# Pelvis of the neutral SMPL mean shape at rest, metres (row 0 of J_regressor @ v_template).
SMPL_PELVIS = (-0.0018, -0.2233, 0.0282)
_POSE_SIZES = {72: 24, 156: 22, 165: 22}  # SMPL; SMPL+H; SMPL-X: joints of the body without hands and face
_VIEW = ("camera_yaw", "camera_elevation")
_TEXT = ("motion_id", "caption", "person_id", "anchor_frame", "reprojection_error")
Layout = Literal["smplh", "smplx", "smpl"]
_LAYOUTS = {"smpl": 72, "smplh": 156, "smplx": 165}
_AMASS_BETAS = 16
_ARRAYS = (
    "poses", "trans", "betas", "mocap_framerate", "mocap_frame_rate",
    "posesyn_pelvis", "posesyn_text", "posesyn_hands", "posesyn_joints",
)  # fmt: skip


def save_motion(path: str | PathLike[str], motion: Motion, *, body: Any = None, layout: Layout = "smplh") -> None:
    """Writes a motion so that AMASS readers and :func:`load_motion` understand it (z up).

    Args:
        path: An ``.npz`` file; replaced if it exists.
        motion: The motion.
        layout: Width of ``poses``: ``smplh`` 156 as in AMASS, ``smplx`` 165, ``smpl`` 72. The fingers and the face are
            at rest; SMPL's two hand rotations, which the wider layouts have no place for, go into a field of our own.
            ``betas`` has AMASS' 16 numbers, the last six zero, except for ``smpl``.
        body: The body its translation belongs to, for its rest pelvis; None takes the pelvis from ``joints_world``,
            or SMPL's mean shape where there are none.

    Raises:
        FileError: The file cannot be written. InputError: Unknown layout.
    """
    if isinstance(path, Motion) or not isinstance(motion, Motion):
        got = f"{type(path).__name__} and {type(motion).__name__}"
        raise InputError("save_motion takes a path and one motion", got=got, fix="write save_motion(path, motion)")
    if layout not in _LAYOUTS:
        raise InputError("unknown layout", where=path, expected=list(_LAYOUTS), got=layout)
    pelvis = _rest_pelvis(motion.betas, body)
    if pelvis is None and motion.joints_world is not None:
        pelvis = np.median(motion.joints_world[:, 0] - motion.transl_world, axis=0)
    pelvis = np.array(SMPL_PELVIS) if pelvis is None else pelvis
    pose, trans = _turned(motion.pose_rotvec, motion.transl_world, pelvis, pelvis, _Z_TO_Y.T)
    width = _LAYOUTS[layout]
    shared = 3 * _POSE_SIZES[width]
    poses = np.zeros((len(motion), width))
    poses[:, :shared] = pose.reshape(len(motion), 72)[:, :shared]
    arrays = {
        "poses": poses,
        "trans": trans,
        "betas": motion.betas if layout == "smpl" else np.pad(motion.betas, (0, _AMASS_BETAS - len(motion.betas))),
        "mocap_framerate": np.float64(motion.fps),
        "gender": np.str_("neutral"),
        "posesyn_pelvis": pelvis.astype(np.float64),
        "posesyn_text": np.str_(json.dumps(_text_fields(motion), ensure_ascii=False)),
    }
    if layout != "smpl" and motion.pose_rotvec[:, 22:].any():
        arrays["posesyn_hands"] = motion.pose_rotvec[:, 22:]
    if motion.joints_world is not None:
        arrays["posesyn_joints"] = motion.joints_world @ _Z_TO_Y.astype(np.float32)
    write_npz(path, arrays)


def load_motion(
    path: str | PathLike[str], *, body: Any = None, fps: float | None = None, up: Literal["z", "y"] = "z"
) -> Motion:
    """Reads an AMASS-style npz: SMPL (72 numbers per frame), SMPL+H (156) or SMPL-X (165); hands and face fall away.

    Args:
        path: The file.
        body: The body that will perform the motion; its rest pelvis keeps the pelvis where the file has it. None
            returns the translation of the body that the file was made with.
        fps: Rate, where the file has none or a wrong one.
        up: Up axis of the file's world.

    Returns:
        The motion, y up. Betas beyond the tenth fall away. The file's own fields ``posesyn_*`` are restored.

    Raises:
        FileError: Missing, damaged, or without the needed arrays. UnsafeFileError: one of these holds Python objects,
            or the file inflates beyond 2 GB. InputError: wrong shapes, NaN, no frame, unknown frame rate.

    Example:
        >>> import tempfile
        >>> motion = Motion("stand", np.zeros((4, 24, 3)), np.zeros((4, 3)), np.zeros(10), fps=20.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_motion(f"{folder}/stand.npz", motion)
        ...     print(load_motion(f"{folder}/stand.npz"))
        Motion(motion_id='stand', pose_rotvec=(4, 24, 3), transl_world=(4, 3), betas=(10,), fps=20)
    """
    if not isinstance(path, str | PathLike):
        raise InputError("load_motion takes the path of a file", got=type(path).__name__)
    path = Path(path)
    # The SMPL-X release of AMASS stores markers as Python objects beside the poses: these are not looked at.
    arrays = read_npz(path, only=_ARRAYS)
    poses, trans = (_array(arrays, name, path) for name in ("poses", "trans"))
    if poses.ndim != 2 or poses.shape[1] not in _POSE_SIZES or len(poses) == 0 or trans.shape != (len(poses), 3):
        expected, got = "poses (T, 72 | 156 | 165) and trans (T, 3), T >= 1", (poses.shape, trans.shape)
        raise InputError("poses and trans have the wrong shapes", where=path, expected=expected, got=got)
    joints = _POSE_SIZES[poses.shape[1]]
    pose = np.zeros((len(poses), 24, 3))
    pose[:, :joints] = poses[:, : 3 * joints].reshape(-1, joints, 3)
    if "posesyn_hands" in arrays:
        hands = _array(arrays, "posesyn_hands", path)
        if hands.shape != (len(poses), 2, 3):
            raise InputError("posesyn_hands has the wrong shape", where=path, expected="(T, 2, 3)", got=hands.shape)
        pose[:, 22:] = hands
    betas = np.zeros(10)
    given = _array(arrays, "betas", path).reshape(-1)[:10] if "betas" in arrays else betas
    betas[: len(given)] = given
    pelvis = _array(arrays, "posesyn_pelvis", path) if "posesyn_pelvis" in arrays else np.array(SMPL_PELVIS)
    target = _rest_pelvis(betas, body)
    turn = _Z_TO_Y if up == "z" else np.eye(3)
    pose, trans = _turned(pose, trans, pelvis, pelvis if target is None else target, turn)
    text = _load_text(arrays, path)
    joints_world = _array(arrays, "posesyn_joints", path) @ turn.T if "posesyn_joints" in arrays else None
    name = text.pop("motion_id", None) or path.stem
    return Motion(name, pose, trans, betas, _frame_rate(arrays, path, fps), joints_world, **text)


def _turned(
    pose: np.ndarray, trans: np.ndarray, pelvis: np.ndarray, new_pelvis: np.ndarray, turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pose and translation in a world turned by ``turn``."""
    pose = np.array(pose, np.float64)
    pose[:, 0] = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    return pose, (np.asarray(trans, np.float64) + pelvis) @ turn.T - new_pelvis


def _rest_pelvis(betas: np.ndarray, body: Any) -> np.ndarray | None:
    if body is None:
        return None
    with torch.no_grad():
        shape = torch.as_tensor(np.asarray(betas), dtype=torch.float32).reshape(1, 10)
        return body.rest_joints(shape)[0, 0].double().cpu().numpy()


def _array(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in arrays:
        raise FileError("not an AMASS file", where=path, expected=f"an array '{name}'", got=sorted(arrays)[:20])
    value = arrays[name]
    if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        raise InputError(f"'{name}' must hold finite numbers", where=path, got=value.dtype)
    return value.astype(np.float64)


def _frame_rate(arrays: dict[str, np.ndarray], path: Path, fps: float | None) -> float:
    # The first releases write framerate, the SMPL-X release frame_rate.
    for name in ("mocap_framerate", "mocap_frame_rate"):
        if fps is None and name in arrays:
            fps = float(_array(arrays, name, path).reshape(-1)[0])
    if fps is None or not 0 < fps < math.inf:
        raise InputError("the frame rate is unknown or not positive", where=path, got=fps, fix="pass fps=...")
    return fps


def _text_fields(motion: Motion) -> dict[str, Any]:
    try:
        meta = json.loads(json.dumps(dict(motion.meta), default=_plain))
    except (TypeError, ValueError) as error:
        raise InputError("Motion.meta cannot be stored", where=f"motion '{motion.motion_id}'", got=error) from error
    return {
        **{name: getattr(motion, name) for name in _TEXT},
        "meta": meta,
        **({} if motion.view is None else {"view": asdict(motion.view)}),
        **({} if motion.subject is None else {"subject": motion.subject}),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain data")


def _load_text(arrays: dict[str, np.ndarray], path: Path) -> dict[str, Any]:
    if "posesyn_text" not in arrays:
        return {}
    try:
        text = json.loads(str(arrays["posesyn_text"]))
        found = {name: text[name] for name in (*_TEXT, "meta", "subject") if name in text}
        view = text.get("view")
        if view is None and isinstance(text.get("meta"), dict):  # where files of posesyn before 0.1 have it
            view = {name: text["meta"].pop(name) for name in _VIEW if name in text["meta"]} or None
        return found if view is None else {**found, "view": ViewRequest(**view)}
    except (ValueError, TypeError) as error:
        raise FileError("damaged posesyn_text", where=path, got=str(error)) from error
