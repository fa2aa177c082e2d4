"""Plain, frozen values that pass between the stages. NumPy only, so that they pickle and need no torch.

Frames and units follow DESIGN.md section 4: metres, pixels, integer pixel = pixel centre; ``cam`` is the OpenCV
camera (x right, y down, z forward) of the full image; ``world`` is right-handed with y up and the floor at y = 0.
Shape letters: B batch, T frames, J joints, H W image.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.truth import BodyFit, JointTruth


@runtime_checkable
class ImageSource(Protocol):
    """Something that loads one image on demand. Implementations: ``storage.ImageFile``, :class:`ArrayImage`."""

    @property
    def name(self) -> str:
        """A readable name for messages and reports."""

    def load(self) -> np.ndarray:
        """Returns the image as (H, W, 3) uint8 RGB in the annotation's orientation."""


@dataclass(frozen=True)
class ArrayImage:
    """An image that is already in memory."""

    pixels: np.ndarray
    name: str = "array"

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise InputError(
                "ArrayImage.pixels must be an RGB image",
                where=f"image '{self.name}'",
                expected="(H, W, 3) uint8",
                got=f"{self.pixels.shape} {self.pixels.dtype}",
            )

    def load(self) -> np.ndarray:
        return self.pixels


@dataclass(frozen=True)
class BodyLabels:
    """Exact 3D truth of one person in one image, camera frame.

    Shapes: pose_rotmat (24, 3, 3) local rotations, root first and expressed in the camera frame; betas (10,);
    transl_cam (3,) metres, the SMPL translation (added after posing; the pelvis is not at the origin of an SMPL body);
    joints_cam (45, 3) metres in the order ``smpl45``; intrinsics (3, 3) of the full image.
    """

    pose_rotmat: np.ndarray
    betas: np.ndarray
    transl_cam: np.ndarray
    joints_cam: np.ndarray
    intrinsics: np.ndarray


@dataclass(frozen=True)
class Person:
    """One annotated human in one image.

    Attributes:
        person_id: Unique name within the data set, ``"coco/000042#3"``.
        image: Where the pixels come from.
        box_xyxy: (4,) float32 pixels of the full image.
        keypoints_px: (J, 2) float32 pixels of the full image, in the order of ``skeleton``.
        visible: (J,) bool, False where a joint carries no annotation. Coordinates of such joints mean nothing.
        skeleton: A name in :data:`posesyn.skeletons.SKELETONS`.
        captions: Descriptions of the image or the action, possibly none.
        labels: Exact 3D truth, only for rendered data.
        image_id: Name of the image, shared by the persons in it.
        track_id: Name of the track in a video, if the data set has one.
        meta: Anything else the data set says (area, head box, action, frame number ...).
        joints: 3D joints as a data set states them, or None.
        fit: Parameters of a body model as a data set states them, or None.
    """

    person_id: str
    image: ImageSource
    box_xyxy: np.ndarray
    keypoints_px: np.ndarray
    visible: np.ndarray
    skeleton: str
    captions: tuple[str, ...] = ()
    labels: BodyLabels | None = None
    image_id: str = ""
    track_id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    joints: JointTruth | None = None
    fit: BodyFit | None = None

    def __post_init__(self) -> None:
        joints = len(skeletons.get(self.skeleton).joints)
        where = f"person '{self.person_id}'"
        keypoints = np.asarray(self.keypoints_px, np.float32)
        if keypoints.shape != (joints, 2):
            raise InputError(
                f"Person.keypoints_px must be (J, 2) for skeleton '{self.skeleton}' (J={joints})",
                where=where,
                expected=(joints, 2),
                got=keypoints.shape,
                fix="name the skeleton the annotation uses, or convert it with skeletons.convert(...)",
            )
        visible = np.asarray(self.visible, bool)
        if visible.shape != (joints,):
            raise InputError("Person.visible must be (J,)", where=where, expected=(joints,), got=visible.shape)
        bad = ~np.isfinite(keypoints).all(-1) & visible
        if bad.any():
            names = [skeletons.get(self.skeleton).joints[i] for i in np.flatnonzero(bad)]
            raise InputError(
                "Person.keypoints_px has NaN or infinite values at joints marked visible",
                where=where,
                got=names,
                fix="mark such joints as not visible",
            )
        box = np.asarray(self.box_xyxy, np.float32)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise InputError("Person.box_xyxy must be four finite numbers", where=where, got=self.box_xyxy)
        object.__setattr__(self, "keypoints_px", np.where(np.isfinite(keypoints), keypoints, 0).astype(np.float32))
        object.__setattr__(self, "visible", visible)
        object.__setattr__(self, "box_xyxy", box)


@dataclass(frozen=True)
class PoseBatch:
    """What an estimator says about B persons. Only the first four fields are needed from a foreign estimator.

    Attributes:
        person_ids: B names, in the order of the persons passed to ``predict``.
        skeleton: Joint order of ``joints_cam`` and ``keypoints_px``.
        joints_cam: (B, J, 3) float32 metres, camera frame of the full image (root-relative is enough for extraction).
        keypoints_px: (B, J, 2) float32, the projection of ``joints_cam`` into the full image.
        pose_rotmat: (B, 24, 3, 3) local SMPL rotations, root in the camera frame, or None.
        betas: (B, 10) or None.
        transl_cam: (B, 3) SMPL translation in the full-image camera, or None.
        intrinsics: (B, 3, 3) of the full image, or None.
        vertices_cam: (B, V, 3) or None.
    """

    person_ids: tuple[str, ...]
    skeleton: str
    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    pose_rotmat: np.ndarray | None = None
    betas: np.ndarray | None = None
    transl_cam: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    vertices_cam: np.ndarray | None = None

    def __post_init__(self) -> None:
        batch, joints = len(self.person_ids), len(skeletons.get(self.skeleton).joints)
        shapes = {
            "joints_cam": (batch, joints, 3),
            "keypoints_px": (batch, joints, 2),
            "pose_rotmat": (batch, 24, 3, 3),
            "betas": (batch, 10),
            "transl_cam": (batch, 3),
            "intrinsics": (batch, 3, 3),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name not in ("joints_cam", "keypoints_px"):
                continue
            if np.shape(value) != shape:
                raise InputError(
                    f"PoseBatch.{name} has the wrong shape",
                    where=f"an estimator's output, skeleton '{self.skeleton}'",
                    expected=shape,
                    got=np.shape(value),
                )

    def __len__(self) -> int:
        return len(self.person_ids)

    def __getitem__(self, index: int | slice) -> PoseBatch:
        """One person (or several) as a PoseBatch that keeps the batch axis."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        arrays = {
            name: None if (value := getattr(self, name)) is None else value[rows]
            for name in (
                "joints_cam",
                "keypoints_px",
                "pose_rotmat",
                "betas",
                "transl_cam",
                "intrinsics",
                "vertices_cam",
            )
        }
        return PoseBatch(self.person_ids[rows], self.skeleton, **arrays)


@dataclass(frozen=True)
class ScoredPerson:
    """A person, the frozen estimator's prediction on it and the error between the two.

    Attributes:
        prediction: PoseBatch of one person.
        error: Weighted, normalised 2D error (see ``ErrorExtractor``); 0 is perfect.
        joint_errors: (J,) error per joint of ``person.skeleton``; meaningless where ``joint_used`` is False.
        joint_used: (J,) bool, joints that entered the error.
        rank: 0 for the largest error of the data set.
        disagreement_mm: Mean distance between several estimators' poses (see ``ErrorExtractor``), if asked for.
    """

    person: Person
    prediction: PoseBatch
    error: float
    joint_errors: np.ndarray
    joint_used: np.ndarray
    rank: int = -1
    disagreement_mm: float | None = None


@dataclass(frozen=True)
class ErrorReport:
    """Result of ``ErrorExtractor.extract``: all scored persons (largest error first) and the two selections.

    ``skipped`` lists (person_id, reason) of persons that could not be scored; nothing is dropped in silence.
    """

    scored: tuple[ScoredPerson, ...]
    challenging: tuple[ScoredPerson, ...]
    non_challenging: tuple[ScoredPerson, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scored)


@dataclass(frozen=True, repr=False)
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
        meta: Provenance (seed, prior, prefix length, rank ...).
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

    def __repr__(self) -> str:
        caption = f", {self.caption[:60]!r}" if self.caption else ""
        return f"Motion({self.motion_id!r}, {len(self)} frames at {self.fps:g} fps{caption})"

    def _repr_html_(self) -> str:
        """Shows itself in notebooks as a moving stick figure."""
        # By name, as an entry point is: values know nothing of the layer that draws them until a notebook asks.
        return importlib.import_module("posesyn.report.notebook").motion_html(self)

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
            return values[before] * (1 - weight) + values[after] * weight

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
        rows = np.asarray(rows)
        if rows.ndim != 1 or len(rows) == 0 or rows[0] < 0 or rows[-1] >= len(self):
            raise InputError(
                "Motion.take needs frame numbers of the motion",
                where=f"motion '{self.motion_id}'",
                expected=f"0 to {len(self) - 1}",
                got=rows.tolist()[:5],
            )
        steps = np.unique(np.diff(rows))
        if len(steps) > 1 or (len(steps) and steps[0] < 1):
            raise InputError(
                "Motion.take needs evenly spaced, increasing frames", where=f"motion '{self.motion_id}'", got=rows[:8]
            )
        anchor = self.anchor_frame
        inside = anchor is not None and rows[0] <= anchor <= rows[-1]
        fields = {
            "pose_rotvec": self.pose_rotvec[rows],
            "transl_world": self.transl_world[rows],
            "joints_world": None if self.joints_world is None else self.joints_world[rows],
            "fps": self.fps / int(steps[0]) if len(steps) else self.fps,
            "anchor_frame": int(np.argmin(np.abs(rows - anchor))) if inside else None,
        }
        return replace(self, **{**fields, **changes})


@dataclass(frozen=True)
class Clip:
    """Rendered frames of a motion with exact labels, camera frame.

    Shapes: frames (T, H, W, 3) uint8 RGB; pose_rotvec (T, 24, 3), root in the camera frame; betas (10,);
    transl_cam (T, 3); joints_cam (T, 45, 3); keypoints_px (T, 45, 2); visible (T, 45) bool, inside the image and not
    hidden by the body itself; mask (T, H, W) bool; depth (T, H, W) float16 metres, 0 where there is no body;
    intrinsics (3, 3); keep (T,) bool, frames that survived the filter.
    """

    clip_id: str
    frames: np.ndarray
    pose_rotvec: np.ndarray
    betas: np.ndarray
    transl_cam: np.ndarray
    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    visible: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    fps: float
    keep: np.ndarray | None = None
    caption: str = ""
    motion_id: str = ""
    person_id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames, height, width = self.frames.shape[:3]
        wanted = {
            "frames": (frames, height, width, 3),
            "pose_rotvec": (frames, 24, 3),
            "betas": (10,),
            "transl_cam": (frames, 3),
            "joints_cam": (frames, 45, 3),
            "keypoints_px": (frames, 45, 2),
            "visible": (frames, 45),
            "mask": (frames, height, width),
            "depth": (frames, height, width),
            "intrinsics": (3, 3),
        }
        if self.keep is None:
            object.__setattr__(self, "keep", np.ones(frames, bool))
        wanted["keep"] = (frames,)
        for name, shape in wanted.items():
            got = np.shape(getattr(self, name))
            if got != shape:
                where = f"clip '{self.clip_id}'"
                raise InputError(f"Clip.{name} has the wrong shape", where=where, expected=shape, got=got)

    def __len__(self) -> int:
        return len(self.frames)


Persons = Sequence[Person]


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
