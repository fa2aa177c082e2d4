"""Tiling pictures of walls, floors and clutter, made from random numbers."""

from __future__ import annotations

import numpy as np

from posesyn.synthesis.rendering.appearance import from_hsv

_SIZE = 256


def fractal(rng: np.random.Generator, size: int = _SIZE, slope: float = 1.5, channels: int = 1) -> np.ndarray:
    """(size, size, channels) float32 noise that tiles, mean 0, deviation 1; larger ``slope`` is smoother.

    White noise filtered by a power law (amplitude ∝ frequency ** −slope).
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(channels, size, size))) * frequency**-slope
    spectrum[:, 0, 0] = 0
    values = np.fft.irfft2(spectrum, s=(size, size))
    return (values / values.std((1, 2), keepdims=True)).astype(np.float32).transpose(1, 2, 0)


def plain(rng: np.random.Generator, colour: np.ndarray, grain: float = 2.0) -> np.ndarray:
    """(256, 256, 3) one colour with a slight unevenness."""
    return colour + grain * fractal(rng, slope=1.2)


def floor_texture(rng: np.random.Generator, kind: str) -> np.ndarray:
    """(256, 256, 3) float32 sRGB 0 to 255 of a floor: tiles, planks, carpet, grass, sand, asphalt or court."""
    grain = fractal(rng, slope=0.9)
    rows, columns = np.mgrid[:_SIZE, :_SIZE]
    match kind:
        case "tiles":
            first, second = _wall_colour(rng), _wall_colour(rng)
            cell = int(rng.choice([32, 64]))
            checker = ((rows // cell + columns // cell) % 2)[..., None]
            colour = first + checker * (second - first) * rng.choice([0.0, 0.5, 1.0])
            joint = ((rows % cell < 2) | (columns % cell < 2))[..., None]
            return colour - 40 * joint + 4 * grain
        case "planks":
            base = np.array(from_hsv(rng.uniform(0.05, 0.1), rng.uniform(0.25, 0.6), rng.uniform(0.3, 0.8)))
            board = columns // 16
            tone = rng.normal(0, 9, 16)[board] - 30 * (columns % 16 == 0)
            streaks = fractal(rng, slope=1.0)[rows // 8, columns, 0] * 7
            return base + (tone + streaks)[..., None]
        case "grass":
            base = np.array(from_hsv(rng.uniform(0.2, 0.33), rng.uniform(0.35, 0.65), rng.uniform(0.3, 0.6)))
            return base + 16 * grain + 12 * fractal(rng, slope=1.8, channels=3)
        case "sand":
            base = np.array(from_hsv(rng.uniform(0.08, 0.13), rng.uniform(0.2, 0.4), rng.uniform(0.6, 0.85)))
            return base + 8 * grain + 6 * fractal(rng, slope=1.8)
        case "court":
            base = np.array(from_hsv(rng.random(), rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.7)))
            line = ((np.abs(rows - 128) < 2) | (np.abs(columns - 60) < 2))[..., None]
            return base + line * (225 - base) + 3 * grain
        case "asphalt":
            return rng.uniform(70, 150) + 10 * grain + np.zeros(3, np.float32)
        case _:  # carpet
            return _wall_colour(rng) + 7 * fractal(rng, slope=0.4) + 4 * grain


def wall_texture(rng: np.random.Generator, decorated: bool = True) -> np.ndarray:
    """(256, 512, 3) float32 sRGB of a wall, row 0 at the ceiling: paint, bricks or wallpaper, with things on it."""
    rows, columns = np.mgrid[:256, :512]
    image = _wall_colour(rng) + 3 * np.tile(fractal(rng, slope=1.6), (1, 2, 1))
    kind = rng.choice(["paint", "paint", "bricks", "stripes", "panels"])
    if kind == "bricks":
        course = rows // 8
        joint = (rows % 8 == 0) | ((columns + 12 * (course % 2)) % 24 == 0)
        image = image + rng.normal(0, 9, (33, 25))[course, (columns + 12 * (course % 2)) // 24][..., None]
        image = image + 25 * rng.choice([-1, 1]) * joint[..., None]
    elif kind == "stripes":
        image = image + 18 * ((columns // int(rng.integers(6, 30))) % 2)[..., None]
    elif kind == "panels":
        image = image - 30 * ((columns % int(rng.integers(40, 90)) < 2) | (rows == 150))[..., None]
    if decorated:
        for _ in range(int(rng.integers(2, 9))):
            _hang(rng, image)
    image[246:] = image[246:] * 0.75  # skirting board
    return image.astype(np.float32)


def clutter(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32: overlapping shapes with textures, as hard a background as a street or a shop can be."""
    height, width = size
    side = max(height, width)
    field = 18 * fractal(rng, slope=1.6) + 8 * fractal(rng, slope=1.6, channels=3)
    repeats = -(-side // _SIZE)
    image = np.tile(field, (repeats, repeats, 1))[:height, :width] + _wall_colour(rng)
    rows, columns = np.mgrid[:height, :width] / side
    for _ in range(int(rng.integers(8, 30))):
        y, x, angle = rng.random(), rng.random(), rng.uniform(0, np.pi)
        long, short = rng.uniform(0.05, 0.4), rng.uniform(0.02, 0.15)
        along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        box = rng.random() < 0.6
        inside = (
            np.maximum(np.abs(along) / long, np.abs(across) / short) < 1
            if box
            else np.hypot(along / long, across / short) < 1
        )
        colour = np.array(from_hsv(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.1, 1)))
        shade = 1 + 0.3 * np.sin(along[inside] * rng.uniform(5, 80))[:, None] * (rng.random() < 0.5)
        image[inside] = colour * shade
    return image


def _wall_colour(rng: np.random.Generator) -> np.ndarray:
    return np.array(from_hsv(rng.random(), rng.uniform(0.0, 0.3), rng.uniform(0.35, 0.95)), np.float32)


def _hang(rng: np.random.Generator, image: np.ndarray) -> None:
    """Paints a window, door, picture or piece of furniture onto a wall, in place."""
    height, width = image.shape[:2]
    colour = np.array(from_hsv(rng.random(), rng.uniform(0.05, 0.7), rng.uniform(0.15, 0.95)))
    kind = rng.choice(["window", "door", "picture", "furniture"])
    wide, tall = {
        "window": (rng.integers(40, 110), rng.integers(50, 110)),
        "door": (45, 180),
        "picture": (rng.integers(15, 60), rng.integers(15, 50)),
        "furniture": (rng.integers(30, 140), rng.integers(40, 140)),
    }[kind]
    left = int(rng.integers(0, width - wide))
    top = height - 6 - tall if kind in ("door", "furniture") else int(rng.integers(20, height - 110 - tall // 3))
    bottom, right = min(top + tall, height), left + wide
    frame = image[top:bottom, left:right]
    frame[:] = colour * 0.6
    inner = frame[3:-3, 3:-3]
    if kind == "window":
        inner[:] = np.linspace(240, 200, len(inner))[:, None, None] - (20, 8, 0)
        inner[:, inner.shape[1] // 2 - 1 : inner.shape[1] // 2 + 1] = colour * 0.6
    elif kind == "picture":
        inner[:] = colour + 30 * fractal(rng, 128, 1.5, 3)[: inner.shape[0], : inner.shape[1]]
    else:
        inner[:] = colour
        shelf = max(8, int(rng.integers(15, 60)))
        inner[::shelf] = colour * 0.5
