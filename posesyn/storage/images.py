"""Images from untrusted files: checked by their header, limited in size, decoded as a whole or not at all."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps

from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.types.looks import short_repr

# Only these decoders are ever used: rarer ones had decompression bombs (FITS in Pillow, CVE-2026-40192).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# Our own choice: a 64 megapixel photo needs 192 MB decoded, larger ones are not pose data.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 << 20

# EXIF orientations under which a viewer exchanges width and height.
_ORIENTATION_TAG = 0x0112
_TRANSPOSING = frozenset({5, 6, 7, 8})

Orientation = Literal["auto", "raw", "exif"]


@dataclass(frozen=True, repr=False)
class ImageFile:
    """An image on disk, decoded only when :meth:`load` is called.

    Annotated coordinates belong to one reading of the file: the pixels as stored, or the pixels after the EXIF
    orientation has been applied as viewers do. Most pose code reads the stored pixels (3DCrowdNet and PIL-based loaders
    ignore EXIF), labelling tools show the rotated ones.

    Attributes:
        path: The file.
        orientation: ``"raw"`` ignores the EXIF orientation, ``"exif"`` applies it. ``"auto"`` compares both readings
            with ``expected_size`` and takes the one that fits; where both fit (a turn by 180 degrees, a square
            image) it takes the stored pixels; without ``expected_size`` it applies EXIF, as a viewer does.
        expected_size: (width, height) that the annotation states, or None. A different size is an error, since
            keypoints would not land on the person.
        max_pixels: Larger images are refused before they are decoded.
        background: RGB colour put behind transparent pixels.
    """

    path: Path
    orientation: Orientation = "auto"
    expected_size: tuple[int, int] | None = None
    max_pixels: int = MAX_PIXELS
    background: tuple[int, int, int] = (255, 255, 255)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.orientation not in ("auto", "raw", "exif"):
            raise InputError("ImageFile.orientation is unknown", expected="auto, raw or exif", got=self.orientation)
        object.__setattr__(self, "path", Path(self.path))

    @property
    def name(self) -> str:
        return self.path.name

    def load(self) -> np.ndarray:
        """Returns (H, W, 3) uint8 RGB in the annotation's orientation.

        Raises:
            FileError: Missing, empty, damaged, truncated, of another format or of another size than annotated.
            UnsafeFileError: More pixels or bytes than allowed; nothing is decoded then.
        """
        with _open_regular(self.path) as handle:
            return _decode(handle, self.path, self.orientation, self.expected_size, self.max_pixels, self.background)

    def size(self) -> tuple[int, int]:
        """(width, height) in the annotation's orientation, read from the header alone. Raises as :meth:`load`."""
        with _open_regular(self.path) as handle:
            image = _open_header(handle, self.path, self.max_pixels)
            turned = _is_turned(image, self.path, self.orientation, self.expected_size)
            swap = turned and _orientation_of(image) in _TRANSPOSING
            return (image.height, image.width) if swap else image.size


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an encoded image in memory as stored, EXIF ignored: (H, W, 3) uint8 RGB. Raises as ``ImageFile.load``."""
    return _decode(BytesIO(data), name, "raw", None, max_pixels, (255, 255, 255))


def _open_regular(path: Path) -> BinaryIO:
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or str(error)
        fix = "check the image folder that was passed with the annotations"
        raise FileError("could not read an image", where=path, got=got, fix=fix) from error
    info = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(info.st_mode):
        problem = FileError("an image path is not a regular file", where=path)
    elif info.st_size == 0:
        problem = FileError("an image file is empty", where=path, got="0 bytes", fix="fetch the file again")
    elif info.st_size > MAX_BYTES:
        most = f"<= {MAX_BYTES}"
        problem = UnsafeFileError("an image file is too large", where=path, expected=most, got=info.st_size)
    if problem is not None:
        os.close(descriptor)
        raise problem
    return os.fdopen(descriptor, "rb")


def _open_header(handle: BinaryIO, where: object, max_pixels: int) -> Image.Image:
    """Parses the header only; Pillow decodes pixels on ``load``."""
    try:
        image = Image.open(handle, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnsafeFileError("an image has too many pixels", where=where, expected=max_pixels, got=error) from error
    except Image.UnidentifiedImageError as error:
        expected, fix = "one of " + ", ".join(FORMATS), "convert it, or remove it from the annotations"
        raise FileError("a file is not a readable image", where=where, expected=expected, fix=fix) from error
    except (OSError, ValueError, SyntaxError, MemoryError, EOFError) as error:
        raise FileError("an image has a damaged header", where=where, got=error) from error
    if image.width * image.height > max_pixels:
        raise UnsafeFileError(
            "an image has too many pixels",
            where=where,
            expected=f"at most {max_pixels}",
            got=f"{image.width} x {image.height}",
            fix="shrink it together with its annotations, or raise max_pixels",
        )
    return image


def _orientation_of(image: Image.Image) -> int:
    try:
        # PngImageFile's own method decodes the pixels, to find EXIF behind them, and a later ``load`` does not repeat
        # the error of damaged ones. EXIF of a PNG behind its pixels is not read.
        return int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    except (OSError, ValueError, TypeError, SyntaxError, KeyError):
        return 1  # A damaged EXIF block says nothing about orientation; the pixels may still be fine.


def _is_turned(image: Image.Image, where: object, orientation: str, expected_size: tuple[int, int] | None) -> bool:
    """Whether the EXIF orientation is to be applied. Raises FileError where neither reading has the expected size."""
    code = _orientation_of(image)
    stored = image.size
    upright = stored[::-1] if code in _TRANSPOSING else stored
    if orientation == "auto":
        turned = code != 1 if expected_size is None else (stored != tuple(expected_size) and upright != stored)
    else:
        turned = orientation == "exif" and code != 1
    got = upright if turned else stored
    if expected_size is not None and got != tuple(expected_size):
        raise FileError(
            "an image does not have the size its annotation states",
            where=where,
            expected=f"{expected_size[0]} x {expected_size[1]}",
            got=f"{stored[0]} x {stored[1]} (EXIF orientation {code}, read as '{orientation}')",
            fix="use the images the annotations were made on",
        )
    return turned


def _decode(
    handle: BinaryIO,
    where: object,
    orientation: str,
    expected_size: tuple[int, int] | None,
    max_pixels: int,
    background: tuple[int, int, int],
) -> np.ndarray:
    image = _open_header(handle, where, max_pixels)
    turned = _is_turned(image, where, orientation, expected_size)
    try:
        image.load()
        if turned:
            image = ImageOps.exif_transpose(image)
        return _to_rgb(image, background)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        fix = "fetch the file again, or remove it from the annotations"
        raise FileError("an image is damaged or truncated", where=where, got=error, fix=fix) from error


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Pillow clips 16-bit grey at 255 when it converts; scale by 65535/255 instead.
        grey = np.clip(np.asarray(image, np.float32) / 257.0, 0, 255)
        return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(canvas, image)
    # np.array copies: np.asarray of a Pillow image is read-only, and users of ArrayImage may draw on it.
    return np.array(image.convert("RGB"), np.uint8)
