"""From layers to a photograph: body over background, then what lens, sensor and compression do."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from posesyn.settings.stages import check_style


def place_background(
    picture: np.ndarray,
    box: tuple[float, float, float, float] | None,
    keypoints: np.ndarray,
    image_size: tuple[int, int],
) -> np.ndarray:
    """Cuts a picture so that the place where a person stood comes behind the rendered person.

    Args:
        picture: (H, W, 3) uint8.
        box: Where the person stood, pixels of the picture, or None for the middle.
        keypoints: (T, J, 2) pixels of the rendered person.
        image_size: (height, width) of the result.

    Returns:
        (height, width, 3) uint8; the cut-out is shrunk and moved as needed to stay inside the picture.
    """
    height, width = image_size
    tall, wide = picture.shape[:2]
    low, high = keypoints.min((0, 1)), keypoints.max((0, 1))
    left, top, right, bottom = box if box is not None else (0.3 * wide, 0.1 * tall, 0.7 * wide, 0.95 * tall)
    scale = (bottom - top) / max(high[1] - low[1], 1.0)  # picture pixels per rendered pixel
    scale = float(np.clip(scale, 0.15, min(tall / height, wide / width)))
    # Feet on feet, middle on middle.
    x = (left + right) / 2 - (low[0] + high[0]) / 2 * scale
    y = bottom - high[1] * scale
    x, y = np.clip(x, 0, wide - width * scale), np.clip(y, 0, tall - height * scale)
    columns = max(1, min(int(width * scale), wide - int(x)))
    lines = max(1, min(int(height * scale), tall - int(y)))
    part = np.ascontiguousarray(picture[int(y) : int(y) + lines, int(x) : int(x) + columns])
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR)


def halved(layer: Float[torch.Tensor, "T H2 W2 4"]) -> Float[torch.Tensor, "T H W 4"]:
    """(T, 2H, 2W, 4) → (T, H, W, 4): mean of four samples."""
    return 0.25 * (layer[:, ::2, ::2] + layer[:, 1::2, ::2] + layer[:, ::2, 1::2] + layer[:, 1::2, 1::2])


def feathered(layer: Float[torch.Tensor, "T H W 4"]) -> Float[torch.Tensor, "T H W 4"]:
    """Softens the silhouette by one pixel; the inside stays sharp.

    Args:
        layer: (T, H, W, 4) colours and coverage, 0 outside. Changed in place.
    """
    width = layer.shape[2]
    padded = torch.nn.functional.pad(layer[..., 3].to(torch.uint8), (1, 1, 1, 1))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    count = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    rim = (count > 0) & (count < 9)
    rim[:, [0, -1]] = False
    rim[:, :, [0, -1]] = False
    index = torch.nonzero(rim.view(-1))[:, 0]
    flat = layer.view(-1, 4)
    soft = layer.new_zeros(len(index), 4)
    weights = (0.2, 0.6, 0.2)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            soft += weights[down + 1] * weights[right + 1] * flat[index + down * width + right]
    flat[index] = soft
    return layer


# Own choice: the grain is drawn this much larger than the picture and shifted from frame to frame.
_GRAIN_SIDE = 64


@dataclass(frozen=True)
class Film:
    """Settings of one clip. The neutral ones change nothing.

    Attributes:
        gain: (3,) RGB factors: exposure and white balance.
        contrast: Factor around middle grey.
        saturation: 0 is black and white.
        softness: 0 sharp to 0.5: weight that each pixel gives to its neighbours, horizontally and vertically.
        grain: Standard deviation of the noise, of 255.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    saturation: float = 1.0
    softness: float = 0.0
    grain: float = 0.0


def sample_film(rng: np.random.Generator, style: str = "wild") -> Film:
    """Draws the settings of a clip (ranges are our own choice); ``"lab"`` is a good camera with little grain."""
    check_style(style)
    if style == "lab":
        return Film(grain=1.5)
    exposure = np.exp(rng.normal(0, 0.13))
    balance = exposure * np.exp(rng.normal(0, 0.03, 3))
    return Film(
        gain=(float(balance[0]), float(balance[1]), float(balance[2])),
        contrast=float(rng.uniform(0.8, 1.2)),
        saturation=float(rng.uniform(0.65, 1.2)),
        softness=float(rng.choice([0, 0, rng.uniform(0, 0.4)])),
        grain=float(rng.choice([1.0, rng.uniform(0, 9)])),
    )


class FilmDeveloper:
    """Applies one clip's settings; the grain of a frame depends on the seed and the frame number only."""

    def __init__(self, film: Film, image_size: tuple[int, int], seed: int, device: str | torch.device = "cpu") -> None:
        self._film, self._size = film, image_size
        rng = np.random.default_rng(seed)
        height, width = image_size
        self._tile = None
        if film.grain > 0:
            tile = rng.standard_normal((height + _GRAIN_SIDE, width + _GRAIN_SIDE, 3), np.float32) * film.grain
            self._tile = torch.from_numpy(tile).to(device)
        self._seed = seed

    def __call__(self, images: Float[torch.Tensor, "T H W 3"], first_frame: int) -> UInt8[torch.Tensor, "T H W 3"]:
        """Pictures 0 to 255 → finished pictures. ``first_frame`` is the number of the first one in its clip."""
        film = self._film
        if film.softness > 0:
            for axis in (1, 2):
                images = _soften(images, film.softness, axis)
        scale = torch.tensor(film.gain, device=images.device) * film.contrast
        images = images * scale + 127.5 * (1 - film.contrast)
        if film.saturation != 1:
            grey = images[..., :1] * 0.299 + images[..., 1:2] * 0.587 + images[..., 2:] * 0.114
            images = grey + film.saturation * (images - grey)
        if self._tile is not None:
            height, width = self._size
            for i in range(len(images)):
                top, left = np.random.default_rng((self._seed, first_frame + i)).integers(0, _GRAIN_SIDE, 2)
                images[i] += self._tile[top : top + height, left : left + width]
        return (images + 0.5).clamp_(0, 255).to(torch.uint8)


def _soften(images: torch.Tensor, weight: float, axis: int) -> torch.Tensor:
    size = images.shape[axis]
    rows = torch.arange(size, device=images.device)
    before = images.index_select(axis, rows.sub(1).clamp_min(0))
    after = images.index_select(axis, rows.add(1).clamp_max(size - 1))
    side = weight / (1 + 2 * weight)
    return (1 - 2 * side) * images + side * (before + after)
