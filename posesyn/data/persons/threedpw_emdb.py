"""3DPW and EMDB: one pickle per sequence with the fits of a SMPL body, read without running anything, frames as jpg."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posesyn.data.persons.base import (
    AnnotatedPersons,
    Candidate,
    Choice,
    box_problem,
    check_choice,
    checked_intrinsics,
)
from posesyn.errors import FileError, InputError
from posesyn.storage.images import ImageFile
from posesyn.storage.unpickling import restricted_load
from posesyn.types import BodyFit, Gender, JointTruth, gender_of


@dataclass(frozen=True, eq=False)
class _Track:
    """Arrays of one person of a sequence over its T frames."""

    sequence: str
    name: str
    gender: Gender
    pose: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    world_to_cam: np.ndarray
    intrinsics: np.ndarray
    keypoints: np.ndarray
    valid: np.ndarray


class _Tracks(AnnotatedPersons):
    """Persons by (track, frame)."""

    _tracks: Sequence[_Track]

    def _facts(self, record: tuple[int, int], path: Path) -> dict[str, Any]:
        track, frame = self._tracks[record[0]], record[1]
        pose, camera = track.pose[frame].reshape(24, 3), track.world_to_cam[frame]
        return {
            "track_id": f"{self.name}/{track.name}",
            "sequence": track.sequence,
            "frame": frame,
            "valid": bool(track.valid[frame]),
            "intrinsics": track.intrinsics,
            "fit": BodyFit(pose, track.betas, track.trans[frame], track.gender, "smpl", camera),
        }


def _content(path: Path, keys: Sequence[str], what: str) -> dict[str, Any]:
    content = restricted_load(path)
    if not isinstance(content, dict) or not set(keys) <= set(content):
        got = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"this is not {what}", where=path, expected=f"keys {', '.join(keys)}", got=got)
    return content


@contextmanager
def _complete(path: Path, what: str) -> Iterator[None]:
    """Whatever is missing inside the block becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except (IndexError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{what} is incomplete", where=path, got=f"{type(error).__name__}: {error}") from error


def _array(value: Any, key: str, shape: tuple[int, ...], where: object, dtype: type = np.float32) -> np.ndarray:
    array = np.asarray(value, dtype)
    if array.shape != shape:
        raise InputError(f"{key} has the wrong shape", where=where, expected=shape, got=array.shape)
    return array


@dataclass(frozen=True, eq=False)
class _Actor(_Track):
    joints_world: np.ndarray | None


class ThreeDPW(_Tracks):
    """Persons of 3DPW: OpenPose-18 detections, SMPL joints in the camera, and the fit of the gendered SMPL body.

    Frames whose camera pose is not valid (``campose_valid``) stay in; protocols drop them by ``person.valid``.

    Args:
        sequences: Folder of ``*.pkl`` (``sequenceFiles/test``), one file, or several.
        images: The folder ``imageFiles`` (``SEQUENCE/image_00000.jpg`` inside).
        stride: Take every ``stride``-th frame.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`; persons
            without a detected joint have no box and are left out.

    Raises:
        FileError: A file or folder is missing or damaged.
        UnsafeFileError: A pickle asks to run code. Nothing was run.
        InputError: A pickle of another data set, arrays that do not fit together, or no usable person.
    """

    skeleton = "op18"
    annotated_in = "file or folder"
    _tracks: list[_Actor]

    def __init__(
        self,
        sequences: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        images: str | os.PathLike[str],
        *,
        stride: int = 1,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "3dpw",
    ) -> None:
        several = not isinstance(sequences, str | os.PathLike)
        paths = [Path(path) for path in sequences] if several else [Path(sequences)]  # type: ignore[arg-type, union-attr]
        place = paths[0].parent if several else paths[0]
        super().__init__(place, images, on_missing, on_bad, min_keypoints, name, stride)
        files = [file for path in paths for file in (sorted(path.glob("*.pkl")) if path.is_dir() else [path])]
        if not files:
            raise FileError("the folder holds no sequences", where=self.path, expected="*.pkl")
        self._tracks = [actor for file in files for actor in _actors(file)]
        candidates = []
        for row, actor in enumerate(self._tracks):
            number = actor.name.rpartition("#")[2]
            for frame in range(0, len(actor.pose), stride):
                path = self.folder / actor.sequence / f"image_{frame:05d}.jpg"
                candidates.append(Candidate((row, frame), f"{name}/{actor.sequence}@{frame:05d}#{number}", path))
        self._accept(candidates)

    def _joints(self, record: tuple[int, int], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = self._tracks[record[0]].keypoints[record[1]]
        return points[:2].T, points[2] > 0

    def _facts(self, record: tuple[int, int], path: Path) -> dict[str, Any]:
        actor, frame = self._tracks[record[0]], record[1]
        facts = {**super()._facts(record, path), "image_id": f"{self.name}/{actor.sequence}@{frame:05d}"}
        if actor.joints_world is not None:
            camera = actor.world_to_cam[frame]
            points = actor.joints_world[frame].reshape(24, 3) @ camera[:3, :3].T + camera[:3, 3]
            facts["joints"] = JointTruth(points, np.ones(24, bool), "smpl24", actor.intrinsics)
        return facts


def _actors(path: Path) -> list[_Actor]:
    keys = ("sequence", "betas", "poses", "trans", "genders", "poses2d", "cam_poses", "cam_intrinsics")
    content = _content(path, keys, "a sequence of 3DPW")
    name = content["sequence"]
    name = name.decode() if isinstance(name, bytes) else str(name)
    if "/" in name or name in ("", ".", ".."):
        raise InputError("a sequence has an impossible name", where=path, got=repr(name))
    with _complete(path, "a sequence of 3DPW"):
        frames = len(content["cam_poses"])
        cameras = _array(content["cam_poses"], "cam_poses", (frames, 4, 4), path, np.float64)
        intrinsics = checked_intrinsics(np.asarray(content["cam_intrinsics"]), path)
        valid, joints = content.get("campose_valid"), content.get("jointPositions")
        actors = []
        for row in range(len(content["poses"])):
            where = f"{path}, person {row}"
            actors.append(
                _Actor(
                    name,
                    f"{name}#{row}",
                    gender_of(content["genders"][row], where),
                    _array(content["poses"][row], "poses", (frames, 72), where),
                    _array(content["trans"][row], "trans", (frames, 3), where),
                    # Ten coefficients describe the person in all frames; the files of clothed scans hold more.
                    np.asarray(content["betas"][row], np.float32).ravel()[:10],
                    cameras,
                    intrinsics,
                    _array(content["poses2d"][row], "poses2d", (frames, 3, 18), where),
                    np.ones(frames, bool)
                    if valid is None
                    else _array(valid[row], "campose_valid", (frames,), where, bool),
                    None if joints is None else _array(joints[row], "jointPositions", (frames, 72), where),
                )
            )
    return actors


@dataclass(frozen=True, eq=False)
class _Walk(_Track):
    folder: Path
    size: tuple[int, int]
    boxes: np.ndarray
    boxless: frozenset[int]


class Emdb(_Tracks):
    """Persons of EMDB: projected SMPL joints, boxes, and the fit of the gendered SMPL body; one track per sequence.

    ``person.valid`` is the file's ``good_frames_mask``. 3D joints are not in the files: they follow from the fit with a
    SMPL body (:mod:`posesyn.evaluation.bodies`).

    Args:
        root: Folder that holds ``P*/SEQUENCE/*_data.pkl`` with ``images/00000.jpg`` beside each.
        subset: ``"emdb1"`` or ``"emdb2"`` takes the sequences flagged so; None takes all.
        stride: Take every ``stride``-th frame.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError, UnsafeFileError, InputError: As :class:`ThreeDPW`.
    """

    skeleton = "smpl24"
    annotated_in = None
    _tracks: list[_Walk]

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
        super().__init__(root, root, on_missing, on_bad, min_keypoints, name, stride)
        check_choice(subset, "subset", (None, "emdb1", "emdb2"))
        files = sorted(self.path.rglob("*_data.pkl")) if self.path.is_dir() else [self.path]
        if not files:
            raise FileError("the folder holds no sequences", where=self.path, expected="P*/SEQUENCE/*_data.pkl")
        self._tracks = [walk for walk in (_walk(file, subset) for file in files) if walk is not None]
        if not self._tracks:
            raise InputError(f"no sequence belongs to {subset}", where=self.path, got=f"{len(files)} sequences")
        candidates = []
        for row, walk in enumerate(self._tracks):
            for frame in range(0, len(walk.pose), stride):
                path = walk.folder / "images" / f"{frame:05d}.jpg"
                candidates.append(Candidate((row, frame), f"{name}/{walk.sequence}@{frame:05d}", path))
        self._accept(candidates)

    def _joints(self, record: tuple[int, int], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = self._tracks[record[0]].keypoints[record[1]]
        return points, np.isfinite(points).all(-1)

    def _box(self, record: tuple[int, int], person_id: str) -> np.ndarray | None:
        walk, frame = self._tracks[record[0]], record[1]
        box = walk.boxes[frame]
        return None if frame in walk.boxless or box_problem(box) is not None else box

    def _size(self, record: tuple[int, int]) -> tuple[int, int]:
        return self._tracks[record[0]].size

    def _image(self, record: tuple[int, int], path: Path) -> ImageFile:
        return ImageFile(path, "raw", self._size(record))

    def _facts(self, record: tuple[int, int], path: Path) -> dict[str, Any]:
        return {**super()._facts(record, path), "image_width_height": self._size(record)}


def _walk(path: Path, subset: str | None) -> _Walk | None:
    keys = ("gender", "name", "n_frames", "camera", "smpl", "kp2d", "bboxes")
    content = _content(path, keys, "a sequence of EMDB")
    if subset is not None and not content.get(subset):
        return None
    with _complete(path, "a sequence of EMDB"):
        frames, camera, smpl = int(content["n_frames"]), content["camera"], content["smpl"]
        size = (int(camera["width"]), int(camera["height"]))
        pose = np.concatenate((smpl["poses_root"], smpl["poses_body"]), axis=-1)
        name, boxes = str(content["name"]), content["bboxes"]
        return _Walk(
            name,
            name,
            gender_of(content["gender"], path),
            _array(pose, "pose", (frames, 72), path),
            _array(smpl["trans"], "trans", (frames, 3), path),
            _array(np.asarray(smpl["betas"]).ravel()[:10], "betas", (10,), path),
            _array(camera["extrinsics"], "extrinsics", (frames, 4, 4), path, np.float64),
            checked_intrinsics(camera["intrinsics"], path, size),
            _array(content["kp2d"], "keypoints", (frames, 24, 2), path),
            _array(content.get("good_frames_mask", np.ones(frames, bool)), "good", (frames,), path, bool),
            path.parent,
            size,
            _array(boxes["bboxes"], "boxes", (frames, 4), path),
            frozenset(int(i) for i in np.asarray(boxes.get("invalid_idxs", ())).ravel()),
        )
