"""BEDLAM and AGORA: rendered people with SMPL and SMPL-X truth, in the npz tables that published trainings read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from posesyn.data.persons.annotation_files import NpzTable, Shape
from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, checked_intrinsics, resolve
from posesyn.errors import InputError
from posesyn.storage.images import ImageFile
from posesyn.types import BodyFit, ImageSource, Person, gender_of

_SCALE_PX, _GROWN = 200.0, 1.2
_REQUIRED: dict[str, Shape] = {
    "imgname": (),
    "center": (2,),
    "scale": (),
    "pose_cam": (None,),
    "shape": (None,),
    "gtkps": (None, 3),
    "cam_int": (3, 3),
}
_OPTIONAL: dict[str, Shape] = {
    "cam_ext": (4, 4),
    "trans_cam": (3,),
    "gender": (),
    "sub": (),
    "motion_info": (),
}


@dataclass(frozen=True)
class TurnedImage:
    """An image turned clockwise by a quarter: BEDLAM stores close-ups lying on their side."""

    file: ImageFile

    @property
    def name(self) -> str:
        return self.file.name

    def load(self) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(self.file.load(), k=-1))


class BedlamPersons(AnnotatedPersons):
    """Persons of BEDLAM: the first 22 SMPL-X joints (24 of SMPL) in 2D and the body parameters.

    A joint counts as visible where it lies inside the image: the files carry no visibility (their third column is 1
    throughout). 3D joints are not in the files; they follow from the fit with a licensed body.

    Args:
        annotations: The npz of a scene: ``imgname``, ``center``, ``scale``, ``pose_cam`` (165 or 72), ``shape``,
            ``gtkps``, ``cam_int``, ``cam_ext``, ``trans_cam``, ``gender``, ``sub``.
        images: Folder that ``imgname`` is relative to.
        turned: Scenes whose images are turned clockwise before use: a word in the path of the npz or of the image
            (BEDLAM: ``closeup``, BEDLAM 2: ``portrait``).
        stride: Take every ``stride``-th row.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`; BEDLAM's own
            rule is ``min_keypoints=8``.

    Raises:
        FileError, UnsafeFileError: As :class:`posesyn.data.persons.spin.SpinPersons`.
        InputError: Another file, wrong shapes, a focal length that is not in pixels, or no usable person.
    """

    required: ClassVar[Mapping[str, Shape]] = _REQUIRED
    optional: ClassVar[Mapping[str, Shape]] = _OPTIONAL
    what = "a training file of BEDLAM"

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        turned: tuple[str, ...] = ("closeup", "portrait"),
        stride: int = 1,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 8,
        name: str = "bedlam",
    ) -> None:
        super().__init__(
            annotations, images, on_missing=on_missing, on_bad=on_bad, min_keypoints=min_keypoints, name=name
        )
        if stride < 1:
            raise InputError("stride must be at least 1", where=type(self).__name__, got=stride)
        self._table = NpzTable(self.path, self.required, self.optional, self.what)
        width = self._table["pose_cam"].shape[1]
        if width not in (72, 165):
            raise InputError("pose_cam has the wrong shape", where=self.path, expected="(N, 165) or (N, 72)", got=width)
        self._model = "smpl" if width == 72 else "smplx"
        self._count = 24 if width == 72 else 22
        if self._table["gtkps"].shape[1] < self._count:
            raise InputError(
                "gtkps has too few joints", where=self.path, expected=self._count, got=self._table["gtkps"].shape[1]
            )
        self.skeleton = "smpl24" if width == 72 else "humanml3d22"
        candidates = []
        for row in range(0, len(self._table), stride):
            image = self._table.text("imgname", row)
            path = resolve(self.folder, image, f"row {row}")
            candidates.append(Candidate(row, f"{name}/{Path(image).with_suffix('')}#{row}", path))
        self._turned = tuple(turned)
        for matrix in {row.tobytes(): row for row in np.asarray(self._table["cam_int"], np.float64)}.values():
            checked_intrinsics(matrix, self.path)
        self._accept(candidates)

    def _size(self, record: int) -> tuple[int, int]:
        # The renderer puts the principal point in the middle of the (turned) image.
        centre = self._table["cam_int"][record][:2, 2]
        return round(2 * float(centre[0])), round(2 * float(centre[1]))

    def _joints(self, record: int, person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = np.asarray(self._table["gtkps"][record][: self._count, :2], np.float32)
        inside = (points >= 0).all(-1) & (points < np.array(self._size(record))).all(-1)
        return points, inside

    def _box(self, record: int, keypoints: np.ndarray, visible: np.ndarray, person_id: str) -> np.ndarray:
        center = np.asarray(self._table["center"][record], np.float32)
        half = float(self._table["scale"][record]) * _SCALE_PX / _GROWN / 2
        return np.concatenate((center - half, center + half)).astype(np.float32)

    def _image(self, path: Path) -> ImageSource:
        file = ImageFile(path, "raw")
        words = f"{self.path} {path}"
        return TurnedImage(file) if any(word in words for word in self._turned) else file

    def _person(self, record: int, person_id: str, path: Path | None) -> Person:
        keypoints, visible = self._joints(record, person_id)
        name = Path(self._table.text("imgname", record))
        subject = self._table.text("sub", record) if "sub" in self._table else None
        return Person(
            person_id,
            self._image(path),
            self._box(record, keypoints, visible, person_id),
            keypoints,
            visible,
            self.skeleton,
            image_id=f"{self.name}/{name.with_suffix('')}",
            track_id=None if subject is None else f"{self.name}/{name.parent}/{subject}",
            sequence=f"{self.name}/{name.parent}",
            intrinsics=self._table["cam_int"][record],
            meta={key: self._table.text(key, record) for key in ("age", "kid") if key in self._table},
            fit=self._fit(record),
        )

    def _fit(self, row: int) -> BodyFit:
        table = self._table
        extrinsics = np.eye(4)
        if "cam_ext" in table:
            # point_cam = body(pose_cam, shape, trans_cam) + cam_ext[:3, 3]; its rotation is in pose_cam already.
            extrinsics[:3, 3] = table["cam_ext"][row][:3, 3]
        transl = table["trans_cam"][row] if "trans_cam" in table else np.zeros(3)
        gender = gender_of(table.text("gender", row), self.path) if "gender" in table else "neutral"
        pose = np.asarray(table["pose_cam"][row]).reshape(-1, 3)
        known = "trans_cam" in table and "cam_ext" in table
        return BodyFit(pose, table["shape"][row], transl, gender, self._model, extrinsics, known)


class AgoraPersons(BedlamPersons):
    """Persons of AGORA's npz. Where it has no ``trans_cam``, the fit's translation is unknown and zero
    (``person.fit.transl_known``).

    Args:
        annotations, images, stride, on_missing, on_bad, min_keypoints, name: As in
            :class:`posesyn.data.persons.bedlam.BedlamPersons`; images are never turned.

    Raises:
        FileError, UnsafeFileError, InputError: As :class:`posesyn.data.persons.bedlam.BedlamPersons`.
    """

    optional: ClassVar[Mapping[str, Shape]] = {**_OPTIONAL, "bfh": (), "age": (), "kid": ()}
    what = "a training file of AGORA"

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        stride: int = 1,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 8,
        name: str = "agora",
    ) -> None:
        super().__init__(
            annotations,
            images,
            turned=(),
            stride=stride,
            on_missing=on_missing,
            on_bad=on_bad,
            min_keypoints=min_keypoints,
            name=name,
        )
