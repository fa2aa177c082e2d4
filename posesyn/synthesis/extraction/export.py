"""Chosen persons for other tools: a COCO keypoint file, and a table that a spreadsheet opens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.storage.files import csv_bytes, write_bytes, write_json
from posesyn.storage.images import ImageFile
from posesyn.types import ErrorReport, ImageSource, ScoredPerson

_COLUMNS = (
    *("rank", "person_id", "selection", "error", "disagreement_mm", "worst_joint", "joints_used"),
    *("image", "x1", "y1", "x2", "y2", "caption"),
)


def export_coco(
    scored: Sequence[ScoredPerson], path: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> None:
    """Writes persons as a COCO keypoint annotation file that :class:`posesyn.data.CocoKeypoints` reads back.

    Each annotation has, beside COCO's fields, ``person_id``, ``score`` (the error), ``rank`` and ``joint_errors``.
    Hidden joints (``Person.occluded``) get v = 1, others 2.

    Args:
        scored: For example ``report.challenging``.
        path: The json file.
        images: Folder that file names are made relative to; None writes bare file names.

    Raises:
        InputError: No persons, persons of several joint sets, an image outside ``images``, or two images of one name.
        FileError: An image is missing (its size is needed), or the file cannot be written.
    """
    if not scored:
        raise InputError("there are no persons to export", where="export_coco")
    names = {item.person.skeleton for item in scored}
    if len(names) > 1:
        raise InputError("a COCO file holds one joint set", where="export_coco", got=sorted(names))
    skeleton = skeletons.get(names.pop())
    entries: dict[str, dict[str, Any]] = {}
    sources: dict[str, ImageSource] = {}
    annotations = []
    for number, item in enumerate(scored, 1):
        person = item.person
        name = _file_name(person.image, images)
        if name not in entries:
            width, height = _size(person.image)
            entries[name] = {"id": len(entries) + 1, "file_name": name, "width": width, "height": height}
            sources[name] = person.image
        elif getattr(sources[name], "path", None) != getattr(person.image, "path", None):
            raise InputError("two images have the same name", got=name, fix="pass images=, the folder above both")
        x1, y1, x2, y2 = (float(value) for value in person.body_box_xyxy)
        hidden = np.zeros(len(skeleton), bool) if person.occluded is None else person.occluded
        flags = np.where(person.visible, np.where(hidden, 1, 2), 0)
        points = np.where(person.visible[:, None], person.keypoints_px.astype(np.float64), 0)
        annotations.append(
            {
                "id": number,
                "image_id": entries[name]["id"],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(person.area) if person.area else (x2 - x1) * (y2 - y1),
                "keypoints": [round(float(v), 3) for v in np.column_stack((points, flags)).ravel()],
                "num_keypoints": int(person.visible.sum()),
                "person_id": person.person_id,
                "score": float(item.error),
                "rank": int(item.rank),
                "joint_errors": [float(v) for v in np.where(item.joint_used, item.joint_errors, 0)],
            }
        )
    category: dict[str, Any] = {"id": 1, "name": "person", "supercategory": "person"}
    category |= {"keypoints": list(skeleton.joints), "skeleton": [[a + 1, b + 1] for a, b in skeleton.bones]}
    content = {"images": list(entries.values()), "annotations": annotations, "categories": [category], "licenses": []}
    write_json(path, content)


def export_csv(report: ErrorReport, path: str | os.PathLike[str], only_selected: bool = True) -> None:
    """Writes one line per person, largest error first, as csv (UTF-8, comma, header line).

    ``only_selected`` leaves out persons that belong to neither selection.
    """
    selected = report.selections
    rows = []
    for item in report.scored:
        person = item.person
        if only_selected and person.person_id not in selected:
            continue
        image = person.image
        cells = [
            item.rank,
            person.person_id,
            selected.get(person.person_id, ""),
            f"{item.error:.6g}",
            "" if item.disagreement_mm is None else f"{item.disagreement_mm:.4g}",
            item.worst_joint,
            int(np.sum(item.joint_used)),
            str(image.path) if isinstance(image, ImageFile) else image.name,
            *(f"{float(value):.2f}" for value in person.body_box_xyxy),
            person.captions[0] if person.captions else "",
        ]
        rows.append(cells)
    write_bytes(path, csv_bytes(_COLUMNS, rows))


def _file_name(image: ImageSource, images: str | os.PathLike[str] | None) -> str:
    if images is None or not isinstance(image, ImageFile):
        return image.name
    try:
        return image.path.resolve().relative_to(Path(images).resolve()).as_posix()
    except ValueError as error:
        raise InputError("an image lies outside the folder", where=images, got=str(image.path)) from error


def _size(image: ImageSource) -> tuple[int, int]:
    if isinstance(image, ImageFile):
        return image.size()
    pixels = image.load()
    return pixels.shape[1], pixels.shape[0]
