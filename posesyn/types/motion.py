"""Body parameters over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from posesyn.errors import InputError
from posesyn.types.looks import short_repr


@dataclass(frozen=True)
class ViewRequest:
    """From where a motion asks to be seen; the renderer's camera keeps near it. None leaves an angle to chance.

    Attributes:
        camera_yaw: Radians around the world's y axis; at 0 the camera stands at +z and sees the front of a person that
            faces +z.
        camera_elevation: Radians above the horizon from which it looks down.
        truncation: Shares of the body's box that the image's left, top, right and bottom border shall cut off; what is
            left of it fills the image.

    Raises:
        InputError: An angle that is not finite, or cuts that are no shares or leave less than a tenth of the box.
    """

    camera_yaw: float | None = None
    camera_elevation: float | None = None
    truncation: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("camera_yaw", "camera_elevation"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"ViewRequest.{name} must be finite", expected="radians", got=value)
            object.__setattr__(self, name, None if value is None else float(value))
        if self.truncation is None:
            return
        cuts = tuple(map(float, self.truncation))
        left_over = [1 - cuts[axis] - cuts[axis + 2] for axis in (0, 1)] if len(cuts) == 4 else []
        if not left_over or not all(0 <= cut < 1 for cut in cuts) or min(left_over) < 0.1:
            raise InputError(
                "ViewRequest.truncation must be four shares of the body's box",
                expected="(left, top, right, bottom), each 0 or more, a tenth of width and height left over",
                got=self.truncation,
            )
        object.__setattr__(self, "truncation", cuts)


@dataclass(frozen=True, eq=False, repr=False)
class Motion:
    """Body parameters over time in the world frame (y up, floor y = 0).

    Attributes:
        motion_id: Unique name.
        pose_rotvec: (T, 24, 3) local SMPL rotations, root in the world frame.
        transl_world: (T, 3) SMPL translation, metres.
        betas: (10,) shape.
        fps: Frames per second.
        joints_world: (T, 22, 3) the joints the motion was made from or leads to (``humanml3d22``), metres.
        caption: The text it was sampled with, or the mocap caption.
        person_id: The challenging person it was made for, if any.
        anchor_frame: Index of the frame that fits the person's 2D truth best, if ranked.
        reprojection_error: Error of that frame (normalised like the extraction error), if ranked.
        meta: Where it comes from (seed, prior, prefix length, rank ...). Nothing is decided by it.
        subject: Who performed it, where a data set says so; splits keep a subject on one side.
        view: From where the renderer shall show it, or None for anywhere.

    Example:
        >>> motion = Motion("stand", np.zeros((40, 24, 3)), np.zeros((40, 3)), np.zeros(10), fps=20.0)
        >>> motion.resampled(10.0)
        Motion(motion_id='stand', pose_rotvec=(20, 24, 3), transl_world=(20, 3), betas=(10,), fps=10)
    """

    motion_id: str
    pose_rotvec: np.ndarray
    transl_world: np.ndarray
    betas: np.ndarray
    fps: float
    joints_world: np.ndarray | None = None
    caption: str = ""
    person_id: str | None = None
    anchor_frame: int | None = None
    reprojection_error: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    view: ViewRequest | None = None
    subject: str | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        where = f"motion '{self.motion_id}'"
        frames = len(self.pose_rotvec)
        if frames == 0:
            raise InputError("a Motion needs at least one frame", where=where)
        wanted = {"pose_rotvec": (frames, 24, 3), "transl_world": (frames, 3), "betas": (10,)}
        if self.joints_world is not None:
            wanted["joints_world"] = (frames, 22, 3)
        for name, shape in wanted.items():
            value = np.asarray(getattr(self, name), np.float32)
            if value.shape != shape:
                raise InputError(f"Motion.{name} has the wrong shape", where=where, expected=shape, got=value.shape)
            if not np.isfinite(value).all():
                raise InputError(f"Motion.{name} has NaN or infinite values", where=where)
            object.__setattr__(self, name, value)
        if not self.fps > 0:
            raise InputError("Motion.fps must be positive", where=where, got=self.fps)

    def __len__(self) -> int:
        return len(self.pose_rotvec)

    def resampled(self, fps: float) -> Motion:
        """The motion at another rate: rotations along the shortest arc (slerp), positions linear, same duration.

        Frame k of the result is the time k / fps; the last frames that the motion does not cover fall away. The anchor
        becomes the frame nearest to it.

        Raises:
            InputError: ``fps`` is not positive and finite.
        """
        if not 0 < fps < math.inf:
            raise InputError("fps must be positive", where=f"motion '{self.motion_id}', resampled", got=fps)
        from scipy.spatial.transform import Rotation  # `import posesyn` needs no SciPy

        last = len(self) - 1
        # 1e-3 of a frame keeps the last frame where the rates are rounded.
        count = int(last / self.fps * fps + 1e-3) + 1
        times = np.minimum(np.arange(count) / fps * self.fps, last)
        before = np.minimum(times.astype(int), max(last - 1, 0))
        after, share = np.minimum(before + 1, last), times - before

        def mixed(values: np.ndarray) -> np.ndarray:
            weight = share.reshape(-1, *[1] * (values.ndim - 1))
            result: np.ndarray = values[before] * (1 - weight) + values[after] * weight
            return result

        rotvec = self.pose_rotvec.astype(np.float64)
        start = Rotation.from_rotvec(rotvec[before].reshape(-1, 3))
        turn = (start.inv() * Rotation.from_rotvec(rotvec[after].reshape(-1, 3))).as_rotvec()
        pose = (start * Rotation.from_rotvec(turn * np.repeat(share, 24)[:, None])).as_rotvec()
        anchor = self.anchor_frame
        return replace(
            self,
            pose_rotvec=pose.reshape(count, 24, 3),
            transl_world=mixed(self.transl_world.astype(np.float64)),
            joints_world=None if self.joints_world is None else mixed(self.joints_world.astype(np.float64)),
            fps=float(fps),
            anchor_frame=None if anchor is None else min(round(anchor / self.fps * fps), count - 1),
        )

    def take(self, rows: Sequence[int] | np.ndarray, **changes: Any) -> Motion:
        """Some frames as a motion of their own.

        Args:
            rows: Frame numbers, evenly spaced and increasing; ``fps`` is divided by their spacing.
            changes: Other fields to replace.

        The anchor becomes the frame nearest to it, or None where it lies outside the taken range.
        """
        rows, where = np.asarray(rows), f"motion '{self.motion_id}'"
        if rows.ndim != 1 or len(rows) == 0 or rows[0] < 0 or rows[-1] >= len(self):
            most, got = len(self) - 1, rows.tolist()[:5]
            raise InputError(
                "Motion.take needs frame numbers of the motion", where=where, expected=f"0 to {most}", got=got
            )
        steps = np.unique(np.diff(rows))
        if len(steps) > 1 or (len(steps) and steps[0] < 1):
            raise InputError("Motion.take needs evenly spaced, increasing frames", where=where, got=rows[:8])
        anchor = self.anchor_frame
        inside = anchor is not None and rows[0] <= anchor <= rows[-1]
        taken = ("pose_rotvec", "transl_world", *(() if self.joints_world is None else ("joints_world",)))
        fields = {name: getattr(self, name)[rows] for name in taken}
        fields["fps"] = self.fps / int(steps[0]) if len(steps) else self.fps
        fields["anchor_frame"] = int(np.argmin(np.abs(rows - anchor))) if inside else None
        return replace(self, **{**fields, **changes})
