"""Training batches: what ``training_losses`` of an estimator gets.

A batch is a plain dict. Everything is in the frame of the **crop**, after augmentation (rotation and mirroring
included), and in the common skeleton ``smpl45``, whatever the data set's own. B persons:

=======================  ====================  ========================================================================
key                      shape, dtype          meaning
=======================  ====================  ========================================================================
``images``               (B, 3, H, W) float32  crops, normalised as the estimator's spec says
``keypoints_px``         (B, 45, 2) float32    crop pixels (integer pixel = pixel centre); 0 where not visible
``keypoints_norm``       (B, 45, 2) float32    the same with the middle of the crop at 0 and its borders at -1 and 1
``visible``              (B, 45) bool          joints with a 2D annotation
``has_labels``           (B,) bool             persons with 3D truth; the next seven rows mean nothing for the others
``pose_rotmat``          (B, 24, 3, 3)         local rotations, root in the camera turned with the crop; else identity
``betas``                (B, 10)               shape; else zero
``joints``               (B, 45, 3)            metres, relative to the pelvis (joint 0); else zero
``joints_norm``          (B, 45, 2)            ``joints`` in the crop as ``keypoints_norm``, hidden ones too; else zero
``transl_cam``           (B, 3)                SMPL translation, metres; else zero
``intrinsics``           (B, 3, 3)             camera of the crop; else identity
``affine``               (B, 2, 3)             full-image pixels → crop pixels
``box_centers``          (B, 2)                middle of the crop in full-image pixels
``box_sizes``            (B,)                  width of the crop in full-image pixels
``image_sizes``          (B, 2)                (width, height) of the full image
``neighbours_px``        (B, N, 45, 2)         other persons' joints as ``keypoints_px``; 0 where not visible
``neighbours_visible``   (B, N, 45) bool       which of them there are; both only where the spec asks for N neighbours
``region_norm``          (B, 2, 2)             middle and rim of the circle around the body (``BodyRegion``) as
                                               ``keypoints_norm``; zero where not known
``region_known``         (B,) bool             persons who have it; both only where the spec's region is the body
``surroundings``         (B, 3, S, S) float32  the person's box from afar, normalised as the spec says
``surroundings_region``  (B, 2, 2)             ``region_norm`` in that picture; zero where not known
``surroundings_box``     (B, 2, 2)             corners of the upright square around the person's box in that picture, in
                                               the same coordinates; all three only where the spec asks for them
``is_synthetic``         (B,) bool             rendered by posesyn
``person_ids``           B names               tuple of str
``batch_index``          int                   number of the batch since the start of training (by the data module)
=======================  ====================  ========================================================================

Labels of a trust below 1 (:mod:`posesyn.data.persons.lifted`) are there in that share of the passes, at random.

With a teacher (``FineTuningSettings.retain``) a trusted prediction of the start stands where labels would:
``has_labels`` is true for that person, and the seven rows hold what the start said.

All float values are float32. 2D annotations of other skeletons are converted with stand-ins for joints that lie some
centimetres apart (``skeletons.convert(approximate=True)``), as SPIN does for hips; other joints are not visible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from posesyn import skeletons
from posesyn.data.body_region import BodyRegion
from posesyn.data.crop_augmentation import CropAugmentation, CropVariation
from posesyn.data.crops import Crop, crop_person, normalise_keypoints, normalise_region, placed_keypoints
from posesyn.data.surroundings import surroundings
from posesyn.errors import InputError
from posesyn.interfaces import EstimatorSpec
from posesyn.types import Person

SKELETON = "smpl45"
_JOINTS = len(skeletons.get(SKELETON))


def training_sample(
    person: Person,
    spec: EstimatorSpec,
    augment: CropAugmentation | CropVariation | None = None,
    rng: np.random.Generator | None = None,
    is_synthetic: bool = False,
    neighbours: Sequence[Person] = (),
) -> dict[str, Any]:
    """One row of a batch, as NumPy arrays without the batch axis.

    Args:
        person: Labelled or not.
        spec: What the estimator wants to see.
        augment, rng: See :func:`posesyn.data.crops.crop_person`. ``rng`` also draws whether labels that are trusted in
            part (``BodyLabels.trust``) are used; without it they are.
        is_synthetic: Whether posesyn rendered it.
        neighbours: Others in the image, nearest first (:class:`Neighbours`), for a spec that asks for them.

    Raises:
        InputError, FileError: As :func:`posesyn.data.crops.crop_person`.
    """
    region = BodyRegion.of_person(person) if spec.region == "body" else None
    image = person.image.load()
    crop = crop_person(person, spec, image, augment=augment, rng=rng, region=region)
    labels = crop.labels
    if labels is not None and labels.trust < 1 and rng is not None and rng.random() >= labels.trust:
        labels = None  # in this pass; drawn after the crop, so that other samples stay what they are
    keypoints, visible = skeletons.convert(crop.keypoints_px, crop.skeleton, SKELETON, visible=crop.visible)
    keypoints = np.where(visible[:, None], keypoints, 0).astype(np.float32)
    sample = {
        "images": crop.image,
        "keypoints_px": keypoints,
        "keypoints_norm": np.where(visible[:, None], normalise_keypoints(keypoints, spec.input_size), 0),
        "visible": np.asarray(visible, bool),
        "has_labels": np.array(labels is not None),
        "pose_rotmat": np.tile(np.eye(3), (24, 1, 1)),
        "betas": np.zeros(10),
        "joints": np.zeros((_JOINTS, 3)),
        "joints_norm": np.zeros((_JOINTS, 2)),
        "transl_cam": np.zeros(3),
        "intrinsics": np.eye(3),
        "affine": crop.affine,
        "box_centers": crop.box_center,
        "box_sizes": np.array(crop.box_size),
        "image_sizes": np.array(crop.image_size),
        **(_neighbours(neighbours, crop, spec.neighbours) if spec.neighbours else {}),
        **(_region(region, crop, spec) if spec.region == "body" else {}),
        **(surroundings(person, spec, image, region, augment, rng) if spec.surroundings else {}),
        "is_synthetic": np.array(is_synthetic),
        "person_ids": person.person_id,
    }
    if labels is not None:
        sample["joints"] = labels.joints_cam - labels.joints_cam[:1]
        points = labels.joints_cam @ labels.intrinsics.T
        sample["joints_norm"] = normalise_keypoints(points[:, :2] / points[:, 2:], spec.input_size)
        for name in ("pose_rotmat", "betas", "transl_cam", "intrinsics"):
            sample[name] = getattr(labels, name)
    return {
        name: value if isinstance(value, str) or value.dtype == bool else np.asarray(value, np.float32)
        for name, value in sample.items()
    }


def _neighbours(persons: Sequence[Person], crop: Crop, most: int) -> dict[str, np.ndarray]:
    points = np.zeros((most, _JOINTS, 2), np.float32)
    visible = np.zeros((most, _JOINTS), bool)
    for row, person in enumerate(persons[:most]):
        placed, seen = placed_keypoints(person, crop.affine, crop.variation)
        placed, visible[row] = skeletons.convert(placed, person.skeleton, SKELETON, visible=seen)
        points[row] = np.where(visible[row, :, None], placed, 0)
    return {"neighbours_px": points, "neighbours_visible": visible}


def _region(region: BodyRegion | None, crop: Crop, spec: EstimatorSpec) -> dict[str, np.ndarray]:
    placed = normalise_region(region, crop.affine, spec.input_size)
    return {"region_norm": placed, "region_known": np.array(region is not None)}


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples of :func:`training_sample` → a batch of tensors.

    Raises:
        InputError: No samples.
    """
    if not samples:
        raise InputError("a batch needs at least one sample", where="batches.collate")
    batch: dict[str, Any] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        batch[name] = tuple(values) if isinstance(values[0], str) else torch.from_numpy(np.stack(values))
    return batch


class Neighbours:
    """Who else is in the image, for networks whose input poses are corrupted with joints of others.

    Args:
        persons: Any data set; it is read through once for image names and boxes, not for its images.
        most: Neighbours per person at most, those with the largest shared box first.
    """

    def __init__(self, persons: Sequence[Person], most: int) -> None:
        self.persons, self.most = persons, most
        self._together: dict[str, list[int]] = defaultdict(list)
        self._boxes = np.zeros((len(persons), 4), np.float32)
        self._image_ids = [""] * len(persons)
        for row in range(len(persons)):
            person = persons[row]
            self._boxes[row], self._image_ids[row] = person.body_box_xyxy, person.image_id
            if person.image_id:
                self._together[person.image_id].append(row)

    def of(self, row: int) -> list[Person]:
        """Those of the person at this place of the data set; none where it has no image name."""
        others = np.array([other for other in self._together.get(self._image_ids[row], ()) if other != row], int)
        low = np.maximum(self._boxes[others, :2], self._boxes[row, :2])
        high = np.minimum(self._boxes[others, 2:], self._boxes[row, 2:])
        shared = np.clip(high - low, 0, None).prod(-1)
        return [self.persons[int(other)] for other in others[np.argsort(-shared, kind="stable")[: self.most]]]
