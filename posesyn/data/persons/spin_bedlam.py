"""npz files with one row per person: SPIN's, and those of BEDLAM and AGORA (rendered people)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from posesyn.data.persons.base import (
    AnnotatedPersons,
    Candidate,
    Choice,
    check_choice,
    checked_intrinsics,
    resolve,
    square_box,
)
from posesyn.errors import InputError
from posesyn.storage.files import read_npz
from posesyn.storage.images import ImageFile
from posesyn.types import BodyFit, Gender, ImageSource, JointTruth, gender_of

# scale = 1.2 · longer side / 200 (nkolot/SPIN, datasets/preprocess); here the estimator's box_scale grows boxes.
_SCALE_PX, _GROWN = 200.0, 1.2
# Human3.6M's file names: subject, action, camera, frame.
_H36M = re.compile(r"^(S\d+)_(.+)\.(\d{8})_(\d+)$")
# Shapes of one row; None stands for any length.
Shape = tuple[int | None, ...]
_ROW: dict[str, Shape] = {"imgname": (), "center": (2,), "scale": ()}
_SPIN: dict[str, Shape] = {
    "part": (24, 3), "openpose": (25, 3), "S": (24, 4), "pose": (72,), "shape": (10,), "has_smpl": (), "gender": ()
}  # fmt: skip


class NpzTable:
    """Named arrays of N rows; arrays of strings stored as objects are read without running anything.

    Args:
        path: The file.
        required: Name → shape of one row.
        optional: The same for arrays that may be absent.
        what: The file that is expected, for messages.

    Raises:
        FileError, UnsafeFileError: As :func:`posesyn.storage.files.read_npz`.
        InputError: A missing array, a wrong shape, or arrays of different lengths.
    """

    def __init__(self, path: Path, required: Mapping[str, Shape], optional: Mapping[str, Shape], what: str) -> None:
        content = read_npz(path, objects=True)
        if not set(required) <= content.keys():
            expected, got = f"arrays {', '.join(required)}", ", ".join(sorted(content)) or "none"
            raise InputError(f"this is not {what}", where=path, expected=expected, got=got)
        known = {**required, **{key: shape for key, shape in optional.items() if key in content}}
        self._rows = len(np.atleast_1d(content[next(iter(required))]))
        self._arrays: dict[str, np.ndarray] = {}
        for key, shape in known.items():
            value = np.asarray(content[key])
            if value.dtype.hasobject and shape:
                try:
                    value = np.stack([np.asarray(item, np.float32) for item in value])
                except (TypeError, ValueError) as error:
                    raise InputError(f"{key} has rows of different shapes", where=path, got=error) from error
            got = value.shape
            fits = len(got) == len(shape) + 1 and all(side in (None, own) for side, own in zip(shape, got[1:]))
            if not fits or got[0] != self._rows:
                expected = (self._rows, *("any" if side is None else side for side in shape))
                raise InputError(f"{key} has the wrong shape", where=path, expected=expected, got=got)
            self._arrays[key] = value

    def __len__(self) -> int:
        return self._rows

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def text(self, key: str, row: int) -> str:
        """One string, whatever type it was stored in."""
        value = self._arrays[key][row]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _NpzPersons(AnnotatedPersons):
    """Persons that are rows of a table: ``imgname``, the box as ``center`` and ``scale``, ``gender``."""

    _table: NpzTable

    def _accept_rows(self, stride: int) -> None:
        candidates = []
        for row in range(0, len(self._table), stride):
            image = self._table.text("imgname", row)
            person_id = f"{self.name}/{Path(image).with_suffix('')}#{row}"
            candidates.append(Candidate(row, person_id, resolve(self.folder, image, f"row {row}")))
        self._accept(candidates)

    def _box(self, record: int, person_id: str) -> np.ndarray:
        center = np.asarray(self._table["center"][record], np.float32)
        return square_box(center, float(self._table["scale"][record]) * _SCALE_PX / _GROWN)

    def _gender(self, row: int) -> Gender:
        return gender_of(self._table.text("gender", row), self.path) if "gender" in self._table else "neutral"


class SpinPersons(_NpzPersons):
    """Persons of a file in SPIN's form: 24 joints (or OpenPose's 25) in 2D, 24 joints in 3D and SMPL fits where stated.

    The file does not say whether a box is COCO's or that of the joints: none counts as tight.

    3D joints are in the camera's frame relative to the pelvis. The fit's translation is not in the file and stays zero
    (``person.fit.transl_known`` is False).

    Args:
        annotations: The npz (Human3.6M, MPI-INF-3DHP, LSPET, COCO, 3DPW ...): ``imgname``, ``center`` (2), ``scale``
            and some of ``part`` (24, 3), ``openpose`` (25, 3), ``S`` (24, 4), ``pose`` (72), ``shape`` (10),
            ``has_smpl``, ``gender``.
        images: Folder that ``imgname`` is relative to.
        keypoints: ``"part"`` (SPIN24) or ``"openpose"`` (OP25).
        stride: Take every ``stride``-th row.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError: The file or an image is missing or damaged.
        UnsafeFileError: An image name leaves the folder, or an array asks to run code.
        InputError: Another file, wrong shapes, or no usable person.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        keypoints: Literal["part", "openpose"] = "part",
        stride: int = 1,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "spin",
    ) -> None:
        super().__init__(annotations, images, on_missing, on_bad, min_keypoints, name, stride)
        check_choice(keypoints, "keypoints", ("part", "openpose"))
        self._table = NpzTable(self.path, _ROW, _SPIN, "an npz file in SPIN's form")
        if keypoints not in self._table:
            fix = "pass the other of 'part' and 'openpose'"
            raise InputError(f"the file has no array '{keypoints}'", where=self.path, fix=fix)
        self._keypoints = keypoints
        self.skeleton = "spin24" if keypoints == "part" else "op25"
        self._accept_rows(stride)

    def _joints(self, record: int, person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = np.asarray(self._table[self._keypoints][record], np.float32)
        return points[:, :2], points[:, 2] > 0

    def _facts(self, record: int, path: Path) -> dict[str, Any]:
        name, joints = Path(self._table.text("imgname", record)), None
        if "S" in self._table:
            values = np.asarray(self._table["S"][record], np.float32)
            valid = values[:, 3] > 0
            joints = JointTruth(values[:, :3], valid, "spin24", absolute=False) if valid.any() else None
        facts = {
            "image_id": f"{self.name}/{name.with_suffix('')}",
            "sequence": f"{self.name}/{name.parent}",
            "meta": {"image": str(name)},
            "joints": joints,
            "fit": self._fit(record),
        }
        if match := _H36M.match(name.stem):
            subject, action, camera, frame = match.groups()
            track = f"{self.name}/{subject}_{action}.{camera}"
            facts |= {"track_id": track, "sequence": track, "frame": int(frame)}
            facts |= {"subject": subject, "action": action, "camera": camera}
        return facts

    def _fit(self, row: int) -> BodyFit | None:
        table = self._table
        if "pose" not in table or "shape" not in table or ("has_smpl" in table and not table["has_smpl"][row]):
            return None
        pose, gender = table["pose"][row].reshape(24, 3), self._gender(row)
        return BodyFit(pose, table["shape"][row], np.zeros(3), gender, transl_known=False)


_BEDLAM: dict[str, Shape] = {"cam_ext": (4, 4), "trans_cam": (3,), "gender": (), "sub": (), "motion_info": ()}


@dataclass(frozen=True)
class TurnedImage:
    """An image turned clockwise by a quarter: BEDLAM stores close-ups lying on their side."""

    file: ImageFile

    @property
    def name(self) -> str:
        return self.file.name

    def load(self) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(self.file.load(), k=-1))


class BedlamPersons(_NpzPersons):
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
        FileError, UnsafeFileError: As :class:`SpinPersons`.
        InputError: Another file, wrong shapes, a focal length that is not in pixels, or no usable person.
    """

    required: ClassVar[Mapping[str, Shape]] = {
        **_ROW, "pose_cam": (None,), "shape": (None,), "gtkps": (None, 3), "cam_int": (3, 3)
    }  # fmt: skip
    optional: ClassVar[Mapping[str, Shape]] = _BEDLAM
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
        super().__init__(annotations, images, on_missing, on_bad, min_keypoints, name, stride)
        self._table = NpzTable(self.path, self.required, self.optional, self.what)
        width, joints = self._table["pose_cam"].shape[1], self._table["gtkps"].shape[1]
        if width not in (72, 165):
            raise InputError("pose_cam has the wrong shape", where=self.path, expected="(N, 165) or (N, 72)", got=width)
        self._model, self.skeleton, self._count = (
            ("smpl", "smpl24", 24) if width == 72 else ("smplx", "humanml3d22", 22)
        )
        if joints < self._count:
            raise InputError("gtkps has too few joints", where=self.path, expected=self._count, got=joints)
        self._turned = tuple(turned)
        for matrix in {row.tobytes(): row for row in np.asarray(self._table["cam_int"], np.float64)}.values():
            checked_intrinsics(matrix, self.path)
        self._accept_rows(stride)

    def _size(self, record: int) -> tuple[int, int]:
        # The renderer puts the principal point in the middle of the (turned) image.
        centre = self._table["cam_int"][record][:2, 2]
        return round(2 * float(centre[0])), round(2 * float(centre[1]))

    def _joints(self, record: int, person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = np.asarray(self._table["gtkps"][record][: self._count, :2], np.float32)
        return points, (points >= 0).all(-1) & (points < np.array(self._size(record))).all(-1)

    def _image(self, record: int, path: Path) -> ImageSource:
        file, words = ImageFile(path, "raw"), f"{self.path} {path}"
        return TurnedImage(file) if any(word in words for word in self._turned) else file

    def _facts(self, record: int, path: Path) -> dict[str, Any]:
        table = self._table
        name = Path(table.text("imgname", record))
        track = f"{self.name}/{name.parent}/{table.text('sub', record)}" if "sub" in table else None
        extrinsics = np.eye(4)
        if "cam_ext" in table:
            # point_cam = body(pose_cam, shape, trans_cam) + cam_ext[:3, 3]; its rotation is in pose_cam already.
            extrinsics[:3, 3] = table["cam_ext"][record][:3, 3]
        transl = table["trans_cam"][record] if "trans_cam" in table else np.zeros(3)
        pose, known = np.asarray(table["pose_cam"][record]).reshape(-1, 3), "trans_cam" in table and "cam_ext" in table
        return {
            "image_id": f"{self.name}/{name.with_suffix('')}",
            "track_id": track,
            "sequence": f"{self.name}/{name.parent}",
            "intrinsics": table["cam_int"][record],
            "meta": {key: table.text(key, record) for key in ("age", "kid") if key in table},
            "fit": BodyFit(pose, table["shape"][record], transl, self._gender(record), self._model, extrinsics, known),
            "box_is_tight": True,  # 1.2 · longer side of joints[:22] (pixelite1201/BEDLAM, data_processing)
        }


class AgoraPersons(BedlamPersons):
    """Persons of AGORA's npz. Where it has no ``trans_cam``, the fit's translation is unknown and zero
    (``person.fit.transl_known``).

    Args:
        annotations, images, stride, on_missing, on_bad, min_keypoints, name: As in :class:`BedlamPersons`; images are
            never turned.

    Raises:
        FileError, UnsafeFileError, InputError: As :class:`BedlamPersons`.
    """

    optional: ClassVar[Mapping[str, Shape]] = {**_BEDLAM, "bfh": (), "age": (), "kid": ()}
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
