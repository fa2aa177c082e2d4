"""Pictures as bytes and as ``data:`` addresses, so that a report is one file that asks the network for nothing."""

from __future__ import annotations

import base64
import io

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from posesyn.errors import InputError

# First bytes → media type; enough for what this package writes itself.
_SIGNATURES = (
    (b"\x89PNG\r\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
    (b"<?xml", "image/svg+xml"),
    (b"<svg", "image/svg+xml"),
)


def data_uri(picture: bytes) -> str:
    """Encoded picture → ``data:image/...;base64,...``.

    Raises:
        InputError: The bytes are none of PNG, GIF, JPEG, WebP, SVG.
    """
    for signature, media_type in _SIGNATURES:
        if picture.startswith(signature):
            return f"data:{media_type};base64,{base64.b64encode(picture).decode('ascii')}"
    wanted = "PNG, GIF, JPEG, WebP or SVG bytes"
    raise InputError("data_uri takes an encoded picture", expected=wanted, got=bytes(picture[:8]))


def as_rgb(image: np.ndarray, where: str) -> np.ndarray:
    """Returns ``image`` if it is (H, W, 3) uint8 with at least one pixel, else raises InputError."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        got = f"{image.shape} {image.dtype}"
        raise InputError("a picture must be RGB", where=where, expected="(H, W, 3) uint8", got=got)
    return image


def shrink(image: np.ndarray, max_size: int) -> np.ndarray:
    """(H, W, 3) uint8 with the longer side at most ``max_size`` pixels; smaller images are returned as they are."""
    height, width = image.shape[:2]
    factor = max_size / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def encode_image(image: np.ndarray, max_size: int = 512, quality: int = 80) -> bytes:
    """(H, W, 3) uint8 RGB → JPEG bytes, the longer side at most ``max_size`` pixels."""
    image = shrink(as_rgb(image, "encode_image"), max_size)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def encode_figure(figure: Figure, form: str = "svg", dpi: int = 150) -> bytes:
    """Matplotlib figure → SVG (text as outlines, hence no font is loaded) or PNG bytes.

    Raises:
        InputError: ``form`` is neither ``"svg"`` nor ``"png"``.
    """
    if form not in ("svg", "png"):
        raise InputError("unknown picture form", where="encode_figure", expected="'svg' or 'png'", got=form)
    buffer = io.BytesIO()
    # Without the date, and with a fixed salt for the names inside, the same data give the same bytes.
    metadata = {"Date": None} if form == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "posesyn"}):
        figure.savefig(buffer, format=form, dpi=dpi, metadata=metadata, bbox_inches="tight")
    return buffer.getvalue()


def image_uri(image: np.ndarray, max_size: int = 512, quality: int = 80) -> str:
    """(H, W, 3) uint8 RGB → ``data:`` address of a JPEG."""
    return data_uri(encode_image(image, max_size, quality))


def figure_uri(figure: Figure, form: str = "svg") -> str:
    """Matplotlib figure → ``data:`` address of an SVG or PNG."""
    return data_uri(encode_figure(figure, form))
