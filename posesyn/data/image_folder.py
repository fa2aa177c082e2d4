"""Finds the images that annotations name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from posesyn.errors import FileError, InputError, UnsafeFileError

Choice = Literal["error", "skip"]


def check_choice(value: str, name: str) -> None:
    """Raises InputError unless ``value`` is ``"error"`` or ``"skip"``."""
    if value not in ("error", "skip"):
        raise InputError(f"{name} is unknown", expected="'error' or 'skip'", got=repr(value))


def resolve(folder: Path, file_name: object, where: object) -> Path:
    """Path of an annotated file inside ``folder``.

    Raises:
        InputError: No name.
        UnsafeFileError: The name leaves the folder.
    """
    if not isinstance(file_name, str) or not file_name:
        raise InputError("an image has no file name", where=where, got=repr(file_name))
    name = PurePosixPath(file_name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise UnsafeFileError("an annotated file name leaves the image folder", where=where, got=repr(file_name))
    return folder / name


def find_missing(folder: Path, paths: Iterable[Path], on_missing: Choice, where: object) -> set[Path]:
    """The paths that are not there.

    Raises:
        FileError: The folder is missing, or a file is and ``on_missing`` is ``"error"``.
    """
    if not folder.is_dir():
        raise FileError("there is no image folder", where=folder, fix="name the folder that holds the annotated images")
    missing = sorted({path for path in paths if not os.path.exists(path)})
    if missing and on_missing == "error":
        shown = ", ".join(path.name for path in missing[:5])
        raise FileError(
            "annotated images are missing",
            where=folder,
            got=f"{len(missing)} missing for {where}: {shown}{', ...' if len(missing) > 5 else ''}",
            fix="name the right folder, or pass on_missing='skip' to list their persons as skipped",
        )
    return set(missing)
