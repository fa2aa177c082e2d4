"""3DPW: one pickle per sequence, read without running anything, frames as jpg."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, checked_intrinsics
from posesyn.errors import FileError, InputError
from posesyn.storage.images import ImageFile
from posesyn.storage.unpickling import restricted_load
from posesyn.types import BodyFit, Gender, JointTruth, Person, gender_of

_KEYS = ("sequence", "betas", "poses", "trans", "genders", "poses2d", "cam_poses", "cam_intrinsics")


@dataclass(frozen=True, eq=False)
class _Actor:
    """Arrays of one person of a sequence over its T frames."""

    poses: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    gender: Gender
    keypoints: np.ndarray
    joints_world: np.ndarray | None
    valid: np.ndarray


@dataclass(frozen=True, eq=False)
class _Sequence:
    name: str
    actors: tuple[_Actor, ...]
    cam_poses: np.ndarray
    intrinsics: np.ndarray


class ThreeDPW(AnnotatedPersons):
    """Persons of 3DPW: OpenPose-18 detections, SMPL joints in the camera, and the fit of the gendered SMPL body.

    Frames whose camera pose is not valid (``campose_valid``) stay in; protocols drop them by
    ``person.valid``.

    Args:
        sequences: Folder of ``*.pkl`` (``sequenceFiles/test``), one file, or several.
        images: The folder ``imageFiles`` (``SEQUENCE/image_00000.jpg`` inside).
        stride: Take every ``stride``-th frame.
        on_missing, on_bad, min_keypoints, name: As in
            :class:`posesyn.data.persons.base.AnnotatedPersons`; persons without
            a detected joint have no box and are left out.

    Raises:
        FileError: A file or folder is missing or damaged.
        UnsafeFileError: A pickle asks to run code. Nothing was run.
        InputError: A pickle of another data set, arrays that do not fit together, or no usable person.
    """

    skeleton = "op18"

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
        super().__init__(
            paths[0].parent if several else paths[0],
            images,
            on_missing=on_missing,
            on_bad=on_bad,
            min_keypoints=min_keypoints,
            name=name,
        )
        if stride < 1:
            raise InputError("stride must be at least 1", where="ThreeDPW", got=stride)
        files = [file for path in paths for file in (sorted(path.glob("*.pkl")) if path.is_dir() else [path])]
        if not files:
            raise FileError("the folder holds no sequences", where=self.path, expected="*.pkl")
        self._sequences = [_read(file) for file in files]
        self._accept(
            [
                Candidate(
                    (row, actor, frame),
                    f"{name}/{sequence.name}@{frame:05d}#{actor}",
                    self.folder / sequence.name / f"image_{frame:05d}.jpg",
                )
                for row, sequence in enumerate(self._sequences)
                for actor in range(len(sequence.actors))
                for frame in range(0, len(sequence.cam_poses), stride)
            ]
        )

    def _joints(self, record: tuple[int, int, int], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        row, actor, frame = record
        points = self._sequences[row].actors[actor].keypoints[frame]
        return points[:2].T, points[2] > 0

    def _person(self, record: tuple[int, int, int], person_id: str, path: Path | None) -> Person:
        row, number, frame = record
        sequence = self._sequences[row]
        actor, camera = sequence.actors[number], sequence.cam_poses[frame]
        keypoints, visible = self._joints(record, person_id)
        joints = None
        if actor.joints_world is not None:
            points = actor.joints_world[frame] @ camera[:3, :3].T + camera[:3, 3]
            joints = JointTruth(points, np.ones(24, bool), "smpl24", sequence.intrinsics)
        fit = BodyFit(actor.poses[frame].reshape(24, 3), actor.betas, actor.trans[frame], actor.gender, "smpl", camera)
        return Person(
            person_id,
            ImageFile(path, "raw"),
            self._box(record, keypoints, visible, person_id),
            keypoints,
            visible,
            self.skeleton,
            image_id=f"{self.name}/{sequence.name}@{frame:05d}",
            track_id=f"{self.name}/{sequence.name}#{number}",
            sequence=sequence.name,
            frame=frame,
            valid=bool(actor.valid[frame]),
            intrinsics=sequence.intrinsics,
            joints=joints,
            fit=fit,
        )


def _read(path: Path) -> _Sequence:
    content = restricted_load(path)
    if not isinstance(content, dict) or not set(_KEYS) <= set(content):
        got = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError("this is not a sequence of 3DPW", where=path, expected=f"keys {', '.join(_KEYS)}", got=got)
    try:
        cam_poses = np.asarray(content["cam_poses"], np.float64)
        frames = len(cam_poses)
        actors = tuple(_actor(content, row, frames, path) for row in range(len(content["poses"])))
        intrinsics = checked_intrinsics(np.asarray(content["cam_intrinsics"]), path)
    except (IndexError, TypeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "a sequence of 3DPW is incomplete", where=path, got=f"{type(error).__name__}: {error}"
        ) from error
    if cam_poses.shape != (frames, 4, 4):
        raise InputError("cam_poses must be (T, 4, 4)", where=path, got=cam_poses.shape)
    name = content["sequence"]
    name = name.decode() if isinstance(name, bytes) else str(name)
    if "/" in name or name in ("", ".", ".."):
        raise InputError("a sequence has an impossible name", where=path, got=repr(name))
    return _Sequence(name, actors, cam_poses, intrinsics)


def _actor(content: dict[str, Any], row: int, frames: int, path: Path) -> _Actor:
    where = f"{path}, person {row}"

    def array(key: str, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
        value = np.asarray(content[key][row], dtype)
        if value.shape != shape:
            raise InputError(f"{key} has the wrong shape", where=where, expected=shape, got=value.shape)
        return value

    # Ten shape coefficients describe the person in all frames; the files of clothed scans hold more.
    betas = np.asarray(content["betas"][row], np.float32).ravel()[:10]
    joints = content.get("jointPositions")
    valid = content.get("campose_valid")
    return _Actor(
        array("poses", (frames, 72)),
        array("trans", (frames, 3)),
        betas,
        gender_of(content["genders"][row], where),
        array("poses2d", (frames, 3, 18)),
        None if joints is None else array("jointPositions", (frames, 72)).reshape(frames, 24, 3),
        np.ones(frames, bool) if valid is None else array("campose_valid", (frames,), bool),
    )
