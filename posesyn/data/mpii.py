"""Persons of an MPII annotation in the json form that HRNet and mmpose use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posesyn import skeletons
from posesyn.data.boxes import box_around, box_problem
from posesyn.data.image_folder import Choice, check_choice, find_missing, resolve
from posesyn.errors import InputError
from posesyn.storage.atomic import read_json
from posesyn.storage.images import ImageFile, Orientation
from posesyn.types import Person

# MPII states the person's height as scale * 200 px; HRNet and mmpose move the centre down by 15 * scale px, because the
# annotated centre lies above the middle of the body.
_SCALE_PX, _CENTRE_SHIFT_PX = 200.0, 15.0


class MpiiKeypoints(Sequence[Person]):
    """Persons with 16 joints, images decoded on demand.

    The file is a list of ``{image, joints (16 x 2), joints_vis (16), center (2), scale}``. Joints that are not
    annotated have ``joints_vis`` 0 (coordinates -1 in most files).

    Args:
        annotations: The json file.
        images: Folder of the images.
        captions: Descriptions by file name: a mapping, or a json file with one; None for none.
        index_base: Coordinate of the first pixel in the file. MPII counts from 1, as Matlab does, and its loaders
            subtract 1; pass 0 for files that count from 0.
        box: ``"center_scale"``: a square of 200 * scale pixels around the centre moved down by 15 * scale (HRNet,
            mmpose; they enlarge it by 1.25, which is the estimator's ``box_scale`` here). ``"joints"``: around the
            joints.
        orientation: How EXIF is read. The annotation states no image size to compare with and was made on the stored
            pixels.
        on_missing, on_bad: ``"error"`` or ``"skip"``, as in :class:`posesyn.data.coco.CocoKeypoints`.
        min_keypoints: Persons with fewer visible joints are skipped.
        name: Prefix of person names.

    Attributes:
        skipped: (person_id, reason) of each annotation that is left out.

    Raises:
        FileError, InputError: As :class:`posesyn.data.coco.CocoKeypoints`.
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
        check_choice(on_missing, "on_missing")
        check_choice(on_bad, "on_bad")
        if box not in ("center_scale", "joints") or index_base not in (0, 1):
            raise InputError(
                "unknown option", expected="box center_scale or joints; index_base 0 or 1", got=(box, index_base)
            )
        self.path, self.folder, self.name = Path(annotations), Path(images), name
        self._base, self._box_rule, self._orientation, self._on_bad = index_base, box, orientation, on_bad
        content = read_json(self.path)
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            raise InputError("an MPII file must be a list of annotations", where=self.path, got=type(content).__name__)
        if not content:
            raise InputError("an annotation file holds no annotations", where=self.path)
        given = captions if captions is None or isinstance(captions, Mapping) else read_json(captions)
        self._captions = {key: _texts(value) for key, value in (given or {}).items()}
        paths = [resolve(self.folder, item.get("image"), f"entry {row}") for row, item in enumerate(content)]
        missing = find_missing(self.folder, paths, on_missing, self.path)
        self._persons: list[Person] = []
        skipped = []
        for row, (item, path) in enumerate(zip(content, paths)):
            person_id = f"{name}/{path.stem}#{row}"
            keypoints, visible = self._joints(item, person_id)
            reason = self._reason(item, keypoints, visible, path, missing, min_keypoints, person_id)
            if reason is None:
                self._persons.append(self._person(item, keypoints, visible, path, person_id))
            else:
                skipped.append((person_id, reason))
        self.skipped: tuple[tuple[str, str], ...] = tuple(skipped)
        if not self._persons:
            got = f"{len(skipped)} skipped, the first because {skipped[0][1]}"
            raise InputError("no usable person is left", where=self.path, got=got)

    def __len__(self) -> int:
        return len(self._persons)

    def __getitem__(self, index: int | slice) -> Person | list[Person]:  # type: ignore[override]
        return self._persons[index]

    def _person(
        self, item: dict[str, Any], keypoints: np.ndarray, visible: np.ndarray, path: Path, person_id: str
    ) -> Person:
        meta = {key: item[key] for key in ("center", "scale", "action", "head_size", "activity") if key in item}
        return Person(
            person_id,
            ImageFile(path, self._orientation),
            self._box(item, keypoints, visible, person_id),
            keypoints,
            visible,
            self.skeleton,
            captions=self._captions.get(item["image"], ()),
            image_id=f"{self.name}/{path.stem}",
            meta=meta,
        )

    def _joints(self, item: dict[str, Any], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        joints = len(skeletons.get(self.skeleton))
        try:
            keypoints = np.asarray(item.get("joints"), np.float32)
            visible = np.asarray(item.get("joints_vis", np.ones(joints)), np.float32)
        except (ValueError, TypeError) as error:
            raise InputError("joints are not numbers", where=f"person '{person_id}'", got=error) from error
        if keypoints.shape != (joints, 2) or visible.shape != (joints,):
            raise InputError(
                f"joints must be ({joints}, 2) and joints_vis ({joints},) for skeleton '{self.skeleton}'",
                where=f"person '{person_id}' of {self.path}",
                got=f"{keypoints.shape} and {visible.shape}",
                fix="pass a file in the HRNet or mmpose form",
            )
        absent = (keypoints <= -1).all(1)
        return keypoints - self._base, (visible > 0) & ~absent

    def _box(self, item: dict[str, Any], keypoints: np.ndarray, visible: np.ndarray, person_id: str) -> np.ndarray:
        if self._box_rule == "joints":
            return box_around(keypoints, visible)
        try:
            center, scale = np.asarray(item["center"], np.float32).reshape(2), float(item["scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "an annotation has no center and scale",
                where=f"person '{person_id}'",
                got=error,
                fix="pass box='joints'",
            ) from error
        middle = center - self._base + np.array([0, _CENTRE_SHIFT_PX * scale], np.float32)
        half = _SCALE_PX * scale / 2
        return np.concatenate((middle - half, middle + half)).astype(np.float32)

    def _reason(
        self,
        item: dict[str, Any],
        keypoints: np.ndarray,
        visible: np.ndarray,
        path: Path,
        missing: set[Path],
        min_keypoints: int,
        person_id: str,
    ) -> str | None:
        """Why an annotation is left out, or None. Raises where it is bad and bad ones are errors."""
        if not visible.any():
            return "no joint is visible"
        if visible.sum() < min_keypoints:
            return f"only {int(visible.sum())} joints are visible, {min_keypoints} are needed"
        if path in missing:
            return "its image is missing"
        if not np.isfinite(keypoints[visible]).all():
            problem = "joints marked visible are NaN or infinite"
        else:
            problem = box_problem(self._box(item, keypoints, visible, person_id))
        if problem is not None and self._on_bad == "error":
            raise InputError(
                problem,
                where=f"person '{person_id}' of {self.path}",
                fix="correct the annotation, or pass on_bad='skip'",
            )
        return problem


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(text) for text in value)
