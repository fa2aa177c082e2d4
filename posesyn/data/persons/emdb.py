"""EMDB: one pickle per sequence beside its folder of frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, box_around, box_problem, checked_intrinsics
from posesyn.errors import FileError, InputError
from posesyn.storage.images import ImageFile
from posesyn.storage.unpickling import restricted_load
from posesyn.types import BodyFit, Gender, Person, gender_of

_KEYS = ("gender", "name", "n_frames", "camera", "smpl", "kp2d", "bboxes")


@dataclass(frozen=True, eq=False)
class _Sequence:
    name: str
    folder: Path
    gender: Gender
    pose: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    extrinsics: np.ndarray
    intrinsics: np.ndarray
    size: tuple[int, int]
    keypoints: np.ndarray
    boxes: np.ndarray
    boxless: frozenset[int]
    good: np.ndarray


class Emdb(AnnotatedPersons):
    """Persons of EMDB: projected SMPL joints, boxes, and the fit of the gendered SMPL body; one track per sequence.

    ``person.valid`` is the file's ``good_frames_mask``. 3D joints are not in the files: they follow from
    the fit with a SMPL body (:mod:`posesyn.evaluation.bodies`).

    Args:
        root: Folder that holds ``P*/SEQUENCE/*_data.pkl`` with ``images/00000.jpg`` beside each.
        subset: ``"emdb1"`` or ``"emdb2"`` takes the sequences flagged so; None takes all.
        stride: Take every ``stride``-th frame.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError, UnsafeFileError, InputError: As :class:`posesyn.data.persons.threedpw.ThreeDPW`.
    """

    skeleton = "smpl24"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        subset: Literal["emdb1", "emdb2"] | None = None,
        stride: int = 1,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "emdb",
    ) -> None:
        super().__init__(root, root, on_missing=on_missing, on_bad=on_bad, min_keypoints=min_keypoints, name=name)
        if stride < 1 or subset not in (None, "emdb1", "emdb2"):
            raise InputError("unknown option", where="Emdb", expected="stride >= 1, subset emdb1 or emdb2", got=subset)
        files = sorted(self.path.rglob("*_data.pkl")) if self.path.is_dir() else [self.path]
        if not files:
            raise FileError("the folder holds no sequences", where=self.path, expected="P*/SEQUENCE/*_data.pkl")
        read = [_read(file, subset) for file in files]
        self._sequences = [sequence for sequence in read if sequence is not None]
        if not self._sequences:
            raise InputError(f"no sequence belongs to {subset}", where=self.path, got=f"{len(files)} sequences")
        self._accept(
            [
                Candidate(
                    (row, frame), f"{name}/{sequence.name}@{frame:05d}", sequence.folder / "images" / f"{frame:05d}.jpg"
                )
                for row, sequence in enumerate(self._sequences)
                for frame in range(0, len(sequence.pose), stride)
            ]
        )

    def _joints(self, record: tuple[int, int], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = self._sequences[record[0]].keypoints[record[1]]
        return points, np.isfinite(points).all(-1)

    def _box(self, record: tuple[int, int], keypoints: np.ndarray, visible: np.ndarray, person_id: str) -> np.ndarray:
        sequence, frame = self._sequences[record[0]], record[1]
        box = sequence.boxes[frame]
        if frame in sequence.boxless or box_problem(box) is not None:
            return box_around(keypoints, visible)
        return box

    def _size(self, record: tuple[int, int]) -> tuple[int, int]:
        return self._sequences[record[0]].size

    def _person(self, record: tuple[int, int], person_id: str, path: Path | None) -> Person:
        sequence, frame = self._sequences[record[0]], record[1]
        keypoints, visible = self._joints(record, person_id)
        return Person(
            person_id,
            ImageFile(path, "raw", sequence.size),
            self._box(record, keypoints, visible, person_id),
            keypoints,
            visible,
            self.skeleton,
            image_id=person_id,
            track_id=f"{self.name}/{sequence.name}",
            sequence=sequence.name,
            frame=frame,
            valid=bool(sequence.good[frame]),
            intrinsics=sequence.intrinsics,
            image_width_height=sequence.size,
            fit=BodyFit(
                sequence.pose[frame].reshape(24, 3),
                sequence.betas,
                sequence.trans[frame],
                sequence.gender,
                "smpl",
                sequence.extrinsics[frame],
            ),
        )


def _read(path: Path, subset: str | None) -> _Sequence | None:
    content = restricted_load(path)
    if not isinstance(content, dict) or not set(_KEYS) <= set(content):
        got = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError("this is not a sequence of EMDB", where=path, expected=f"keys {', '.join(_KEYS)}", got=got)
    if subset is not None and not content.get(subset):
        return None
    try:
        frames, camera, smpl = int(content["n_frames"]), content["camera"], content["smpl"]
        size = (int(camera["width"]), int(camera["height"]))
        arrays = {
            "pose": np.concatenate((smpl["poses_root"], smpl["poses_body"]), axis=-1),
            "trans": smpl["trans"],
            "betas": np.asarray(smpl["betas"]).ravel()[:10],
            "extrinsics": camera["extrinsics"],
            "keypoints": content["kp2d"],
            "boxes": content["bboxes"]["bboxes"],
            "good": content.get("good_frames_mask", np.ones(frames, bool)),
        }
        boxless = frozenset(int(i) for i in np.asarray(content["bboxes"].get("invalid_idxs", ())).ravel())
        intrinsics = checked_intrinsics(camera["intrinsics"], path, size)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "a sequence of EMDB is incomplete", where=path, got=f"{type(error).__name__}: {error}"
        ) from error
    shapes = {
        "pose": (frames, 72),
        "trans": (frames, 3),
        "betas": (10,),
        "extrinsics": (frames, 4, 4),
        "keypoints": (frames, 24, 2),
        "boxes": (frames, 4),
        "good": (frames,),
    }
    for key, shape in shapes.items():
        dtype = bool if key == "good" else np.float64 if key == "extrinsics" else np.float32
        arrays[key] = np.asarray(arrays[key], dtype)
        if arrays[key].shape != shape:
            raise InputError(f"{key} has the wrong shape", where=path, expected=shape, got=arrays[key].shape)
    return _Sequence(
        str(content["name"]),
        path.parent,
        gender_of(content["gender"], path),
        intrinsics=intrinsics,
        size=size,
        boxless=boxless,
        **arrays,
    )
