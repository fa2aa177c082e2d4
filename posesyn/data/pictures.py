"""A user's own pictures, files, folders or arrays, as image sources with different names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posesyn.errors import FileError, InputError
from posesyn.storage.images import ImageFile
from posesyn.types import ArrayImage, ImageSource

# What is taken out of a folder; a file that is named itself is opened whatever it is called.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture and what it is called in messages and tables."""

    name: str
    image: ImageSource


def open_pictures(images: Any) -> list[Picture]:
    """Pictures in the order given, those of a folder by name; no pixel is read.

    Files are turned as their EXIF orientation says, as a viewer shows them. A file that is listed twice is taken once.
    A picture is called like its file, by its whole path where two files have one name, and ``image 0`` ... in memory.

    Args:
        images: A path, an array (H, W, 3) uint8 RGB or (H, W) grey, an ``ImageSource``, a folder (its files that end
            in .jpg, .jpeg, .png, .webp or .bmp; not those of folders in it), or several of them.

    Raises:
        InputError: Nothing, or something that is no picture.
        FileError: A file or folder is not there, or a folder holds no picture.

    Example:
        >>> [picture.name for picture in open_pictures(np.zeros((2, 48, 64, 3), np.uint8))]
        ['image 0', 'image 1']
    """
    single = isinstance(images, (str, os.PathLike, ImageSource)) or (isinstance(images, np.ndarray) and images.ndim < 4)
    if not single and not isinstance(images, Iterable):
        raise _no_picture(images)
    sources: list[ImageSource] = []
    for number, one in enumerate([images] if single else images):
        sources += _sources(one, number)
    files: dict[Path, ImageFile] = {}
    for source in sources:
        if isinstance(source, ImageFile):
            files.setdefault(source.path.resolve(), source)
    sources = [one for one in sources if not isinstance(one, ImageFile) or files[one.path.resolve()] is one]
    if not sources:
        raise InputError("there are no pictures", where="open_pictures", fix="name files or a folder of pictures")
    seen = Counter(source.name for source in sources)
    names = [
        source.path.as_posix() if seen[source.name] > 1 and isinstance(source, ImageFile) else source.name
        for source in sources
    ]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError("two pictures have the same name", where="open_pictures", got=twice, fix="name them apart")
    return [Picture(name, source) for name, source in zip(names, sources)]


def _sources(one: Any, number: int) -> list[ImageSource]:
    if isinstance(one, (str, os.PathLike)):
        path = Path(one)
        if not path.is_dir():
            if not path.exists():
                raise FileError("there is no such picture or folder", where=path)
            return [ImageFile(path)]
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        if not found:
            raise FileError("a folder holds no pictures", where=path, expected=", ".join(SUFFIXES),
                            fix="name the folder that holds the files; folders in it are not searched")  # fmt: skip
        return [ImageFile(file) for file in found]
    if isinstance(one, np.ndarray):
        if one.ndim == 2:
            one = np.repeat(one[..., None], 3, axis=2)
        if one.ndim == 3:
            return [ArrayImage(np.ascontiguousarray(one), f"image {number}")]
    elif isinstance(one, ImageSource):
        return [one]
    raise _no_picture(one)


def _no_picture(value: Any) -> InputError:
    shape = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    return InputError("this is no picture", where="open_pictures", got=shape,
                      expected="a path, a folder, (H, W, 3) uint8 or an ImageSource")  # fmt: skip
