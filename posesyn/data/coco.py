"""Persons of a COCO keypoint annotation file, or of any file in that format (Halpe, CrowdPose, JHMDB in COCO style)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.boxes import box_around, box_problem, xywh_to_xyxy
from posesyn.data.image_folder import Choice, check_choice, find_missing, resolve
from posesyn.errors import InputError
from posesyn.storage.atomic import read_json
from posesyn.storage.images import ImageFile, Orientation
from posesyn.types import Person


class CocoKeypoints(Sequence[Person]):
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
        on_missing: ``"error"`` or ``"skip"`` for persons whose image is absent.
        on_bad: ``"error"`` or ``"skip"`` for annotations with NaN or with a box outside the image.
        min_keypoints: Persons with fewer visible keypoints are skipped.
        name: Prefix of person names.

    Attributes:
        skipped: (person_id, reason) of each annotation that is left out.

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
        check_choice(on_missing, "on_missing")
        check_choice(on_bad, "on_bad")
        self.path, self.folder, self.name = Path(annotations), Path(images), name
        self._orientation, self._on_bad = orientation, on_bad
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
        used = [paths[record["image_id"]] for record in records if record.get("image_id") in paths]
        missing = find_missing(self.folder, used, on_missing, self.path)
        self.skipped: tuple[tuple[str, str], ...] = ()
        self._records: list[tuple[dict[str, Any], str, Path]] = []
        skipped = []
        for record in records:
            key = record.get("image_id")
            if key not in paths:
                raise InputError(
                    "an annotation names an unknown image", where=f"{self.path}, id {record['id']}", got=key
                )
            person_id = f"{name}/{paths[key].stem}#{record['id']}"
            reason = self._reason(record, paths[key] in missing, min_keypoints, person_id)
            if reason is None:
                self._records.append((record, person_id, paths[key]))
            else:
                skipped.append((person_id, reason))
        self.skipped = tuple(skipped)
        if not self._records:
            raise InputError(
                "no usable person is left",
                where=self.path,
                got=f"{len(skipped)} skipped, the first because {skipped[0][1]}",
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int | slice) -> Person | list[Person]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record, person_id, path = self._records[index]
        image = self._images[record["image_id"]]
        keypoints, visible = self._keypoints(record, person_id)
        return Person(
            person_id,
            ImageFile(path, self._orientation, _size(image)),
            self._box(record, keypoints, visible),
            keypoints,
            visible,
            self.skeleton,
            captions=self._captions.get(record["image_id"], ()),
            image_id=f"{self.name}/{path.stem}",
            track_id=None if record.get("track_id") is None else str(record["track_id"]),
            meta={
                "annotation_id": record["id"],
                "area": record.get("area"),
                "image_width_height": _size(image),
                "licence": image.get("license_name", image.get("license")),
            },
        )

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) bool segmentation of a person in the annotation's orientation, or None where there is none.

        Raises:
            InputError: A damaged segmentation.
        """
        from pycocotools import mask as coco_mask

        record, person_id, _ = self._records[index]
        shape, size = record.get("segmentation"), _size(self._images[record["image_id"]])
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
            mask = coco_mask.decode(encoded).astype(bool)
        except Exception as error:  # pycocotools raises bare Exceptions
            raise InputError("a segmentation is damaged", where=person_id, got=error) from error
        return mask

    def _reason(self, record: dict[str, Any], missing: bool, min_keypoints: int, person_id: str) -> str | None:
        """Why an annotation is left out, or None. Raises where it is bad and bad ones are errors."""
        if record.get("iscrowd"):
            return "it marks a crowd"
        if "keypoints" not in record:
            return "it has no keypoints"
        keypoints, visible = self._keypoints(record, person_id)
        if not visible.any():
            return "no keypoint is visible"
        if visible.sum() < min_keypoints:
            return f"only {int(visible.sum())} keypoints are visible, {min_keypoints} are needed"
        if missing:
            return "its image is missing"
        problem = None
        if not np.isfinite(keypoints[visible]).all():
            joints = skeletons.get(self.skeleton).joints
            bad = [joints[i] for i in np.flatnonzero(visible & ~np.isfinite(keypoints).all(1))]
            problem = f"keypoints marked visible are NaN or infinite: {', '.join(bad)}"
        else:
            box = self._box(record, keypoints, visible)
            problem = box_problem(box, _size(self._images[record["image_id"]]))
        if problem is not None and self._on_bad == "error":
            raise InputError(
                problem,
                where=f"person '{person_id}' of {self.path}",
                fix="correct the annotation, or pass on_bad='skip'",
            )
        return problem

    def _keypoints(self, record: dict[str, Any], person_id: str) -> tuple[np.ndarray, np.ndarray]:
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

    def _box(self, record: dict[str, Any], keypoints: np.ndarray, visible: np.ndarray) -> np.ndarray:
        box = record.get("bbox")
        if box is None or not np.any(np.asarray(box)[2:]):
            return box_around(keypoints, visible)
        return xywh_to_xyxy(np.asarray(box))


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


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _read_captions(path: Path) -> dict[Any, tuple[str, ...]]:
    captions: dict[Any, tuple[str, ...]] = {}
    for item in _list(read_json(path), "annotations", path):
        if isinstance(item.get("caption"), str):
            captions[item.get("image_id")] = (*captions.get(item.get("image_id"), ()), item["caption"].strip())
    return captions
