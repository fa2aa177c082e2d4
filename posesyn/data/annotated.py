"""What all readers of annotated images share: names, missing images, bad annotations, who is left out and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.boxes import box_around, box_problem
from posesyn.data.image_folder import Choice, check_choice, find_missing
from posesyn.errors import InputError
from posesyn.types import Person


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

    def __getitem__(self, index: int | slice) -> Person | list[Person]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._person(*self._kept[index])

    @property
    def person_ids(self) -> list[str]:
        """Names of all persons, without building them."""
        return [person_id for _, person_id, _ in self._kept]
