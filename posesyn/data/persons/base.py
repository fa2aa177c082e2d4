"""What the readers of annotated photographs share: the image folder, bad persons, cameras that must make sense."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from posesyn import skeletons
from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.types import Person


def xywh_to_xyxy(box_xywh: np.ndarray) -> np.ndarray:
    """COCO's corner, width, height (..., 4) → corners (..., 4) float32."""
    box = np.asarray(box_xywh, np.float32)
    return np.concatenate((box[..., :2], box[..., :2] + box[..., 2:]), axis=-1)


def box_around(keypoints_px: np.ndarray, visible: np.ndarray, margin: float = 0.1) -> np.ndarray:
    """(4,) float32 box around the visible joints, grown on each side by ``margin`` of the longer side.

    Joints lie inside the body, so the bare extent cuts off hands, feet and head; 0.1 is our own choice.

    Raises:
        InputError: No joint is visible.
    """
    points = np.asarray(keypoints_px, np.float32)[np.asarray(visible, bool)]
    if not len(points):
        raise InputError("no joint is visible, so there is no box around them")
    low, high = points.min(0), points.max(0)
    pad = max(float((high - low).max()) * margin, 1.0)
    return np.concatenate((low - pad, high + pad)).astype(np.float32)


def box_problem(box_xyxy: np.ndarray, size: tuple[int, int] | None = None) -> str | None:
    """What is wrong with a box, in words, or None.

    Args:
        box_xyxy: (4,) pixels.
        size: (width, height) of the image where known; a box without any overlap is a problem.
    """
    box = np.asarray(box_xyxy, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        return f"the box {np.asarray(box_xyxy).tolist()} is not four finite numbers"
    if not (box[2] > box[0] and box[3] > box[1]):
        return f"the box {_words(box)} is empty"
    if size is not None and (box[0] >= size[0] or box[1] >= size[1] or box[2] <= 0 or box[3] <= 0):
        return f"the box {_words(box)} is outside the image of {size[0]} x {size[1]}"
    return None


def _words(box: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box.round(1)) + ")"


# Focal length / longer image side. A fisheye of 170 degrees has 0.25, a 300 mm lens on a full frame 8.3; a lens in
# millimetres over an image in pixels gives about 0.02, a normalised one about 0.001. Our own choice.
_RANGE = (0.2, 20.0)


def checked_intrinsics(intrinsics: np.ndarray, where: object, size: tuple[int, int] | None = None) -> np.ndarray:
    """(3, 3) float32 intrinsics in pixels.

    Args:
        intrinsics: (3, 3).
        where: For messages.
        size: (width, height) of the image; None takes twice the principal point.

    Raises:
        InputError: Not (3, 3) or not finite, a focal length in other units than pixels, or a principal point far
            outside the image.
    """
    matrix = np.asarray(intrinsics, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError("intrinsics must be a finite (3, 3) matrix", where=where, got=matrix.shape)
    longer = float(max(size) if size is not None else 2 * matrix[:2, 2].max())
    ratios = np.abs(matrix[[0, 1], [0, 1]]) / max(longer, 1e-9)
    if longer <= 2 or not ((ratios >= _RANGE[0]) & (ratios <= _RANGE[1])).all():
        raise InputError(
            "the focal length is not in pixels of this image",
            where=where,
            expected=f"{_RANGE[0]:g} to {_RANGE[1]:g} times the longer side ({longer:g} px)",
            got=f"{matrix[0, 0]:g}, {matrix[1, 1]:g}",
            fix="multiply millimetres by image width / sensor width, or normalised values by the image size",
        )
    if size is not None and not all(-side < centre < 2 * side for centre, side in zip(matrix[:2, 2], size)):
        raise InputError("the principal point is far outside the image", where=where, got=matrix[:2, 2].tolist())
    return matrix.astype(np.float32)


Choice = Literal["error", "skip"]


def check_choice(value: str, name: str) -> None:
    """Raises InputError unless ``value`` is ``"error"`` or ``"skip"``."""
    if value not in ("error", "skip"):
        raise InputError(f"{name} is unknown", expected="'error' or 'skip'", got=repr(value))


def resolve(folder: Path, file_name: object, where: object) -> Path:
    """Path of an annotated file inside ``folder``.

    Raises:
        InputError: No name.
        UnsafeFileError: The name leaves the folder.
    """
    if not isinstance(file_name, str) or not file_name:
        raise InputError("an image has no file name", where=where, got=repr(file_name))
    name = PurePosixPath(file_name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise UnsafeFileError("an annotated file name leaves the image folder", where=where, got=repr(file_name))
    return folder / name


def find_missing(folder: Path, paths: Iterable[Path], on_missing: Choice, where: object) -> set[Path]:
    """The paths that are not there.

    Raises:
        FileError: The folder is missing, or a file is and ``on_missing`` is ``"error"``.
    """
    if not folder.is_dir():
        raise FileError("there is no image folder", where=folder, fix="name the folder that holds the annotated images")
    missing = sorted({path for path in paths if not os.path.exists(path)})
    if missing and on_missing == "error":
        shown = ", ".join(path.name for path in missing[:5])
        raise FileError(
            "annotated images are missing",
            where=folder,
            got=f"{len(missing)} missing for {where}: {shown}{', ...' if len(missing) > 5 else ''}",
            fix="name the right folder, or pass on_missing='skip' to list their persons as skipped",
        )
    return set(missing)


@dataclass(frozen=True)
class Candidate:
    """One annotation before it is judged.

    Attributes:
        record: Whatever the reader needs to build the person.
        person_id: Unique name.
        path: Its image; None for data without images.
        reason: Why it is left out whatever its joints say, or None.
    """

    record: Any
    person_id: str
    path: Path | None
    reason: str | None = None


class AnnotatedPersons(Sequence[Person]):
    """Base of the readers: a subclass lists candidates, reads the joints of one, and builds one person.

    Args:
        annotations: The annotation file or folder, for messages.
        images: Folder that the image names are relative to.
        on_missing: ``"error"`` or ``"skip"`` for persons whose image is absent.
        on_bad: ``"error"`` or ``"skip"`` for annotations with NaN or with an impossible box.
        min_keypoints: Persons with fewer visible joints are skipped.
        name: Prefix of person names.

    Attributes:
        skipped: (person_id, reason) of each annotation that is left out.
    """

    skeleton: str

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str,
    ) -> None:
        check_choice(on_missing, "on_missing")
        check_choice(on_bad, "on_bad")
        if min_keypoints < 1:
            raise InputError("min_keypoints must be at least 1", where=type(self).__name__, got=min_keypoints)
        self.path, self.folder, self.name = Path(annotations), Path(images), name
        self._on_missing, self._on_bad, self._min_keypoints = on_missing, on_bad, min_keypoints
        self.skipped: tuple[tuple[str, str], ...] = ()
        self._kept: list[tuple[Any, str, Path | None]] = []

    # -- for subclasses -----------------------------------------------------------------------------------------

    def _joints(self, record: Any, person_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (J, 2) and visible (J,) of a candidate."""
        raise InputError("a reader must say how joints are read", where=type(self).__name__)

    def _box(self, record: Any, keypoints: np.ndarray, visible: np.ndarray, person_id: str) -> np.ndarray:
        """(4,) pixels; around the joints unless the data set has boxes."""
        return box_around(keypoints, visible)

    def _size(self, record: Any) -> tuple[int, int] | None:
        """(width, height) of the image where the annotation states it."""
        return None

    def _person(self, record: Any, person_id: str, path: Path | None) -> Person:
        raise InputError("a reader must say how persons are built", where=type(self).__name__)

    def _accept(self, candidates: Sequence[Candidate]) -> None:
        """Judges all candidates; to be called once at the end of the constructor.

        Raises:
            FileError: The folder or an image is missing and ``on_missing`` is ``"error"``.
            InputError: No candidates, two of one name, a bad one while ``on_bad`` is ``"error"``, or none is left.
        """
        if not candidates:
            raise InputError("an annotation file holds no annotations", where=self.path)
        names: set[str] = set()
        for candidate in candidates:
            if candidate.person_id in names:
                raise InputError("two annotations have the same id", where=self.path, got=candidate.person_id)
            names.add(candidate.person_id)
        paths = [item.path for item in candidates if item.path is not None]
        missing = find_missing(self.folder, paths, self._on_missing, self.path) if paths else set()
        skipped = []
        for item in candidates:
            reason = item.reason or self._reason(item, item.path in missing)
            if reason is None:
                self._kept.append((item.record, item.person_id, item.path))
            else:
                skipped.append((item.person_id, reason))
        self.skipped = tuple(skipped)
        if not self._kept:
            got = f"{len(skipped)} skipped, the first because {skipped[0][1]}"
            raise InputError("no usable person is left", where=self.path, got=got)

    def _reason(self, item: Candidate, missing: bool) -> str | None:
        keypoints, visible = self._joints(item.record, item.person_id)
        if not visible.any():
            return "no joint is visible"
        if (seen := int(visible.sum())) < self._min_keypoints:
            return f"only {seen} joints are visible, {self._min_keypoints} are needed"
        if missing:
            return "its image is missing"
        bad = ~np.isfinite(keypoints).all(1) & visible
        if bad.any():
            names = [skeletons.get(self.skeleton).joints[i] for i in np.flatnonzero(bad)]
            problem: str | None = f"joints marked visible are NaN or infinite: {', '.join(names)}"
        else:
            problem = box_problem(self._box(item.record, keypoints, visible, item.person_id), self._size(item.record))
        if problem is not None and self._on_bad == "error":
            raise InputError(
                problem,
                where=f"person '{item.person_id}' of {self.path}",
                fix="correct the annotation, or pass on_bad='skip'",
            )
        return problem

    # -- the sequence -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name[:80]!r}, {len(self)} persons, {len(self.skipped)} skipped)"

    def __getitem__(self, index: int | slice) -> Person | list[Person]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._person(*self._kept[index])

    @property
    def person_ids(self) -> list[str]:
        """Names of all persons, without building them."""
        return [person_id for _, person_id, _ in self._kept]
