"""One annotated human in one image, with the 3D truth that a data set of photographs or a renderer states of it.

Photographs rarely come with joints and parameters of a body both, and none has SMPL joints in posesyn's order; nothing
is filled in here. Rendered persons carry :class:`BodyLabels`, which are exact. Labels that were fitted to the 2D truth
(:mod:`posesyn.data.persons.lifted`) say by their ``trust`` that they are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.types.looks import short_repr

_BODY_MARGIN = 0.1
Gender = Literal["neutral", "male", "female"]
GENDERS: dict[str, Gender] = {
    **dict.fromkeys(("m", "male", "Male", "M"), "male"),
    **dict.fromkeys(("f", "female", "Female", "F"), "female"),
    **dict.fromkeys(("n", "neutral", "Neutral", "N", ""), "neutral"),
}


@dataclass(frozen=True, eq=False, repr=False)
class BodyLabels:
    """3D labels of one person in one image, camera frame: exact truth, or a fit that is trusted in part.

    Shapes: pose_rotmat (24, 3, 3) local rotations, root first and expressed in the camera frame; betas (10,);
    transl_cam (3,) metres, the SMPL translation (added after posing; the pelvis is not at the origin of an SMPL body);
    joints_cam (45, 3) metres in the order ``smpl45``; intrinsics (3, 3) of the full image.

    ``trust``: 1 for truth. Below, a training uses the labels in this share of its passes over the person, and an
    evaluation never.
    """

    pose_rotmat: np.ndarray
    betas: np.ndarray
    transl_cam: np.ndarray
    joints_cam: np.ndarray
    intrinsics: np.ndarray
    trust: float = 1.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not 0 <= self.trust <= 1:
            raise InputError("the trust in labels is a share", where="BodyLabels", expected="0 to 1", got=self.trust)


@dataclass(frozen=True, eq=False, repr=False)
class JointTruth:
    """3D joints of one person, camera frame (x right, y down, z forward).

    Attributes:
        joints_cam: (J, 3) float32 metres.
        valid: (J,) bool, joints that the data set states.
        skeleton: Joint order.
        intrinsics: (3, 3) of the full image, or None where the data set gives none.
        absolute: False where the positions are relative to the person's root.
    """

    joints_cam: np.ndarray
    valid: np.ndarray
    skeleton: str
    intrinsics: np.ndarray | None = None
    absolute: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        joints = len(skeletons.get(self.skeleton))
        points, valid = np.asarray(self.joints_cam, np.float32), np.asarray(self.valid, bool)
        if points.shape != (joints, 3) or valid.shape != (joints,):
            raise InputError(
                f"JointTruth needs (J, 3) points and (J,) flags of skeleton '{self.skeleton}' (J={joints})",
                got=f"{points.shape} and {valid.shape}",
            )
        if not np.isfinite(points[valid]).all():
            raise InputError("JointTruth has NaN or infinite values at valid joints", where=f"'{self.skeleton}'")
        object.__setattr__(self, "joints_cam", np.where(valid[:, None], points, 0).astype(np.float32))
        object.__setattr__(self, "valid", valid)


@dataclass(frozen=True, eq=False, repr=False)
class BodyFit:
    """Body-model parameters of one person in the data set's own frame.

    The posed body, with ``transl`` added, is moved into the camera by ``world_to_cam``. The parameters stay as the file
    has them, because rotating the root about the pelvis needs the rest pelvis of a licensed body.

    Attributes:
        pose_rotvec: (24, 3) for ``smpl``, (55, 3) for ``smplx`` (root first).
        betas: (B,) shape; how many depends on the data set.
        transl: (3,) metres.
        gender: Which of the three bodies.
        model: ``smpl`` or ``smplx``.
        world_to_cam: (4, 4), the identity where the parameters are in the camera frame already.
        transl_known: False where the data set states no translation, and ``transl`` is zero in its place.
    """

    pose_rotvec: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    gender: Gender = "neutral"
    model: Literal["smpl", "smplx"] = "smpl"
    world_to_cam: np.ndarray | None = None
    transl_known: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        joints = {"smpl": 24, "smplx": 55}.get(self.model)
        if joints is None or self.gender not in ("neutral", "male", "female"):
            raise InputError("unknown body", expected="smpl or smplx; neutral, male or female", got=self.model)
        extrinsics = np.eye(4) if self.world_to_cam is None else np.asarray(self.world_to_cam, np.float64)
        shapes = {
            "pose_rotvec": (np.shape(self.pose_rotvec), (joints, 3)),
            "transl": (np.shape(self.transl), (3,)),
            "world_to_cam": (extrinsics.shape, (4, 4)),
        }
        for name, (got, wanted) in shapes.items():
            if got != wanted:
                raise InputError(f"BodyFit.{name} has the wrong shape", expected=wanted, got=got)
        for name in ("pose_rotvec", "betas", "transl"):
            value = np.asarray(getattr(self, name), np.float32)
            if not np.isfinite(value).all():
                raise InputError(f"BodyFit.{name} has NaN or infinite values")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "world_to_cam", extrinsics)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the posed body → camera frame."""
        world_to_cam = np.asarray(self.world_to_cam)
        moved: np.ndarray = np.asarray(points) @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]
        return moved


@runtime_checkable
class ImageSource(Protocol):
    """Something that loads one image on demand. Implementations: ``storage.ImageFile``, :class:`ArrayImage`."""

    @property
    def name(self) -> str:
        """A readable name for messages and reports."""

    def load(self) -> np.ndarray:
        """Returns the image as (H, W, 3) uint8 RGB in the annotation's orientation."""


@dataclass(frozen=True, eq=False, repr=False)
class ArrayImage:
    """An image that is already in memory."""

    pixels: np.ndarray
    name: str = "array"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            where, got = f"image '{self.name}'", f"{self.pixels.shape} {self.pixels.dtype}"
            raise InputError("ArrayImage.pixels must be an RGB image", where=where, expected="(H, W, 3) uint8", got=got)

    def load(self) -> np.ndarray:
        return self.pixels


@dataclass(frozen=True, eq=False, repr=False)
class Person:
    """One annotated human in one image.

    Attributes:
        person_id: Unique name within the data set, ``"coco/000042#3"``.
        image: Where the pixels come from.
        box_xyxy: (4,) float32 pixels of the full image; see ``box_is_tight``.
        keypoints_px: (J, 2) float32 pixels of the full image, in the order of ``skeleton``.
        visible: (J,) bool, False where a joint carries no annotation. Coordinates of such joints mean nothing.
        skeleton: A name in :data:`posesyn.skeletons.skeleton.SKELETONS`.
        captions: Descriptions of the image or the action, possibly none.
        labels: 3D truth of rendered data, or what was fitted to the 2D truth (``trust`` below 1).
        image_id: Name of the image, shared by the persons in it.
        track_id: Name of the track in a video, if the data set has one.
        meta: Where it comes from: anything else the data set says. Nothing is decided by it.
        joints: 3D joints as a data set states them, or None.
        fit: Parameters of a body model as a data set states them, or None.
        occluded: (J,) bool, joints that annotators marked as hidden (COCO's v = 1), or None where nobody asked.
        head_size: Pixels, as a data set states it (MPII).
        area: Square pixels of the person's outline, as a data set states it (COCO).
        intrinsics: (3, 3) of the full image, pixels, where the data set has cameras.
        image_width_height: Pixels of the full image, where the annotation states them.
        sequence, subject, action, camera: Names of the recording, as the data set has them; evaluation groups by them.
        frame: Number of the frame in its recording.
        valid: False where the data set says that the frame is not to be evaluated.
        box_is_tight: Whether the box is the bare extent of the joints. Else it is drawn around the whole person, by
            an annotator, a detector or from a mask.
        detected_by: Name of the detector that found the person, or None where people annotated.
        detection_score: 0 to 1, how sure it was.
        keypoints_by: Name of the detector whose keypoints stand in for an annotation, or None where people annotated.
            An error measured against them says that two networks disagree, not which one is wrong.

    Example:
        >>> image = ArrayImage(np.zeros((48, 64, 3), np.uint8))
        >>> person = Person("a", image, np.array([8, 4, 56, 44]), np.full((17, 2), 20.0), np.ones(17), "coco17")
        >>> person.keypoints_px.shape, int(person.visible.sum())
        ((17, 2), 17)
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
    occluded: np.ndarray | None = None
    head_size: float | None = None
    area: float | None = None
    intrinsics: np.ndarray | None = None
    image_width_height: tuple[int, int] | None = None
    sequence: str | None = None
    subject: str | None = None
    action: str | None = None
    camera: str | None = None
    frame: int | None = None
    valid: bool = True
    box_is_tight: bool = False
    detected_by: str | None = None
    detection_score: float | None = None
    keypoints_by: str | None = None

    __repr__ = short_repr

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
            what = "Person.keypoints_px has NaN or infinite values at joints marked visible"
            raise InputError(what, where=where, got=names, fix="mark such joints as not visible")
        box = np.asarray(self.box_xyxy, np.float32)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise InputError("Person.box_xyxy must be four finite numbers", where=where, got=self.box_xyxy)
        object.__setattr__(self, "keypoints_px", np.where(np.isfinite(keypoints), keypoints, 0).astype(np.float32))
        object.__setattr__(self, "visible", visible)
        object.__setattr__(self, "box_xyxy", box)
        for name, shape, dtype in (("occluded", (joints,), bool), ("intrinsics", (3, 3), np.float64)):
            if getattr(self, name) is None:
                continue
            value = np.asarray(getattr(self, name), dtype)
            if value.shape != shape:
                raise InputError(f"Person.{name} has the wrong shape", where=where, expected=shape, got=value.shape)
            object.__setattr__(self, name, value)
        if self.image_width_height is not None:
            width, height = (int(side) for side in self.image_width_height)
            object.__setattr__(self, "image_width_height", (width, height))
        if not isinstance(self.box_is_tight, bool | np.bool_):
            raise InputError("Person.box_is_tight must be True or False", where=where, got=repr(self.box_is_tight))
        object.__setattr__(self, "box_is_tight", bool(self.box_is_tight))

    @property
    def body_box_xyxy(self) -> np.ndarray:
        """(4,) float32 pixels: a box around the whole body. Tight boxes are grown on each side by a tenth of their
        longer side (our own choice), as the joints lie inside the body."""
        if not self.box_is_tight:
            return self.box_xyxy
        margin = _BODY_MARGIN * float((self.box_xyxy[2:] - self.box_xyxy[:2]).max())
        return self.box_xyxy + np.array([-margin, -margin, margin, margin], np.float32)


Persons = Sequence[Person]


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def joint_truth(person: Person) -> JointTruth | None:
    """3D joints of a :class:`Person`: those of the data set, or of a rendered person's exact labels; None
    without any. Labels that are trusted in part are no truth."""
    if person.joints is not None or person.labels is None or person.labels.trust < 1:
        return person.joints
    labels = person.labels
    return JointTruth(labels.joints_cam, np.ones(len(labels.joints_cam), bool), "smpl45", labels.intrinsics)


def gender_of(value: object, where: object) -> Gender:
    """A data set's word for the gender of a body.

    Raises:
        InputError: Another word.
    """
    word = value.decode() if isinstance(value, bytes) else str(value)
    if word not in GENDERS:
        raise InputError("unknown gender", where=where, expected="m, f, neutral, male or female", got=repr(word))
    return GENDERS[word]
