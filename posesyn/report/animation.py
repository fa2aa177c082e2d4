"""Clips and motions as animated pictures: WebP, or GIF where Pillow was built without WebP."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image, features

from posesyn.errors import InputError
from posesyn.report.embedding import as_rgb, data_uri, shrink
from posesyn.report.overlays import clip_overlay, draw_skeleton
from posesyn.types import Clip, Motion

# Tried in this order until the picture fits its budget: (longer side, quality, keep every n-th frame). Our own choice.
_STEPS = ((1.0, 60, 1), (1.0, 40, 1), (0.8, 40, 2), (0.6, 30, 2), (0.5, 20, 3), (0.35, 10, 4))
_REJECTED = (205, 40, 40)


def encode_animation(frames: np.ndarray, fps: float, quality: int = 60) -> bytes:
    """(T, H, W, 3) uint8 RGB → an endlessly repeated WebP (or GIF) of T frames; one frame gives a still picture.

    Raises:
        InputError: No frames, not RGB, or ``fps`` not positive.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or len(frames) == 0:
        raise InputError("an animation needs frames", expected="(T, H, W, 3) uint8, T >= 1", got=frames.shape)
    as_rgb(frames[0], "encode_animation")
    if not fps > 0:
        raise InputError("fps must be positive", where="encode_animation", got=fps)
    # Durations are whole milliseconds; rounding the time of each frame, not each duration, keeps the total exact.
    stamps = np.round(np.arange(len(frames) + 1) * 1000.0 / fps)
    durations = np.maximum(np.diff(stamps), 1).astype(int).tolist()
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    buffer = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "append_images": pictures[1:], "loop": 0}
    options["duration"] = durations if len(pictures) > 1 else durations[0]
    webp = features.check("webp")
    options |= {"format": "WEBP", "quality": quality, "method": 2} if webp else {"format": "GIF", "optimize": True}
    pictures[0].save(buffer, **options)
    return buffer.getvalue()


def encode_within(frames: np.ndarray, fps: float, max_bytes: int) -> bytes:
    """Like :func:`encode_animation`, coarser and coarser until it takes at most ``max_bytes``.

    Speed and duration stay the same. If even the coarsest animation is too large, its first frame alone is returned.
    """
    longest = max(frames.shape[1:3])
    for factor, quality, stride in _STEPS:
        size = max(16, round(longest * factor))
        reduced = np.stack([shrink(frame, size) for frame in frames[::stride]])
        encoded = encode_animation(reduced, fps / stride, quality)
        if len(encoded) <= max_bytes:
            return encoded
    return encode_animation(reduced[:1], fps, quality)


def clip_frames(clip: Clip, max_size: int = 256, skeleton: bool = False, max_frames: int = 120) -> np.ndarray:
    """The frames of a clip made ready to show: (T, h, w, 3) uint8, T at most ``max_frames`` from the beginning, with
    the exact 2D joints if asked for, and with a red rim around frames that the filter dropped."""
    pictures = []
    for t in range(min(len(clip), max_frames)):
        picture = shrink(clip_overlay(clip, t) if skeleton else as_rgb(clip.frames[t], clip.clip_id), max_size)
        if not clip.keep[t]:
            picture, edge = picture.copy(), max(2, round(max(picture.shape[:2]) / 64))
            far = picture.shape[1] - 1, picture.shape[0] - 1
            cv2.rectangle(picture, (0, 0), far, _REJECTED, 2 * edge)
        pictures.append(picture)
    return np.stack(pictures)


def clip_to_webp(
    clip: Clip | np.ndarray,
    fps: float | None = None,
    max_size: int = 256,
    skeleton: bool = False,
    max_bytes: int | None = None,
) -> bytes:
    """A clip, or plain frames (T, H, W, 3) uint8, as an animated picture.

    Args:
        fps: Frames per second; None takes the clip's own (20 for plain frames).
        max_size: Longer side in pixels at most.
        skeleton: Draw the exact 2D joints (clips only).
        max_bytes: Budget; the picture gets coarser until it fits.
    """
    if isinstance(clip, Clip):
        frames, fps = clip_frames(clip, max_size, skeleton), fps or clip.fps
    else:
        clip = np.asarray(clip)
        if clip.ndim != 4 or len(clip) == 0:
            raise InputError("an animation needs frames", expected="a Clip or (T, H, W, 3) uint8", got=clip.shape)
        frames, fps = np.stack([shrink(as_rgb(frame, "clip_to_webp"), max_size) for frame in clip]), fps or 20.0
    return encode_animation(frames, fps) if max_bytes is None else encode_within(frames, fps, max_bytes)


def motion_joints(motion: Motion) -> np.ndarray:
    """(T, 22, 3) metres, world: stored with the motion, or by forward kinematics of the shipped body."""
    if motion.joints_world is not None:
        return np.asarray(motion.joints_world, np.float64)
    # Both load torch, which a report of 2D errors alone does not need.
    import torch

    from posesyn.body import load_body
    from posesyn.geometry.rotations import rotvec_to_matrix

    body = load_body("anny", size="small")
    with torch.no_grad():
        pose, betas = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec)), torch.from_numpy(motion.betas)[None]
        joints = body.joints_only(pose, betas, torch.from_numpy(motion.transl_world))
    return joints[:, :22].double().numpy()


def motion_frames(
    motion: Motion, size: int = 224, azimuth: float = np.radians(35.0), elevation: float = np.radians(12.0)
) -> np.ndarray:
    """A stick figure on a checked floor, seen from a fixed direction that follows the figure; (T, size, size, 3) uint8.

    Azimuth and elevation in radians; at azimuth 0 the eye stands on the +z side, where the face of an unrotated SMPL
    body is.
    """
    joints = motion_joints(motion)
    # Rows of the view: right, up, towards the eye.
    ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
    right, up = np.array([ca, 0.0, -sa]), np.array([-sa * se, ce, -ca * se])
    # The eye follows the smoothed root, so a walk stays in view and yet visibly moves over the floor.
    root = joints[:, 0] * (1.0, 0.0, 1.0)
    window = np.ones(2 * (len(root) // 2) + 1)[: min(len(root), 21)]
    weights = np.convolve(np.ones(len(root)), window, "same")
    follow = np.stack([np.convolve(root[:, i], window, "same") / weights for i in range(3)], -1)
    follow[:, 1] = (joints[..., 1].min() + max(joints[..., 1].max(), joints[..., 1].min() + 1.6)) / 2
    local = joints - follow[:, None]
    flat = np.stack([local @ right, -(local @ up)], -1)
    scale = 0.86 * size / max(2 * float(np.abs(flat).max()), 2.0)
    every = np.ones(22, bool)
    frames = []
    for t in range(len(joints)):
        canvas = np.full((size, size, 3), 38, np.uint8)
        _draw_floor(canvas, follow[t], right, up, scale)
        points = flat[t] * scale + (size - 1) / 2
        frames.append(draw_skeleton(canvas, points, every, "humanml3d22", thickness=max(1.5, size / 75)))
    return np.stack(frames)


def _draw_floor(canvas: np.ndarray, center: np.ndarray, right: np.ndarray, up: np.ndarray, scale: float) -> None:
    """Half-metre lines of the floor y = 0 around the figure, drawn into ``canvas``."""
    size, reach, step = len(canvas), 2.0, 0.5
    x0, z0 = np.round(center[[0, 2]] / step) * step
    ticks = np.arange(-reach, reach + step / 2, step)
    for tick in ticks:
        across = [(x0 + tick, 0, z0 - reach), (x0 + tick, 0, z0 + reach)]
        for ends in (across, [(x0 - reach, 0, z0 + tick), (x0 + reach, 0, z0 + tick)]):
            local = np.array(ends) - center
            pixels = np.stack([local @ right, -(local @ up)], -1) * scale + (size - 1) / 2
            a, b = np.round(pixels * 16).astype(int).tolist()
            cv2.line(canvas, a, b, (72, 76, 84), 1, cv2.LINE_AA, 4)


def motion_to_webp(
    motion: Motion, fps: float | None = None, max_size: int = 224, max_bytes: int | None = None
) -> bytes:
    """A motion as a moving stick figure, without rendering a body."""
    frames, fps = motion_frames(motion, max_size), fps or motion.fps
    return encode_animation(frames, fps, 75) if max_bytes is None else encode_within(frames, fps, max_bytes)


def animation_uri(clip: Clip | Motion | np.ndarray, **options) -> str:
    """A clip, motion or frames as a ``data:`` address; options as of the function for its kind."""
    return data_uri(motion_to_webp(clip, **options) if isinstance(clip, Motion) else clip_to_webp(clip, **options))
