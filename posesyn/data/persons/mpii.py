"""Persons of an MPII annotation: the published .mat file, or the json form that HRNet and mmpose use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posesyn.data.persons.base import (
    AnnotatedPersons,
    Candidate,
    Choice,
    check_choice,
    read_mat,
    resolve,
    square_box,
)
from posesyn.errors import InputError
from posesyn.storage.files import read_json
from posesyn.storage.images import ImageFile, Orientation

_JOINTS = 16
# MPII's PCKh takes 0.6 of the diagonal of the head box (as its users say; not read in its own code).
_HEAD_FACTOR = 0.6


def read_mpii_mat(path: Path) -> list[dict[str, Any]]:
    """One record per annotated person: ``{image, joints, joints_vis, center, scale, head_size, occluded, activity,
    split, video}``, coordinates counted from 1 as in the file. Persons without joints carry a ``reason``.

    Raises:
        FileError: Missing or damaged.
        InputError: A mat file of another data set, or one with another structure.
    """
    release = read_mat(path, ["RELEASE"], "MPII's annotation file")["RELEASE"]
    try:
        images, train = np.atleast_1d(release.annolist), np.atleast_1d(release.img_train)
        acts = np.atleast_1d(release.act) if hasattr(release, "act") else None
        records = []
        for row, image in enumerate(images):
            shared = {"image": str(image.image.name), "split": "train" if train[row] else "test"}
            if acts is not None and isinstance(getattr(acts[row], "act_name", None), str) and acts[row].act_name:
                shared["activity"] = acts[row].act_name
            video = np.atleast_1d(getattr(image, "vididx", ()))
            if video.size:
                shared["video"] = str(int(video[0]))
            records += [{**shared, **_person(rect)} for rect in np.atleast_1d(image.annorect) if _is_struct(rect)]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise InputError("RELEASE has another structure than MPII's", where=path, got=error) from error
    return records


def _is_struct(value: Any) -> bool:
    return hasattr(value, "_fieldnames")


def _person(rect: Any) -> dict[str, Any]:
    joints, labelled, occluded = np.full((_JOINTS, 2), -1.0), np.zeros(_JOINTS), np.zeros(_JOINTS, bool)
    found: dict[str, Any] = {}
    position = getattr(rect, "objpos", None)
    if _is_struct(position):
        found["center"] = [float(position.x), float(position.y)]
    if np.size(getattr(rect, "scale", ())) == 1:
        found["scale"] = float(rect.scale)
    corners = [getattr(rect, name, ()) for name in ("x1", "y1", "x2", "y2")]
    if all(np.size(corner) == 1 for corner in corners):
        x1, y1, x2, y2 = (float(corner) for corner in corners)
        found["head_size"] = _HEAD_FACTOR * float(np.hypot(x2 - x1, y2 - y1))
    points = getattr(getattr(rect, "annopoints", None), "point", None)
    if points is None:
        return {**found, "joints": joints.tolist(), "joints_vis": labelled.tolist(), "reason": "it has no joints"}
    for point in np.atleast_1d(points):
        joint = int(point.id)
        if not 0 <= joint < _JOINTS:
            raise ValueError(f"joint number {joint}")
        joints[joint], labelled[joint] = (float(point.x), float(point.y)), 1
        # Empty for head and neck, which MPII does not judge.
        flag = getattr(point, "is_visible", "")
        occluded[joint] = np.size(flag) == 1 and str(np.asarray(flag).item()) in ("0", "0.0")
    if occluded.any():
        found["occluded"] = occluded.tolist()
    return {**found, "joints": joints.tolist(), "joints_vis": labelled.tolist()}


# MPII states the person's height as scale * 200 px; HRNet and mmpose move the centre down by 15 * scale px, because the
# annotated centre lies above the middle of the body.
_SCALE_PX, _CENTRE_SHIFT_PX = 200.0, 15.0


class MpiiKeypoints(AnnotatedPersons):
    """Persons with 16 joints, images decoded on demand.

    The file is a list of ``{image, joints (16 x 2), joints_vis (16), center (2), scale}``. Joints that are not
    annotated have ``joints_vis`` 0 (coordinates -1 in most files). ``mpii_human_pose_v1_u12_1.mat`` is read too; its
    persons without joints (the test images) are left out and listed.

    Args:
        annotations: The json or the .mat file.
        images: Folder of the images.
        captions: Descriptions by file name: a mapping, or a json file with one. Persons without one are described by
            MPII's activity, where the file names it.
        index_base: Coordinate of the first pixel in the file. MPII counts from 1, as Matlab does, and its loaders
            subtract 1; pass 0 for files that count from 0.
        box: ``"center_scale"``: a square of 200 * scale pixels around the centre moved down by 15 * scale (HRNet,
            mmpose; they enlarge it by 1.25, which is the estimator's ``box_scale`` here). ``"joints"``: around the
            joints.
        orientation: How EXIF is read. The annotation states no image size to compare with and was made on the stored
            pixels.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError, InputError: As :class:`posesyn.data.persons.coco.CocoKeypoints`.
    """

    skeleton = "mpii16"

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        captions: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        *,
        index_base: Literal[0, 1] = 1,
        box: Literal["center_scale", "joints"] = "center_scale",
        orientation: Orientation = "raw",
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "mpii",
    ) -> None:
        super().__init__(annotations, images, on_missing, on_bad, min_keypoints, name)
        check_choice(box, "box", ("center_scale", "joints"))
        check_choice(index_base, "index_base", (0, 1))
        self._base, self._box_rule, self._orientation = index_base, box, orientation
        content = read_mpii_mat(self.path) if self.path.suffix.lower() == ".mat" else read_json(self.path)
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            raise InputError("an MPII file must be a list of annotations", where=self.path, got=type(content).__name__)
        given = captions if captions is None or isinstance(captions, Mapping) else read_json(captions)
        self._captions = {key: _texts(value) for key, value in (given or {}).items()}
        candidates = []
        for row, item in enumerate(content):
            path = resolve(self.folder, item.get("image"), f"entry {row}")
            # Records of the .mat file bring the reason why they have no joints.
            candidates.append(Candidate(item, f"{name}/{path.stem}#{row}", path, item.get("reason")))
        self._accept(candidates)

    def _image(self, record: dict[str, Any], path: Path) -> ImageFile:
        return ImageFile(path, self._orientation)

    def _facts(self, record: dict[str, Any], path: Path) -> dict[str, Any]:
        names = ("center", "scale", "activity", "split", "single_person")
        return {
            "captions": self._captions.get(record["image"]) or _activity(record),
            "image_id": f"{self.name}/{path.stem}",
            "track_id": record.get("video"),
            "action": record.get("action"),
            "head_size": record.get("head_size"),
            "occluded": record.get("occluded"),
            "meta": {key: record[key] for key in names if key in record},
        }

    def _joints(self, item: dict[str, Any], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            keypoints = np.asarray(item.get("joints"), np.float32)
            visible = np.asarray(item.get("joints_vis", np.ones(_JOINTS)), np.float32)
        except (ValueError, TypeError) as error:
            raise InputError("joints are not numbers", where=f"person '{person_id}'", got=error) from error
        if keypoints.shape != (_JOINTS, 2) or visible.shape != (_JOINTS,):
            raise InputError(
                f"joints must be ({_JOINTS}, 2) and joints_vis ({_JOINTS},) for skeleton '{self.skeleton}'",
                where=f"person '{person_id}' of {self.path}",
                got=f"{keypoints.shape} and {visible.shape}",
                fix="pass a file in the HRNet or mmpose form",
            )
        absent = (keypoints <= -1).all(1)
        return keypoints - self._base, (visible > 0) & ~absent

    def _box(self, item: dict[str, Any], person_id: str) -> np.ndarray | None:
        if self._box_rule == "joints":
            return None
        try:
            center, scale = np.asarray(item["center"], np.float32).reshape(2), float(item["scale"])
        except (KeyError, TypeError, ValueError) as error:
            where, fix = f"person '{person_id}'", "pass box='joints'"
            raise InputError("an annotation has no center and scale", where=where, got=error, fix=fix) from error
        middle = center - self._base + np.array([0, _CENTRE_SHIFT_PX * scale], np.float32)
        return square_box(middle, _SCALE_PX * scale)


def _activity(item: Mapping[str, Any]) -> tuple[str, ...]:
    """MPII names activities, as in ``"bicycling, mountain"``; the sentence around it is our own."""
    activity = item.get("activity")
    named = isinstance(activity, str) and any(letter.isalnum() for letter in activity)
    return (f"a person is doing {activity.strip()}",) if named else ()


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(text) for text in value)
