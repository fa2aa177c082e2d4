"""JHMDB: one ``joint_positions.mat`` per video, frames as png. Files in COCO form go to ``CocoKeypoints``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, check_choice, read_mat
from posesyn.errors import FileError, InputError
from posesyn.storage.files import read_json


class Jhmdb(AnnotatedPersons):
    """Persons with 15 joints, 2D only; each video is a track.

    Layout: ``joint_positions/ACTION/VIDEO/joint_positions.mat`` (``pos_img`` (2, 15, T), counted from 1) and
    ``Rename_Images/ACTION/VIDEO/00001.png``.

    Args:
        joint_positions: The folder ``joint_positions``.
        images: The folder ``Rename_Images``.
        split: Text file of a split (``ACTION_test_split1.txt``: lines ``VIDEO.avi 1|2``, 1 train, 2 test) or a folder
            of them (then with ``split_number``); None takes every video.
        part: Which part of the split.
        split_number: Which of the three splits, where ``split`` is a folder.
        stride: Take every ``stride``-th frame.
        captions: JSON file, action → text; None for none.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`.

    Raises:
        FileError: A folder or file is missing or damaged.
        InputError: A mat file of another set, or no usable person.
    """

    skeleton = "jhmdb15"
    annotated_in = "folder"

    def __init__(
        self,
        joint_positions: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        split: str | os.PathLike[str] | None = None,
        part: Literal["train", "test"] = "test",
        split_number: Literal[1, 2, 3] = 1,
        stride: int = 1,
        captions: str | os.PathLike[str] | None = None,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "jhmdb",
    ) -> None:
        super().__init__(joint_positions, images, on_missing, on_bad, min_keypoints, name, stride)
        files = sorted(self.path.glob("*/*/joint_positions.mat"))
        if not files:
            expected = "ACTION/VIDEO/joint_positions.mat"
            raise FileError("the folder holds no joint positions", where=self.path, expected=expected)
        wanted = None if split is None else _split(Path(split), part, split_number)
        self._captions = {} if captions is None else dict(read_json(captions))
        self._points: dict[str, np.ndarray] = {}
        candidates = []
        for file in files:
            action, video = file.parts[-3:-1]
            if wanted is not None and video not in wanted:
                continue
            points = np.asarray(read_mat(file, ["pos_img"], "a joint_positions.mat of JHMDB")["pos_img"], np.float32)
            points = points[..., None] if points.ndim == 2 else points
            if points.ndim != 3 or points.shape[:2] != (2, 15):
                raise InputError("pos_img has the wrong shape", where=file, expected="(2, 15, T)", got=points.shape)
            track = f"{action}/{video}"
            self._points[track] = points.transpose(2, 1, 0) - 1
            for frame in range(0, points.shape[2], stride):
                place = self.folder / action / video / f"{frame + 1:05d}.png"
                candidates.append(Candidate((track, frame), f"{name}/{track}@{frame + 1:05d}", place))
        self._accept(candidates)

    def _joints(self, record: tuple[str, int], person_id: str) -> tuple[np.ndarray, np.ndarray]:
        track, frame = record
        return self._points[track][frame], np.ones(15, bool)

    def _facts(self, record: tuple[str, int], path: Path) -> dict[str, Any]:
        track, frame = record
        action = track.split("/")[0]
        captions = (str(self._captions[action]),) if self._captions.get(action) is not None else ()
        video = {"track_id": f"{self.name}/{track}", "sequence": track, "frame": frame}
        return {**video, "action": action, "captions": captions}


def _split(path: Path, part: str, number: int) -> set[str]:
    """Names of the videos in one part of a split."""
    check_choice(part, "part of a split", ("train", "test"))
    wanted = "1" if part == "train" else "2"
    files = sorted(path.glob(f"*_test_split{number}.txt")) if path.is_dir() else [path]
    if not files:
        raise FileError("the folder holds no split files", where=path, expected=f"ACTION_test_split{number}.txt")
    videos = set()
    for file in files:
        try:
            lines = file.read_text().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError("could not read a split", where=file, got=error) from error
        videos |= {line.split()[0].removesuffix(".avi") for line in lines if line.split()[1:] == [wanted]}
    return videos
