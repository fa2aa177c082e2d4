"""Places to stand in: rooms with walls and a floor, and open ground under a sky, seen by any camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

Colour = tuple[int, int, int]  # sRGB 0 to 255
_SIZE = 256


def rounded(rgb: np.ndarray) -> Colour:
    """The nearest colour that there is."""
    red, green, blue = (int(value) for value in np.clip(np.round(rgb), 0, 255))
    return red, green, blue


def from_hsv(hue: float, saturation: float, value: float) -> Colour:
    """Hue, saturation, value in 0 to 1 → sRGB 0 to 255."""
    sector = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    rgb = value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return rounded(rgb * 255)


def fractal(rng: np.random.Generator, size: int = _SIZE, slope: float = 1.5, channels: int = 1) -> np.ndarray:
    """(size, size, channels) float32 noise that tiles, mean 0, deviation 1: white noise filtered by a power law
    (amplitude ∝ frequency ** −slope)."""
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


def wall_texture(rng: np.random.Generator) -> np.ndarray:
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
        shape = np.maximum if box else np.hypot
        inside = shape(np.abs(along) / long, np.abs(across) / short) < 1
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
    sizes = {"window": (rng.integers(40, 110), rng.integers(50, 110)), "door": (45, 180)}
    sizes["picture"] = (rng.integers(15, 60), rng.integers(15, 50))
    sizes["furniture"] = (rng.integers(30, 140), rng.integers(40, 140))
    wide, tall = (int(side) for side in sizes[kind])
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


_METRES_PER_FLOOR = 3.0  # own choice: extent of one floor texture
_WALL_SIZE = (10.0, 3.2)  # metres of one wall texture, width and height


class Scene(Protocol):
    """Something that can be looked at."""

    def look(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From the world position (3,) along the rays (H, W, 3): colours (H, W, 3) float32 0 to 255, and where the
        floor is seen, (H, W) bool."""


@dataclass(frozen=True, eq=False)
class Room:
    """A box with a floor, four walls and a ceiling, each with a texture."""

    low: np.ndarray  #: (3,) corners in the room's frame, metres; the floor is at low[1]
    high: np.ndarray
    turn: float  #: radians from the world to the room's frame, around y
    origin: np.ndarray  #: (3,) world position of the room frame's origin
    floor: np.ndarray
    walls: tuple[np.ndarray, ...]  #: four, at −x, +x, −z, +z
    ceiling: np.ndarray

    def look(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spin = _spin(self.turn)
        start = spin @ (np.asarray(eye, float) - self.origin)
        rays = (rays @ spin.T).astype(np.float32)
        start, low, high = start.astype(np.float32), self.low.astype(np.float32), self.high.astype(np.float32)
        # The eye is inside the box, so that a ray leaves through the nearest of the three planes that it heads for.
        bound = np.where(rays > 0, high, low)
        reach = np.abs(bound - start) / np.maximum(np.abs(rays), 1e-9)
        axis = reach.argmin(-1)
        hit = start + rays * np.take_along_axis(reach, axis[..., None], -1)
        side = np.take_along_axis(rays, axis[..., None], -1)[..., 0] > 0
        out = np.empty(rays.shape, np.float32)
        on_floor = (axis == 1) & ~side
        for seen, texture in ((on_floor, self.floor), ((axis == 1) & side, self.ceiling)):
            out[seen] = _tile(texture, hit[seen][:, (0, 2)] / _METRES_PER_FLOOR)
        shades = (0.90, 1.0, 0.95, 0.86)  # walls face different ways
        for i, (wall_axis, along) in enumerate(((0, 2), (0, 2), (2, 0), (2, 0))):
            on = (axis == wall_axis) & (side == bool(i % 2))
            drop = (self.high[1] - hit[on, 1]) / (self.high[1] - self.low[1])
            out[on] = shades[i] * _stretch(self.walls[i], hit[on, along] / _WALL_SIZE[0], drop)
        # Corners receive less light: darken towards the edges of the box.
        gap = np.minimum(hit - low, high - hit)
        a, b, c = gap[..., 0], gap[..., 1], gap[..., 2]
        nearest = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))  # the middle one: 0 is the wall itself
        out *= (1 - 0.25 * np.exp(-nearest / 0.25))[..., None].astype(np.float32)
        return out, on_floor


@dataclass(frozen=True, eq=False)
class Outdoors:
    """Open ground to the horizon, a skyline and a sky."""

    ground: np.ndarray  #: texture
    floor: float  #: its height, metres
    zenith: np.ndarray  #: (3,) sRGB of the sky above and at the horizon
    haze: np.ndarray
    skyline: np.ndarray  #: (720,) elevation in radians of what stands at the horizon, per half degree
    buildings: np.ndarray  #: (720, 3) sRGB of it
    windows: bool  #: whether it shows rows of windows
    clouds: np.ndarray  #: (256, 256, 1) noise

    def look(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = np.hypot(rays[..., 0], rays[..., 2])
        elevation = np.arctan2(rays[..., 1], flat)
        bearing = np.arctan2(rays[..., 0], rays[..., 2])
        below = elevation < -1e-3
        share = np.clip(elevation / 1.0, 0, 1)[..., None] ** 0.6
        out = (self.haze + share * (self.zenith - self.haze)).astype(np.float32)
        aloft = np.stack([bearing * 0.5, elevation * 0.9], -1).reshape(-1, 2)
        cloud = _tile(self.clouds, aloft).reshape(*below.shape, 1)
        out += np.clip(cloud, 0, 1.5) * 30 * np.clip(elevation * 6, 0, 1)[..., None]
        index = ((bearing / (2 * np.pi) % 1) * len(self.skyline)).astype(int) % len(self.skyline)
        built = ~below & (elevation < self.skyline[index])
        wall = self.buildings[index]
        if self.windows:
            lit = (np.floor(elevation * 90) % 2 == 0) & (index % 4 < 2)
            wall = wall * np.where(lit, 0.75, 1.0)[..., None]
        out[built] = (0.75 * wall + 0.25 * self.haze)[built]
        height = max(float(eye[1]) - self.floor, 0.05)
        distance = height / np.where(below, -rays[..., 1], 1)
        points = np.asarray(eye)[[0, 2]] + rays[..., (0, 2)] * distance[..., None]
        fog = (1 - np.exp(-distance * flat / 60))[..., None]
        ground = _tile(self.ground, points[below] / _METRES_PER_FLOOR)
        # Where one pixel spans more than a texture cell, the texture would shimmer: fade to its mean.
        spread = np.clip(distance * flat / 14, 0, 1)[..., None][below]
        ground = ground + spread * (self.ground.mean((0, 1)) - ground)
        out[below] = ground + fog[below] * (self.haze - ground)
        return out, below


@dataclass(frozen=True, eq=False)
class Flat:
    """A picture behind everything, e.g. a photograph. A shadow may fall on all of it that lies below the horizon."""

    picture: np.ndarray

    def look(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.picture, rays[..., 1] < 0


def sample_room(rng: np.random.Generator, eyes: np.ndarray, person: np.ndarray, floor: float, lab: bool) -> Room:
    """A room that holds the camera positions (T, 3) and the floor positions (T, 3) of a person, with space around."""
    origin = np.array([person[:, 0].mean(), 0, person[:, 2].mean()])
    view = np.arctan2(*(origin - eyes.mean(0))[[0, 2]])
    turn = float(view + rng.normal(0, 0.05 if lab else 0.35))  # the wall at +z stands behind the person
    inside = (np.concatenate([eyes, person]) - origin) @ _spin(turn).T
    low, high = inside.min(0) - rng.uniform(1.0, 3.0, 3), inside.max(0) + rng.uniform(1.0, 3.0, 3)
    high[2] += rng.uniform(0.0, 1.5)
    low[1], high[1] = floor, max(floor + rng.uniform(2.4, 3.6), inside[:, 1].max() + 0.2)
    if lab:
        walls = (plain(rng, np.full(3, rng.uniform(165, 225)), 1.0),) * 4
        ground = plain(rng, np.full(3, rng.uniform(120, 180)), 1.5)
    else:
        walls = tuple(wall_texture(rng) for _ in range(4))
        ground = floor_texture(rng, rng.choice(["tiles", "planks", "carpet", "court", "carpet"]))
    ceiling = plain(rng, np.full(3, rng.uniform(190, 240)), 1.0)
    return Room(low, high, turn, origin, ground.astype(np.float32), walls, ceiling.astype(np.float32))


def sample_outdoors(rng: np.random.Generator, floor: float) -> Outdoors:
    """Grass, sand, asphalt or a court, under a clear, cloudy or evening sky, before hills, trees or houses."""
    kinds = ["grass", "sand", "asphalt", "asphalt", "tiles", "court", "grass"]
    ground = floor_texture(rng, rng.choice(kinds)).astype(np.float32)
    evening = rng.random() < 0.2
    hue = rng.uniform(0.02, 0.1) if evening else rng.uniform(0.55, 0.62)
    zenith = np.array(from_hsv(rng.uniform(0.56, 0.64), rng.uniform(0.05, 0.6), rng.uniform(0.5, 0.95)), float)
    haze = np.array(from_hsv(hue, rng.uniform(0.0, 0.35), rng.uniform(0.75, 0.97)), float)
    azimuth = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    kind = rng.choice(["hills", "trees", "houses"])
    if kind == "houses":
        edges = np.sort(rng.integers(0, 720, 28))
        block = np.searchsorted(edges, np.arange(720)) % 28
        skyline = rng.uniform(0.03, 0.45, 28)[block]
        paints = [from_hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.3, 0.85)) for _ in range(28)]
        colour = np.array(paints)[block]
    else:
        waves = rng.normal(0, 1, (12, 2)) / np.arange(1, 13)[:, None] ** (1.2 if kind == "hills" else 0.4)
        skyline = sum(a * np.sin(k * azimuth) + b * np.cos(k * azimuth) for k, (a, b) in enumerate(waves, 1))
        skyline = 0.08 + 0.05 * skyline / skyline.std()
        green = from_hsv(rng.uniform(0.2, 0.4), rng.uniform(0.15, 0.5), rng.uniform(0.2, 0.5))
        colour = np.array(green) + rng.normal(0, 9 if kind == "trees" else 1, (720, 1))
    skyline, colour, clouds = np.maximum(skyline, 0), colour.astype(float), fractal(rng, slope=1.7)
    return Outdoors(ground, floor, zenith, haze, skyline, colour, kind == "houses", clouds)


def _spin(turn: float) -> np.ndarray:
    """(3, 3) world → a frame turned around y."""
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def _tile(texture: np.ndarray, position: np.ndarray) -> np.ndarray:
    size = np.array(texture.shape[1::-1])
    cell = np.floor(position * size).astype(np.int64) % size
    return texture[cell[:, 1], cell[:, 0]]


def _stretch(texture: np.ndarray, along: np.ndarray, drop: np.ndarray) -> np.ndarray:
    height, width = texture.shape[:2]
    rows = np.clip(drop * height, 0, height - 1).astype(np.int64)
    return texture[rows, np.floor(along * width).astype(np.int64) % width]
