"""Persons of a COCO keypoint annotation file, or of any file in that format (Halpe, CrowdPose, JHMDB in COCO style)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, resolve, xywh_to_xyxy
from posesyn.errors import InputError
from posesyn.storage.files import read_json
from posesyn.storage.images import ImageFile, Orientation


class CocoKeypoints(AnnotatedPersons):
    """Persons with keypoints, images decoded on demand.

    COCO's integer coordinates name pixels, which is posesyn's convention; nothing is shifted. Crowd annotations and
    persons without a visible keypoint are left out and listed in :attr:`skipped`.

    Args:
        annotations: The json file.
        images: Folder that the file names are relative to.
        captions: COCO captions json of the same images, or None.
        skeleton: Joint order. None: recognised from the category's keypoint names, else from their number.
        orientation: How EXIF is read (see :class:`posesyn.storage.images.ImageFile`). ``"auto"`` takes the reading
            that has the annotated width and height.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError: The json, the folder or an image is missing, or the json is damaged.
        InputError: No annotations, duplicate ids, a wrong number of keypoints, or a bad annotation.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        captions: str | os.PathLike[str] | None = None,
        *,
        skeleton: str | None = None,
        orientation: Orientation = "auto",
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "coco",
    ) -> None:
        super().__init__(annotations, images, on_missing, on_bad, min_keypoints, name)
        self._orientation = orientation
        content = read_json(self.path)
        records = _list(content, "annotations", self.path)
        self._images = _by_id(_list(content, "images", self.path), "image", self.path)
        _by_id(records, "annotation", self.path)
        if not records:
            raise InputError("an annotation file holds no annotations", where=self.path)
        self.skeleton = skeletons.get(skeleton).name if skeleton else recognise(content, records, self.path)
        self._captions = {} if captions is None else _read_captions(Path(captions))
        paths = {
            key: resolve(self.folder, image.get("file_name"), f"image {key}") for key, image in self._images.items()
        }
        candidates = []
        for record in records:
            key = record.get("image_id")
            if key not in paths:
                where = f"{self.path}, id {record['id']}"
                raise InputError("an annotation names an unknown image", where=where, got=key)
            reason = "it marks a crowd" if record.get("iscrowd") else None
            if reason is None and not record.get("keypoints"):
                reason = "it has no keypoints"
            candidates.append(Candidate(record, f"{name}/{paths[key].stem}#{record['id']}", paths[key], reason))
        self._accept(candidates)

    def _image(self, record: dict[str, Any], path: Path) -> ImageFile:
        return ImageFile(path, self._orientation, self._size(record))

    def _facts(self, record: dict[str, Any], path: Path) -> dict[str, Any]:
        image = self._images[record["image_id"]]
        flags = np.asarray(record["keypoints"], np.float32).reshape(-1, 3)[:, 2]
        return {
            "captions": self._captions.get(record["image_id"], ()),
            "image_id": f"{self.name}/{path.stem}",
            "track_id": None if record.get("track_id") is None else str(record["track_id"]),
            "area": record.get("area"),
            "image_width_height": self._size(record),
            # COCO's v = 1: labelled but hidden.
            "occluded": flags == 1 if (flags == 1).any() else None,
            "meta": {"annotation_id": record["id"], "licence": image.get("license_name", image.get("license"))},
        }

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) bool segmentation of a person in the annotation's orientation, or None where there is none.

        Raises:
            InputError: A damaged segmentation.
        """
        from pycocotools import mask as coco_mask

        record, person_id, _ = self._kept[index]
        shape, size = record.get("segmentation"), self._size(record)
        if not shape or size is None:
            return None
        width, height = size
        try:
            if isinstance(shape, dict) and list(shape["size"]) != [height, width]:
                raise ValueError(f"size {shape['size']} instead of {[height, width]}")
            if isinstance(shape, list):
                encoded = coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
            else:
                encoded = coco_mask.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
            return coco_mask.decode(encoded).astype(bool)
        except Exception as error:  # pycocotools raises bare Exceptions
            raise InputError("a segmentation is damaged", where=person_id, got=error) from error

    def _joints(self, record: dict[str, Any], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        joints = len(skeletons.get(self.skeleton))
        try:
            values = np.asarray(record["keypoints"], np.float32).ravel()
        except (ValueError, TypeError) as error:
            raise InputError("keypoints are not numbers", where=f"person '{person_id}'", got=error) from error
        if values.size != 3 * joints:
            raise InputError(
                f"keypoints must be {joints} triples x, y, v for skeleton '{self.skeleton}'",
                where=f"person '{person_id}' of {self.path}",
                expected=f"{3 * joints} numbers",
                got=values.size,
                fix="name the joint set of the file with skeleton=...",
            )
        values = values.reshape(joints, 3)
        return values[:, :2], values[:, 2] > 0

    def _box(self, record: dict[str, Any], person_id: str) -> np.ndarray | None:
        box = record.get("bbox")
        if box is None or not np.any(np.asarray(box)[2:]):
            return None
        return xywh_to_xyxy(np.asarray(box))

    def _size(self, record: dict[str, Any]) -> tuple[int, int] | None:
        width, height = (self._images[record["image_id"]].get(side) for side in ("width", "height"))
        stated = isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0
        return (width, height) if stated else None


def recognise(content: Mapping[str, Any], records: Sequence[Mapping[str, Any]], where: object) -> str:
    """Joint set of a COCO-style file: the one whose joint names are those of the category.

    Raises:
        InputError: No known joint set has these names, nor 17 joints.
    """
    names: tuple[str, ...] = ()
    for category in content.get("categories") or ():
        if category.get("keypoints"):
            names = tuple(str(name).lower().replace(" ", "_") for name in category["keypoints"])
            break
    for skeleton in skeletons.SKELETONS.values():
        if names and skeleton.joints == names:
            return skeleton.name
    lengths = {len(record["keypoints"]) for record in records if isinstance(record.get("keypoints"), list)}
    if not names and lengths <= {51}:
        return "coco17"
    raise InputError(
        "the joint set of a file is unknown",
        where=where,
        got=f"{len(names)} joints: {', '.join(names)}" if names else f"annotations of {sorted(lengths)} numbers",
        fix="name it with skeleton=...",
    )


def _list(content: Any, key: str, where: Path) -> list[dict[str, Any]]:
    value = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"a COCO file needs a list '{key}'", where=where, got=type(value).__name__)
    return value


def _by_id(items: list[dict[str, Any]], kind: str, where: Path) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for item in items:
        key = item.get("id")
        if not isinstance(key, int | str):
            raise InputError(f"an {kind} has no id", where=where, got=repr(key))
        if key in found:
            raise InputError(f"two {kind}s have the same id", where=where, got=key)
        found[key] = item
    return found


def _read_captions(path: Path) -> dict[Any, tuple[str, ...]]:
    captions: dict[Any, tuple[str, ...]] = {}
    for item in _list(read_json(path), "annotations", path):
        if isinstance(item.get("caption"), str):
            captions[item.get("image_id")] = (*captions.get(item.get("image_id"), ()), item["caption"].strip())
    return captions
