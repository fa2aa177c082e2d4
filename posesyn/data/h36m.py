"""Human3.6M poses of VideoPose3D's ``data_3d_h36m.npz`` and ``data_2d_h36m_*.npz``: poses without images.

The npz files hold pickled dictionaries; they are read without running anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.h36m_cameras import CAMERAS, LabCamera, h36m_camera
from posesyn.errors import InputError
from posesyn.storage.arrays import read_npz

FPS = 50.0
TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
# Joints by number of the arrays that VideoPose3D and PoseAug publish (poseaug.md, data files).
_JOINT_SETS = {32: "h36m32", 17: "h36m17", 16: "poseaug16"}
# A person's pelvis lies within this many metres of the world's origin; millimetres would be thousands. Our own choice.
_LARGEST_COORDINATE_M = 50.0


@dataclass(frozen=True)
class H36MSequence:
    """One action of one subject as one camera sees it.

    Attributes:
        subject, action, camera: ``"S9"``, ``"Walking 1"``, ``"54138969"``.
        joints_cam: (T, J, 3) float32 metres, camera frame, absolute.
        keypoints_px: (T, J, 2) float32 pixels: detections or ground truth of the 2D file, else the projection.
        skeleton: Joint order of both.
        calibration: The camera.
        fps: Frames per second.
    """

    subject: str
    action: str
    camera: str
    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    skeleton: str
    calibration: LabCamera
    fps: float = FPS

    def __len__(self) -> int:
        return len(self.joints_cam)


class H36MPoses:
    """All sequences of ``data_3d_h36m.npz``, by subject, action and camera.

    Args:
        positions: ``data_3d_h36m.npz``: ``positions_3d`` = {subject: {action: (T, 32, 3) metres, world (z up)}}; files
            cut to 17 or 16 joints are read too.
        keypoints: ``data_2d_h36m_gt.npz`` or a file of detections: ``positions_2d`` = {subject: {action: [per camera
            (T, 16 or 17, 2) pixels]}} in Human3.6M's order; files whose ``metadata`` names another layout (COCO, MPII)
            are refused. None: 2D points are projections, lens distortion included.
        skeleton: Joint order to give: ``"h36m17"`` (CANON: right leg first) or ``"poseaug16"``.

    Raises:
        FileError: A file is missing or damaged.
        UnsafeFileError: A file asks to run code. Nothing was run.
        InputError: Another file, another number of joints, or coordinates that are not metres.
    """

    def __init__(
        self,
        positions: str | os.PathLike[str],
        keypoints: str | os.PathLike[str] | None = None,
        *,
        skeleton: str = "h36m17",
    ) -> None:
        self.path = Path(positions)
        self.skeleton = skeletons.get(skeleton).name
        self._positions = _table(self.path, "positions_3d", "data_3d_h36m.npz")
        self.keypoints_path = None if keypoints is None else Path(keypoints)
        self._keypoints = None
        if self.keypoints_path is not None:
            self._keypoints = _table(self.keypoints_path, "positions_2d", "data_2d_h36m_gt.npz")
        for subject, action in self.sequences():
            self._source(subject, action)

    def sequences(self, subjects: tuple[str, ...] | None = None) -> Iterator[tuple[str, str]]:
        """(subject, action) of everything in the file, or of some subjects.

        Raises:
            InputError: Names of subjects that the file has not.
        """
        # "S1" is in "S11": a bare name would take more subjects than asked for.
        unknown = {subjects} if isinstance(subjects, str) else set(subjects or ()) - self._positions.keys()
        if unknown:
            raise InputError(
                "the file has no such subjects", where=self.path, expected=f"a tuple of {sorted(self._positions)}",
                got=sorted(unknown),
            )  # fmt: skip
        for subject, actions in self._positions.items():
            if subjects is None or subject in subjects:
                yield from ((subject, action) for action in actions)

    def joints_world(self, subject: str, action: str) -> np.ndarray:
        """(T, J, 3) float32 metres in the data set's world (z up), order ``skeleton``."""
        array, source = self._source(subject, action)
        points, present = skeletons.convert(array, source, self.skeleton)
        self._require(present[0], source)
        return points

    def sequence(self, subject: str, action: str, camera: str) -> H36MSequence:
        """One sequence in a camera's frame.

        Raises:
            InputError: Unknown names, or 2D arrays that do not fit the 3D ones.
        """
        calibration = h36m_camera(subject, camera)
        joints = calibration.to_camera(self.joints_world(subject, action).astype(np.float64))
        if self._keypoints is None:
            pixels = calibration.project(joints)
        else:
            # The 2D arrays of some files are a few frames longer than the 3D ones (VideoPose3D cuts them).
            pixels = self._pixels(subject, action, CAMERAS.index(camera))
            length = min(len(pixels), len(joints))
            pixels, joints = pixels[:length], joints[:length]
        return H36MSequence(
            subject,
            action,
            camera,
            joints.astype(np.float32),
            pixels.astype(np.float32),
            self.skeleton,
            calibration,
        )

    def views(self, subjects: tuple[str, ...] | None = None) -> Iterator[H36MSequence]:
        """Every sequence of the subjects in all four cameras, one at a time."""
        for subject, action in self.sequences(subjects):
            for camera in CAMERAS:
                yield self.sequence(subject, action, camera)

    def _source(self, subject: str, action: str) -> tuple[np.ndarray, str]:
        try:
            array = np.asarray(self._positions[subject][action])
        except KeyError as error:
            raise InputError(
                "the file has no such sequence",
                where=self.path,
                expected=f"subjects {sorted(self._positions)}",
                got=f"{subject}, {action}",
            ) from error
        if array.ndim != 3 or array.shape[1] not in _JOINT_SETS or array.shape[2] != 3:
            raise InputError(
                "a sequence has the wrong shape",
                where=f"{self.path}, {subject} '{action}'",
                expected="(T, 32, 3), (T, 17, 3) or (T, 16, 3)",
                got=array.shape,
            )
        if not np.isfinite(array).all() or (array.size and np.abs(array).max() > _LARGEST_COORDINATE_M):
            raise InputError(
                "coordinates are not metres",
                where=f"{self.path}, {subject} '{action}'",
                expected=f"finite, at most {_LARGEST_COORDINATE_M:g}",
                got=f"up to {np.abs(array).max():g}",
                fix="divide by 1000 if the file holds millimetres",
            )
        return array, _JOINT_SETS[array.shape[1]]

    def _pixels(self, subject: str, action: str, row: int) -> np.ndarray:
        where = f"{self.keypoints_path}, {subject} '{action}'"
        try:
            array = np.asarray(self._keypoints[subject][action][row])  # type: ignore[index]
        except (KeyError, IndexError) as error:
            raise InputError("the 2D file lacks a sequence of the 3D file", where=where, got=error) from error
        if array.ndim != 3 or array.shape[1] not in _JOINT_SETS or array.shape[2] not in (2, 3):
            raise InputError("a 2D sequence has the wrong shape", where=where, expected="(T, J, 2)", got=array.shape)
        source = _JOINT_SETS[array.shape[1]]
        points, present = skeletons.convert(array[..., :2], source, self.skeleton)
        self._require(present[0], source)
        return points

    def _require(self, present: np.ndarray, source: str) -> None:
        if not present.all():
            names = [skeletons.get(self.skeleton).joints[i] for i in np.flatnonzero(~present)]
            raise InputError(
                f"'{source}' has no {', '.join(names)}",
                where=self.path,
                fix=f"read the file with skeleton='{source}'",
            )


def _table(path: Path, key: str, usual: str) -> Mapping[str, Mapping[str, Any]]:
    content = read_npz(path, objects=True)
    metadata = _bare(content.get("metadata"))
    layout = (metadata.get("layout_name") if isinstance(metadata, Mapping) else None) or "h36m"
    if layout != "h36m":
        raise InputError(
            "the 2D joints are in another order than Human3.6M's",
            where=path,
            expected="layout_name 'h36m'",
            got=f"layout_name '{layout}'",
            fix="take data_2d_h36m_gt.npz or detections that were tuned on Human3.6M, e.g. cpn_ft_h36m_dbb",
        )
    table = _bare(content.get(key))
    if not isinstance(table, Mapping) or not all(isinstance(value, Mapping) and value for value in table.values()):
        raise InputError(
            "this is not a file of VideoPose3D",
            where=path,
            expected=f"an array '{key}' that holds subjects and actions, as in {usual}",
            got=f"arrays {sorted(content)}",
        )
    return table


def _bare(value: Any) -> Any:
    """An object out of the array of shape () that numpy wraps it in."""
    return value.item() if isinstance(value, np.ndarray) and value.shape == () else value
