"""MPI-INF-3DHP: the training set (``annot.mat`` per sequence) and the test set (``annot_data.mat``, MATLAB 7.3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, check_choice, checked_intrinsics, read_mat
from posesyn.errors import FileError, InputError
from posesyn.types import JointTruth

TRAIN_SIZE = (2048, 2048)
# TS5 and TS6 were filmed outdoors with another camera (jfzhang95/PoseAug, data_extra/prepare_data_3dhp.py).
TEST_SIZES = {**{f"TS{i}": (2048, 2048) for i in (1, 2, 3, 4)}, **{f"TS{i}": (1920, 1080) for i in (5, 6)}}
# Cameras at chest height, those SPIN trains on (of 14).
CHEST_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
_MM = 1000.0


@dataclass(frozen=True, eq=False)
class _View:
    """One camera of one sequence: (T, J, 2) pixels, (T, J, 3) metres."""

    name: str
    keypoints: np.ndarray
    joints: np.ndarray
    size: tuple[int, int] | None
    intrinsics: np.ndarray | None = None
    stride: int = 1


class _Views(AnnotatedPersons):
    """Persons by (view, row)."""

    annotated_in = None
    _views: list[_View]

    def _files(self, pattern: str, example: str) -> list[Path]:
        files = sorted(self.path.glob(pattern)) if self.path.is_dir() else []
        if not files:
            raise FileError("the folder holds no annotations", where=self.path, expected=example)
        return files

    def _joints(self, record: tuple[int, int], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        points = self._views[record[0]].keypoints[record[1]]
        return points, np.isfinite(points).all(-1)

    def _size(self, record: tuple[int, int]) -> tuple[int, int] | None:
        return self._views[record[0]].size

    def _facts(self, record: tuple[int, int], path: Path) -> dict[str, Any]:
        view, row = self._views[record[0]], record[1]
        joints = view.joints[row]
        return {
            "track_id": f"{self.name}/{view.name}",
            "sequence": view.name,
            "frame": row * view.stride,
            "image_width_height": view.size,
            "joints": JointTruth(joints, np.isfinite(joints).all(-1), self.skeleton, view.intrinsics),
        }


class Mpi3dhpTrain(_Views):
    """Training persons with 28 joints in 2D and 3D; each view of each sequence is a track.

    Layout: ``S1/Seq1/annot.mat`` (``annot2``, ``annot3``, ``univ_annot3``: a cell per camera of (T, 56) px and (T, 84)
    mm), ``S1/Seq1/camera.calibration``, and frames that the user cut out of the videos.

    Args:
        root: Folder of the subjects.
        frames: Place of a frame; SPIN's layout by default, counted from 1.
        cameras: Which of the 14 cameras; the eight at chest height by default (SPIN).
        stride: Take every ``stride``-th frame; 10 as SPIN does.
        annotation: ``"annot3"`` (metric) or ``"univ_annot3"`` (one skeleton size for everyone).
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError: A file is missing or damaged.
        InputError: A mat file of another set, calibration in other units, or no usable person.
    """

    skeleton = "3dhp28"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        frames: str = "{sequence}/imageFrames/video_{camera}/frame_{frame:06d}.jpg",
        cameras: Sequence[int] = CHEST_CAMERAS,
        stride: int = 10,
        annotation: Literal["annot3", "univ_annot3"] = "annot3",
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "3dhp",
    ) -> None:
        super().__init__(root, root, on_missing, on_bad, min_keypoints, name, stride)
        check_choice(annotation, "annotation", ("annot3", "univ_annot3"))
        self._views, candidates = [], []
        for file in self._files("S*/Seq*/annot.mat", "S1/Seq1/annot.mat"):
            sequence = "/".join(file.parts[-3:-1])
            for camera, view in _train_views(file, sequence, cameras, stride, annotation):
                for row in range(len(view.keypoints)):
                    place = frames.format(sequence=sequence, camera=camera, frame=row * stride + 1)
                    record, person_id = (len(self._views), row), f"{name}/{view.name}@{row * stride:06d}"
                    candidates.append(Candidate(record, person_id, self.folder / place))
                self._views.append(view)
        self._accept(candidates)


class Mpi3dhpTest(_Views):
    """Test persons with the 17 joints of the official protocol; each of TS1 … TS6 is a track.

    Layout: ``TS1/annot_data.mat`` (``annot2``, ``annot3``, ``univ_annot3``, ``valid_frame``) and
    ``TS1/imageSequence/img_000001.jpg``. Frames marked invalid are left out and listed.

    Args:
        root: Folder of TS1 … TS6 (``mpi_inf_3dhp_test_set``).
        annotation: ``"univ_annot3"`` (the official protocol's) or ``"annot3"``.
        stride: Take every ``stride``-th frame.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError: A file is missing or damaged.
        InputError: A mat file of another set, or no usable person.
        MissingDependencyError: h5py is not installed.
    """

    skeleton = "3dhp17"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        annotation: Literal["annot3", "univ_annot3"] = "univ_annot3",
        stride: int = 1,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "3dhp_test",
    ) -> None:
        super().__init__(root, root, on_missing, on_bad, min_keypoints, name, stride)
        check_choice(annotation, "annotation", ("annot3", "univ_annot3"))
        self._views, self._activities, candidates = [], [], []
        for file in self._files("TS*/annot_data.mat", "TS1/annot_data.mat"):
            content = read_mat(file, ["annot2", annotation, "valid_frame"], "annot_data.mat of the 3DHP test set")
            sequence = file.parent.name
            keypoints = _test_array(content["annot2"], 2, file)
            joints = _test_array(content[annotation], 3, file) / _MM
            valid = np.asarray(content["valid_frame"]).ravel() > 0
            if not len(keypoints) == len(joints) == len(valid):
                raise InputError("the arrays do not have the same number of frames", where=file)
            activity = np.asarray(content.get("activity_annotation", ())).ravel()
            self._activities.append(activity if len(activity) == len(valid) else None)
            for frame in range(0, len(valid), stride):
                path = file.parent / "imageSequence" / f"img_{frame + 1:06d}.jpg"
                reason = None if valid[frame] else "its frame is marked invalid"
                person_id = f"{name}/{sequence}@{frame:06d}"
                candidates.append(Candidate((len(self._views), frame), person_id, path, reason))
            self._views.append(_View(sequence, keypoints, joints, TEST_SIZES.get(sequence)))
        self._accept(candidates)

    def _facts(self, record: tuple[int, int], path: Path) -> dict[str, Any]:
        activity = self._activities[record[0]]
        action = None if activity is None else str(int(activity[record[1]]))
        return {**super()._facts(record, path), "action": action}


def read_calibration(path: str | os.PathLike[str]) -> dict[int, np.ndarray]:
    """``camera.calibration`` → (3, 3) intrinsics by camera number.

    Raises:
        FileError: Missing or damaged.
        InputError: A focal length that is not in pixels.
    """
    path = Path(path)
    try:
        found, camera = {}, None
        for line in map(str.split, path.read_text().splitlines()):
            if line[:1] == ["name"]:
                camera = int(line[1])
            elif line[:1] == ["intrinsic"] and camera is not None:
                found[camera] = np.array(line[1:17], np.float64).reshape(4, 4)[:3, :3]
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise FileError("a camera.calibration is missing or damaged", where=path, got=error) from error
    return {camera: checked_intrinsics(matrix, path, TRAIN_SIZE) for camera, matrix in found.items()}


def _train_views(file: Path, sequence: str, cameras: Sequence[int], stride: int, annotation: str):
    content = read_mat(file, ["annot2", annotation], "annot.mat of the 3DHP training set")
    calibration = file.parent / "camera.calibration"
    intrinsics = read_calibration(calibration) if calibration.exists() else {}
    cells = {key: np.atleast_1d(content[key]) for key in ("annot2", annotation)}
    for camera in cameras:
        arrays = {}
        for key, width in (("annot2", 2), (annotation, 3)):
            if camera >= len(cells[key]):
                raise InputError(f"{key} has no camera {camera}", where=file, got=f"{len(cells[key])} cameras")
            value = np.atleast_2d(np.asarray(cells[key][camera], np.float32))
            if value.ndim != 2 or value.shape[1] != 28 * width:
                expected = f"(T, {28 * width})"
                raise InputError(f"{key} has the wrong shape", where=file, expected=expected, got=value.shape)
            arrays[key] = value.reshape(len(value), 28, width)[::stride]
        pixels, joints, name = arrays["annot2"], arrays[annotation] / _MM, f"{sequence}/video_{camera}"
        view = _View(name, pixels, joints, TRAIN_SIZE, intrinsics.get(camera), stride)
        # The two annotations are of one skeleton size only in annot3, so only those must project onto each other.
        if annotation == "annot3" and view.intrinsics is not None:
            _check_projection(view, file)
        yield camera, view


def _check_projection(view: _View, file: Path) -> None:
    points = view.joints[0]
    if not (points[:, 2] > 0).all():
        raise InputError("joints lie behind the camera", where=f"{file}, {view.name}")
    pixels = points[:, :2] / points[:, 2:] * view.intrinsics[[0, 1], [0, 1]] + view.intrinsics[:2, 2]
    error = float(np.median(np.abs(pixels - view.keypoints[0])))
    # The samples in open-mmlab/mmpose tests/data agree within a pixel; the limit is our own choice.
    if not error < 0.02 * max(TRAIN_SIZE):
        raise InputError(
            "3D joints do not project onto the 2D joints",
            where=f"{file}, {view.name}",
            expected="millimetres, and the camera.calibration of this sequence",
            got=f"a median distance of {error:.0f} px",
        )


def _test_array(value: np.ndarray, width: int, file: Path) -> np.ndarray:
    """(T, 17, width), from h5py's (T, 1, 17, width), or MATLAB's order where a level 5 file was written."""
    array = np.asarray(value, np.float32)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 3 and array.shape[:2] == (width, 17):
        array = array.transpose(2, 1, 0)
    if array.ndim != 3 or array.shape[1:] != (17, width):
        expected = f"(T, 1, 17, {width})"
        raise InputError("an annotation has the wrong shape", where=file, expected=expected, got=np.shape(value))
    return array
