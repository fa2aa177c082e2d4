"""Places to stand in: rooms with walls and a floor, and open ground under a sky, seen by any camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from posesyn.synthesis.rendering import textures
from posesyn.synthesis.rendering.appearance import from_hsv

_METRES_PER_FLOOR = 3.0  # own choice: extent of one floor texture
_WALL_SIZE = (10.0, 3.2)  # metres of one wall texture, width and height


class Scene(Protocol):
    """Something that can be looked at."""

    def look(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From the world position (3,) along the rays (H, W, 3): colours (H, W, 3) float32 0 to 255, and where the
        floor is seen, (H, W) bool."""


@dataclass(frozen=True)
class Room:
    """A box with a floor, four walls and a ceiling.

    Attributes:
        low, high: (3,) corners in the room's frame, metres; the floor is at ``low[1]``.
        turn: Radians from the world to the room's frame, around y.
        origin: (3,) world position of the room frame's origin.
        floor, walls, ceiling: Textures; four walls at −x, +x, −z, +z.
    """

    low: np.ndarray
    high: np.ndarray
    turn: float
    origin: np.ndarray
    floor: np.ndarray
    walls: tuple[np.ndarray, ...]
    ceiling: np.ndarray

    def look(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        spin = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
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
        out[on_floor] = _tile(self.floor, hit[on_floor][:, (0, 2)] / _METRES_PER_FLOOR)
        above = (axis == 1) & side
        out[above] = _tile(self.ceiling, hit[above][:, (0, 2)] / _METRES_PER_FLOOR)
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


@dataclass(frozen=True)
class Outdoors:
    """Open ground to the horizon, a skyline and a sky.

    Attributes:
        ground: Floor texture; ``floor`` its height in metres.
        zenith, haze: (3,) sRGB of the sky above and at the horizon.
        skyline: (720,) elevation in radians of what stands at the horizon, per half degree.
        buildings: (720, 3) sRGB of it.
        windows: Whether it shows rows of windows.
        clouds: (256, 256, 1) noise.
    """

    ground: np.ndarray
    floor: float
    zenith: np.ndarray
    haze: np.ndarray
    skyline: np.ndarray
    buildings: np.ndarray
    windows: bool
    clouds: np.ndarray

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


@dataclass(frozen=True)
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
    cos, sin = np.cos(turn), np.sin(turn)
    spin = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    inside = (np.concatenate([eyes, person]) - origin) @ spin.T
    low, high = inside.min(0) - rng.uniform(1.0, 3.0, 3), inside.max(0) + rng.uniform(1.0, 3.0, 3)
    high[2] += rng.uniform(0.0, 1.5)
    low[1], high[1] = floor, max(floor + rng.uniform(2.4, 3.6), inside[:, 1].max() + 0.2)
    if lab:
        walls = (textures.plain(rng, np.full(3, rng.uniform(165, 225)), 1.0),) * 4
        ground = textures.plain(rng, np.full(3, rng.uniform(120, 180)), 1.5)
    else:
        walls = tuple(textures.wall_texture(rng) for _ in range(4))
        ground = textures.floor_texture(rng, rng.choice(["tiles", "planks", "carpet", "court", "carpet"]))
    ceiling = textures.plain(rng, np.full(3, rng.uniform(190, 240)), 1.0)
    return Room(low, high, turn, origin, ground.astype(np.float32), walls, ceiling.astype(np.float32))


def sample_outdoors(rng: np.random.Generator, floor: float) -> Outdoors:
    """Grass, sand, asphalt or a court, under a clear, cloudy or evening sky, before hills, trees or houses."""
    ground = textures.floor_texture(rng, rng.choice(["grass", "sand", "asphalt", "asphalt", "tiles", "court", "grass"]))
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
    clouds = textures.fractal(rng, slope=1.7)
    return Outdoors(
        ground.astype(np.float32),
        floor,
        zenith,
        haze,
        np.maximum(skyline, 0),
        colour.astype(float),
        kind == "houses",
        clouds,
    )


def _tile(texture: np.ndarray, position: np.ndarray) -> np.ndarray:
    size = np.array(texture.shape[1::-1])
    cell = np.floor(position * size).astype(np.int64) % size
    return texture[cell[:, 1], cell[:, 0]]


def _stretch(texture: np.ndarray, along: np.ndarray, drop: np.ndarray) -> np.ndarray:
    height, width = texture.shape[:2]
    rows = np.clip(drop * height, 0, height - 1).astype(np.int64)
    return texture[rows, np.floor(along * width).astype(np.int64) % width]
