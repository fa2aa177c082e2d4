"""Leeds Sports Pose Extended (also LSP and HR-LSPET): ``joints.mat`` beside a folder of numbered images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posesyn.data.persons.base import AnnotatedPersons, Candidate, Choice, read_mat
from posesyn.errors import FileError, InputError
from posesyn.storage.images import ImageFile, Orientation

_NUMBER = re.compile(r"^im(\d{4,6})\.(?:jpg|png|jpeg)$", re.IGNORECASE)


class LspExtended(AnnotatedPersons):
    """Persons with the 14 LSP joints, 2D only, one per image.

    ``joints`` is (14, 3, N) in LSPET (third row 1 = labelled and visible, 0 = unknown) and (3, 14, N) in LSP (third row
    1 = hidden but labelled). Coordinates count from 1, as MATLAB does.

    Args:
        joints: ``joints.mat``.
        images: Folder of ``im00001.jpg`` … (HR-LSPET: png); the number is the column of ``joints``.
        index_base: Coordinate of the first pixel in the file.
        orientation: How EXIF is read.
        on_missing, on_bad, min_keypoints, name: As in :class:`posesyn.data.persons.base.AnnotatedPersons`. HR-LSPET
            lacks some numbers: pass ``on_missing="skip"``.

    Raises:
        FileError: The file, the folder or an image is missing, or the file is damaged.
        InputError: A mat file of another set, or no usable person.
    """

    skeleton = "lsp14"

    def __init__(
        self,
        joints: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        index_base: Literal[0, 1] = 1,
        orientation: Orientation = "raw",
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "lspet",
    ) -> None:
        super().__init__(joints, images, on_missing, on_bad, min_keypoints, name)
        self._orientation = orientation
        array = np.asarray(read_mat(self.path, ["joints"], "joints.mat of LSPET")["joints"], np.float32)
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[:2] not in ((14, 3), (3, 14)):
            expected = "(14, 3, N) or (3, 14, N)"
            raise InputError("joints has the wrong shape", where=self.path, expected=expected, got=array.shape)
        hidden_flag = array.shape[:2] == (3, 14)
        points = array.transpose(2, 1, 0) if hidden_flag else array.transpose(2, 0, 1)
        self._points = points[..., :2] - index_base
        # LSP labels every joint and flags hidden ones; LSPET flags the labelled ones.
        self._labelled = np.ones(points.shape[:2], bool) if hidden_flag else points[..., 2] > 0
        self._occluded = points[..., 2] > 0 if hidden_flag else None
        files = self._numbered()
        first = next(iter(files.values()), Path("im00001.jpg"))
        names = [f"im{row + 1:0{len(first.stem) - 2}d}" for row in range(len(points))]
        places = [files.get(row + 1, self.folder / (stem + first.suffix)) for row, stem in enumerate(names)]
        self._accept([Candidate(row, f"{name}/{stem}", path) for row, (stem, path) in enumerate(zip(names, places))])

    def _numbered(self) -> dict[int, Path]:
        if not self.folder.is_dir():
            raise FileError("there is no image folder", where=self.folder, fix="name the folder of im00001.jpg …")
        found = ((match, path) for path in sorted(self.folder.iterdir()) if (match := _NUMBER.match(path.name)))
        return {int(match.group(1)): path for match, path in found}

    def _joints(self, record: int, person_id: str) -> tuple[np.ndarray, np.ndarray]:
        return self._points[record], self._labelled[record]

    def _image(self, record: int, path: Path) -> ImageFile:
        return ImageFile(path, self._orientation)

    def _facts(self, record: int, path: Path) -> dict[str, Any]:
        hidden = self._occluded is not None and self._occluded[record].any()
        return {"occluded": self._occluded[record]} if hidden else {}
