"""Person crops exactly as an estimator wants to see them, for inference and, with augmentation, for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from posesyn import skeletons
from posesyn.data.body_region import BodyRegion
from posesyn.data.crop_augmentation import CropAugmentation, CropVariation
from posesyn.data.persons.base import box_problem
from posesyn.data.resampling import warp
from posesyn.errors import InputError
from posesyn.geometry.cameras import apply_affine, crop_affine, padded_box
from posesyn.interfaces import EstimatorSpec
from posesyn.storage.clip_store import StoredFrame
from posesyn.storage.images import ImageFile
from posesyn.types import ArrayImage, BodyLabels, ImageSource, Person
from posesyn.types.looks import short_repr

_MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False, repr=False)
class Crop:
    """What a network sees of a person, and the annotation in the same frame.

    Attributes:
        image: (3, H, W) float32, normalised, channels in the network's order.
        affine: (2, 3) float64, full-image pixels → crop pixels (a reflection if flipped).
        keypoints_px: (J, 2) float32 in crop pixels, in the order of ``skeleton``.
        visible: (J,) bool, annotated joints (those outside the crop included).
        inside: (J,) bool, annotated joints inside the crop.
        skeleton: Joint order, that of the person.
        box_center, box_size: Middle (2,) and width of the crop's region in full-image pixels.
        image_size: (width, height) of the full image.
        labels: 3D truth as seen in the crop: rotated and mirrored like the picture, ``intrinsics`` of the crop;
            projecting ``joints_cam`` with them gives crop pixels. None for data without 3D truth.
        variation: What was done to it.
    """

    image: np.ndarray
    affine: np.ndarray
    keypoints_px: np.ndarray
    visible: np.ndarray
    inside: np.ndarray
    skeleton: str
    box_center: np.ndarray
    box_size: float
    image_size: tuple[int, int]
    labels: BodyLabels | None = None
    variation: CropVariation = field(default_factory=CropVariation)

    __repr__ = short_repr


@dataclass(frozen=True, eq=False, repr=False)
class CropBatch:
    """Inference crops of B persons: ``images`` (B, 3, H, W) float32, ``affines`` (B, 2, 3), ``box_centers`` (B, 2),
    ``box_sizes`` (B,), ``image_sizes`` (B, 2) as (width, height), float32 except the affines."""

    person_ids: tuple[str, ...]
    images: np.ndarray
    affines: np.ndarray
    box_centers: np.ndarray
    box_sizes: np.ndarray
    image_sizes: np.ndarray

    __repr__ = short_repr


def crop_person(
    person: Person,
    spec: EstimatorSpec,
    image: np.ndarray | None = None,
    augment: CropAugmentation | CropVariation | None = None,
    rng: np.random.Generator | None = None,
    region: BodyRegion | None = None,
) -> Crop:
    """Cuts a person out of the image.

    Bilinear, after what ``spec.antialias`` asks for; outside the image the crop is black before normalisation, as in
    the published loaders.

    Args:
        person: Whom.
        spec: Input size, box rule and normalisation of the network.
        image: (H, W, 3) uint8 RGB, if it is loaded already.
        augment: What to draw a variation from (needs ``rng``), or the variation itself; None for inference.
        rng: Source of the variation.
        region: What is cut out in place of the person's box: upright in the crop, before the variation.

    Raises:
        InputError: The box is empty or outside the image, or ``rng`` is missing.
        FileError: The image cannot be read.

    Example:
        >>> image = ps.types.ArrayImage(np.zeros((48, 64, 3), np.uint8))
        >>> person = ps.Person("a", image, np.array([8, 4, 56, 44]), np.full((17, 2), 20.0), np.ones(17), "coco17")
        >>> crop_person(person, ps.EstimatorSpec("mine", input_size=(32, 32))).image.shape
        (3, 32, 32)
    """
    image = person.image.load() if image is None else image
    height, width = image.shape[:2]
    problem = box_problem(person.box_xyxy, (width, height))
    if problem is not None:
        raise InputError(problem, where=f"person '{person.person_id}'", fix="correct the annotation or leave it out")
    variation, size = _variation(augment, rng), spec.input_size
    if region is None or variation.upright:
        box = estimator_box(person, spec, (width, height))
    else:
        box = region.box_xyxy
        variation = replace(variation, rotation=variation.rotation - region.angle)
    affine = variation_affine(box, spec, variation)
    pixels = warp(image, affine, size, spec.antialias)
    keypoints, visible = placed_keypoints(person, affine, variation)
    labels = None if person.labels is None else vary_labels(person.labels, affine, variation)
    inside = visible & (keypoints > -0.5).all(-1) & (keypoints < (size[1] - 0.5, size[0] - 0.5)).all(-1)
    center, extent = padded_box(box, size, spec.box_scale * variation.scale, spec.box_aspect)
    return Crop(
        normalise(pixels, spec, variation.colour),
        affine,
        keypoints.astype(np.float32),
        visible,
        inside,
        person.skeleton,
        center.astype(np.float32),
        float(extent[0]),
        (width, height),
        labels,
        variation,
    )


def placed_keypoints(person: Person, affine: np.ndarray, variation: CropVariation) -> tuple[np.ndarray, np.ndarray]:
    """Annotated joints (J, 2) in the varied crop and visible (J,)."""
    keypoints, visible = apply_affine(affine, person.keypoints_px), person.visible
    if variation.flip:
        order = list(skeletons.get(person.skeleton).flip)
        return keypoints[order], visible[order]
    return keypoints, visible


def crop_persons(persons: Sequence[Person], spec: EstimatorSpec) -> CropBatch:
    """Inference crops of several persons; an image shared by several of them is decoded once.

    Raises:
        InputError: No person, or as :func:`crop_person`.
        FileError: An image cannot be read.
    """
    if not len(persons):
        raise InputError("crop_persons needs at least one person")
    loaded: tuple[ImageSource, np.ndarray] | None = None
    crops = []
    for person in persons:
        # Persons of one image follow each other in the data sets; keeping only the last image bounds the memory.
        if loaded is None or not same_image(loaded[0], person.image):
            loaded = (person.image, person.image.load())
        crops.append(crop_person(person, spec, loaded[1]))
    return CropBatch(
        tuple(person.person_id for person in persons),
        np.stack([crop.image for crop in crops]),
        np.stack([crop.affine for crop in crops]),
        np.stack([crop.box_center for crop in crops]),
        np.array([crop.box_size for crop in crops], np.float32),
        np.array([crop.image_size for crop in crops], np.float32),
    )


def frame_persons(images: np.ndarray, boxes_xyxy: np.ndarray, skeleton: str, where: str) -> list[Person]:
    """Persons without annotation, one per frame, for a network that wants :func:`crop_persons`.

    Args:
        images: (T, H, W, 3) uint8.
        boxes_xyxy: (T, 4) pixels.
        skeleton: Joint order that they are said to have.
        where: For messages.

    Raises:
        InputError: Other shapes or types, or a box that is empty or outside the image.
    """
    images, boxes = np.asarray(images), np.asarray(boxes_xyxy, np.float32)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or boxes.shape != (len(images), 4):
        raise InputError(
            "detect needs images and one box per image",
            where=where,
            expected="(T, H, W, 3) uint8 and (T, 4)",
            got=f"{images.shape} {images.dtype} and {boxes.shape}",
        )
    for row, box in enumerate(boxes):
        problem = box_problem(box, (images.shape[2], images.shape[1]))
        if problem is not None:
            raise InputError(problem, where=f"{where}, frame {row}", fix="leave the frame out, or correct its box")
    joints = len(skeletons.get(skeleton))
    nothing = np.zeros((joints, 2), np.float32), np.zeros(joints, bool)
    return [
        Person(f"frame/{row:06d}", ArrayImage(image, f"frame {row}"), box, *nothing, skeleton)
        for row, (image, box) in enumerate(zip(images, boxes))
    ]


def same_image(first: ImageSource, second: ImageSource) -> bool:
    """Whether two sources surely give the same pixels, so that one may be decoded for both."""
    # Only these compare by value: the array inside an ArrayImage has no single truth value.
    return first is second or (isinstance(first, ImageFile | StoredFrame) and first == second)


def _variation(augment: CropAugmentation | CropVariation | None, rng: np.random.Generator | None) -> CropVariation:
    if augment is None:
        return CropVariation()
    if isinstance(augment, CropVariation):
        return augment
    if rng is None:
        raise InputError("augmentation needs a random generator", where="crop_person", fix="pass rng=...")
    return augment.sample(rng)


def estimator_box(person: Person, spec: EstimatorSpec, image_size: tuple[int, int]) -> np.ndarray:
    """(4,) pixels: the person's box as the estimator's rule wants it before padding and ``box_scale``.

    A tight box grows first, then the box is cut at the borders of the image if the rule says so (3DCrowdNet: 1.2, cut,
    square, 1.25; hongsukchoi/3DCrowdNet_RELEASE, common/utils/preprocessing.py).

    Args:
        person: Whose box.
        spec: The rule.
        image_size: (width, height).
    """
    box = np.asarray(person.box_xyxy, np.float64)
    if person.box_is_tight:
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * spec.tight_box_scale
        box = np.concatenate((middle - half, middle + half))
    if spec.box_clip:
        box = np.clip(box, -0.5, np.array(image_size * 2) - 0.5)
    return box


def variation_affine(box_xyxy: np.ndarray, spec: EstimatorSpec, variation: CropVariation) -> np.ndarray:
    """(2, 3) float64 map from full-image pixels to the pixels of the varied crop."""
    height, width = spec.input_size
    affine = crop_affine(
        box_xyxy, spec.input_size, spec.box_scale * variation.scale, spec.box_aspect, rotation=variation.rotation
    )
    affine[:, 2] += np.array(variation.shift) * (width, height)
    if variation.flip:
        affine[0] *= -1
        affine[0, 2] += width - 1
    return affine


def normalise(
    pixels: np.ndarray, spec: EstimatorSpec, colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> np.ndarray:
    """(H, W, 3) uint8 RGB → (3, H, W) float32 as the network wants it; ``colour``: factor per RGB channel, clipped."""
    # One fused multiply and add per channel: (x * colour / 255 - mean) / std.
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    if colour != (1.0, 1.0, 1.0):
        image = np.clip(image * np.array(colour, np.float32)[:, None, None], 0, 255)
    if spec.channels == "bgr":
        image = image[::-1]
    mean, std = (np.array(value, np.float32)[:, None, None] for value in (spec.mean, spec.std))
    return np.ascontiguousarray(image / (255 * std) - mean / std)


def normalise_keypoints(keypoints_px: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Crop pixels (..., 2) → the middle of the crop at 0, its outer borders at -1 and 1. ``input_size``: (H, W)."""
    size = np.array(input_size[::-1], np.float32)
    return (np.asarray(keypoints_px, np.float32) - (size - 1) / 2) / (size / 2)


def normalise_region(region: BodyRegion | None, affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """(2, 2) middle and rim in the crop, as :func:`normalise_keypoints`; zeros for None."""
    if region is None:
        return np.zeros((2, 2), np.float32)
    return normalise_keypoints(apply_affine(affine, np.stack((region.middle, region.rim))), input_size)


def vary_labels(labels: BodyLabels, affine: np.ndarray, variation: CropVariation) -> BodyLabels:
    """3D labels as the varied crop shows them.

    The body turns about the camera axis with the picture and is mirrored in x with it (SMPL pose flip: nkolot/SPIN,
    utils/imutils.py). The intrinsics become those of the crop, free of skew, so that projection stays exact.
    The translation accounts for the SMPL pelvis not being at the origin, as BEDLAM and 3DCrowdNet do.
    """
    cos, sin = np.cos(variation.rotation), np.sin(variation.rotation)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    joints = np.asarray(labels.joints_cam, np.float64)
    pose = np.array(labels.pose_rotmat, np.float64)
    rest_pelvis = joints[0] - labels.transl_cam
    joints = joints @ turn.T
    pose[0] = turn @ pose[0]
    frame = turn
    if variation.flip:
        order = list(skeletons.get("smpl45").flip)
        joints = (joints @ _MIRROR)[order]
        pose = (_MIRROR @ pose @ _MIRROR)[list(skeletons.get("smpl24").flip)]
        rest_pelvis = _MIRROR @ rest_pelvis
        frame = _MIRROR @ turn
    # Pixels move by affine, the scene by frame; what is left for the camera is zoom and offset.
    intrinsics = np.concatenate((affine, [[0, 0, 1.0]])) @ labels.intrinsics @ np.linalg.inv(frame)
    return replace(
        labels,
        pose_rotmat=pose.astype(np.float32),
        betas=np.asarray(labels.betas, np.float32),
        transl_cam=(joints[0] - rest_pelvis).astype(np.float32),
        joints_cam=joints.astype(np.float32),
        intrinsics=intrinsics.astype(np.float32),
    )
