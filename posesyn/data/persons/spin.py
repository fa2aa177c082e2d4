"""SPIN's npz files: one row per person, for Human3.6M, MPI-INF-3DHP, LSPET, COCO, 3DPW and others."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import numpy as np

from posesyn.data.persons.annotation_files import NpzTable
from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, resolve
from posesyn.errors import InputError
from posesyn.storage.images import ImageFile
from posesyn.types import BodyFit, JointTruth, Person, gender_of

# scale = 1.2 · longer side / 200 (nkolot/SPIN, datasets/preprocess); here the estimator's box_scale grows boxes.
_SCALE_PX, _GROWN = 200.0, 1.2
# Human3.6M's file names: subject, action, camera, frame.
_H36M = re.compile(r"^(S\d+)_(.+)\.(\d{8})_(\d+)$")
_OPTIONAL = {
    "part": (24, 3),
    "openpose": (25, 3),
    "S": (24, 4),
    "pose": (72,),
    "shape": (10,),
    "has_smpl": (),
    "gender": (),
}


class SpinPersons(AnnotatedPersons):
    """Persons of a file in SPIN's form: 24 joints (or OpenPose's 25) in 2D, 24 joints in 3D and SMPL fits where stated.

    3D joints are in the camera's frame relative to the pelvis. The fit's translation is not in the file and stays zero
    (``person.fit.transl_known`` is False).

    Args:
        annotations: The npz: ``imgname``, ``center`` (2), ``scale`` and some of ``part`` (24, 3), ``openpose`` (25, 3),
            ``S`` (24, 4), ``pose`` (72), ``shape`` (10), ``has_smpl``, ``gender``.
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
        super().__init__(
            annotations, images, on_missing=on_missing, on_bad=on_bad, min_keypoints=min_keypoints, name=name
        )
        if stride < 1 or keypoints not in ("part", "openpose"):
            raise InputError("unknown option", where="SpinPersons", expected="stride >= 1; part or openpose")
        self._table = NpzTable(
            self.path, {"imgname": (), "center": (2,), "scale": ()}, _OPTIONAL, "an npz file in SPIN's form"
        )
        if keypoints not in self._table:
            raise InputError(
                f"the file has no array '{keypoints}'", where=self.path, fix="pass the other of 'part' and 'openpose'"
            )
        self._keypoints = keypoints
        self.skeleton = "spin24" if keypoints == "part" else "op25"
        candidates = []
        for row in range(0, len(self._table), stride):
            image = self._table.text("imgname", row)
            path = resolve(self.folder, image, f"row {row}")
            candidates.append(Candidate(row, f"{name}/{Path(image).with_suffix('')}#{row}", path))
        self._accept(candidates)

    def _joints(self, record: int, person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = np.asarray(self._table[self._keypoints][record], np.float32)
        return points[:, :2], points[:, 2] > 0

    def _box(self, record: int, keypoints: np.ndarray, visible: np.ndarray, person_id: str) -> np.ndarray:
        center = np.asarray(self._table["center"][record], np.float32)
        half = float(self._table["scale"][record]) * _SCALE_PX / _GROWN / 2
        return np.concatenate((center - half, center + half)).astype(np.float32)

    def _person(self, record: int, person_id: str, path: Path | None) -> Person:
        table = self._table
        keypoints, visible = self._joints(record, person_id)
        name = Path(table.text("imgname", record))
        match = _H36M.match(name.stem)
        subject, action, camera, frame = match.groups() if match else (None, None, None, None)
        track = f"{self.name}/{subject}_{action}.{camera}" if match else None
        joints = None
        if "S" in table:
            values = np.asarray(table["S"][record], np.float32)
            valid = values[:, 3] > 0
            joints = JointTruth(values[:, :3], valid, "spin24", absolute=False) if valid.any() else None
        return Person(
            person_id,
            ImageFile(path, "raw"),
            self._box(record, keypoints, visible, person_id),
            keypoints,
            visible,
            self.skeleton,
            image_id=f"{self.name}/{name.with_suffix('')}",
            track_id=track,
            sequence=track or f"{self.name}/{name.parent}",
            subject=subject,
            action=action,
            camera=camera,
            frame=None if frame is None else int(frame),
            meta={"image": str(name)},
            joints=joints,
            fit=self._fit(record),
        )

    def _fit(self, row: int) -> BodyFit | None:
        table = self._table
        if "pose" not in table or "shape" not in table or ("has_smpl" in table and not table["has_smpl"][row]):
            return None
        gender = gender_of(table.text("gender", row), self.path) if "gender" in table else "neutral"
        return BodyFit(table["pose"][row].reshape(24, 3), table["shape"][row], np.zeros(3), gender, transl_known=False)
