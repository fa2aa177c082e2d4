"""Cameras that keep a moving person in view, drawn at random or placed on a wanted side, and what their lens and sensor
do to a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from posesyn.errors import InputError
from posesyn.geometry.cameras import in_plane_rotation, intrinsics, look_at
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.settings.stages import check_style

MODES = ("auto", "fixed", "tracking")

# Own choices. Degrees, metres and shares of the image.
_BODY_RADIUS = 0.11  # how far skin, hair and cloth reach beyond the joints
_MIN_EYE_HEIGHT = 0.15
_TRACKING_TRAVEL = 1.5  # a person who walks farther than this is followed
_SMOOTHING_SECONDS = 0.5
_RANGES = {
    #        field of view, elevation, share of the image that the person fills, roll (standard deviation)
    "lab": ((38, 52), (0, 12), (0.78, 0.9), 0.0),
    "wild": ((28, 68), (-8, 35), (0.62, 0.93), 2.0),
}
_HIGH_VIEW = (0.1, (35, 60))  # chance and elevations of views from above, "wild" only
_ANCHOR_JITTER = 12.0  # standard deviation around a wanted yaw


@dataclass(frozen=True, eq=False)
class CameraPath:
    """A camera of constant orientation that stands still or travels along the floor.

    Attributes:
        rotation: (3, 3) world → camera.
        translation: (T, 3) metres: ``points_cam = points_world @ rotation.T + translation``.
        intrinsics: (3, 3) pixels.
        yaw: Radians around the world's y axis from which the camera looks; at 0 it stands at +z, and sees the
            front of a person that faces +z.
        elevation: Radians above the horizon from which it looks down.
    """

    rotation: np.ndarray
    translation: np.ndarray
    intrinsics: np.ndarray
    yaw: float
    elevation: float

    @property
    def position(self) -> np.ndarray:
        """(T, 3) world positions."""
        return -self.translation @ self.rotation

    @property
    def moving(self) -> bool:
        """Whether the camera follows the person."""
        return bool(np.ptp(self.translation, axis=0).max() > 0)

    def to_camera(self, points_world: np.ndarray) -> np.ndarray:
        """(T, N, 3) world points → camera points."""
        return points_world @ self.rotation.T + self.translation[:, None]


def sample_camera(
    joints_world: np.ndarray,
    image_size: tuple[int, int],
    rng: np.random.Generator,
    *,
    style: str = "wild",
    mode: str = "auto",
    fps: float = 20.0,
    yaw: float | None = None,
    elevation: float | None = None,
    floor: float = 0.0,
    truncation: Sequence[float] | None = None,
) -> CameraPath:
    """Draws a camera and moves it as close as it can be while the person stays in the image in all frames.

    Args:
        joints_world: (T, J, 3) metres.
        image_size: (height, width) pixels.
        style: ``"lab"`` looks from eye height, ``"wild"`` from low to high, with any lens.
        mode: ``"fixed"``, ``"tracking"`` (follows the smoothed pelvis over the floor), or ``"auto"``, which follows a
            person that travels more than 1.5 m.
        fps: Of the joints; smooths the tracking.
        yaw, elevation: Radians, see :class:`CameraPath`; drawn around this direction if given, else from all.
        floor: Height of the floor, below which no camera stands.
        truncation: Shares of the person's box that the left, top, right and bottom border cut off: the camera that
            keeps the person in view is turned and zoomed onto the rest.

    Raises:
        InputError: Unknown style or mode, or joints that are not finite.
    """
    check_style(style)
    if mode not in MODES:
        raise InputError("unknown camera mode", expected=", ".join(MODES), got=mode)
    if joints_world.ndim != 3 or joints_world.shape[-1] != 3 or not np.isfinite(joints_world).all():
        raise InputError("joints_world must be finite", expected="(T, J, 3)", got=joints_world.shape)
    height, width = image_size
    fields, elevations, fills, roll = _RANGES[style]
    field = np.deg2rad(rng.uniform(*fields))
    drawn_yaw, drawn_elevation = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(*elevations))
    if style == "wild" and rng.random() < _HIGH_VIEW[0]:
        drawn_elevation = np.deg2rad(rng.uniform(*_HIGH_VIEW[1]))
    jitter = np.deg2rad(rng.normal(0, _ANCHOR_JITTER, 2))
    yaw = drawn_yaw if yaw is None else float(yaw) + jitter[0]
    elevation = drawn_elevation if elevation is None else np.clip(float(elevation) + jitter[1] / 2, -0.3, 1.2)
    fill, shift = rng.uniform(*fills), rng.uniform(-0.5, 0.5, 2)
    turn = np.deg2rad(rng.normal(0, 1)) * roll
    focal = max(height, width) / 2 / np.tan(field / 2)
    path = _follow(joints_world, mode, fps)
    centred = joints_world - path[:, None]
    low, high = centred.min((0, 1)), centred.max((0, 1))
    target = (low + high) / 2
    offsets = (centred - target).reshape(-1, 3)
    for _ in range(3):  # a camera that would stand below the floor is raised, which changes its distance
        rotation = _rotation(yaw, elevation, turn)
        distance = _distance(offsets @ rotation.T, fill, focal, image_size)
        lowest = floor + _MIN_EYE_HEIGHT - target[1]
        if distance * np.sin(elevation) >= lowest - 1e-6:
            break
        elevation = float(np.arcsin(np.clip(lowest / distance, -1, 1)) + 0.02)
    eye = target + distance * direction(yaw, elevation)
    if truncation is not None and any(truncation):
        rotation, focal = _cut_off(centred - eye, rotation, focal, image_size, np.reshape(truncation, (2, 2)), fill)
        shift = np.zeros(2)
    translation = -(path + eye) @ rotation.T
    matrix = intrinsics(float(focal), width, height).double().numpy()
    # What the person leaves free is used to push it off the middle, by sliding the camera across its view.
    seen = centred.reshape(-1, 3) @ rotation.T - rotation @ eye
    pixels = seen[:, :2] / seen[:, 2:] * focal
    room = np.array([width, height]) / 2 * fill - np.abs(pixels).max(0)
    slide = shift * np.clip(room, 0, None) * seen[:, 2].min() / focal
    slide[1] = 0  # sliding down could put it below the floor
    translation[:, :2] += slide
    arrays = (value.astype(np.float32) for value in (rotation, translation, matrix))
    return CameraPath(*arrays, float(np.arctan2(np.sin(yaw), np.cos(yaw))), float(elevation))


def _cut_off(
    rays: np.ndarray, rotation: np.ndarray, focal: float, image_size: tuple[int, int], cuts: np.ndarray, fill: float
) -> tuple[np.ndarray, float]:
    """Turns and zooms a camera until the image's borders cut a person's box; where the camera stands stays.

    ``rays`` (T, J, 3) from the camera to the joints, metres, world axes; ``cuts`` ((left, top), (right, bottom)). Each
    edge of the box is the median over the frames, so that a limb that sticks out once moves none.
    """
    size = np.array(image_size[::-1], np.float64)
    room = size * (fill + (1 - fill) / 2 * (cuts > 0).sum(0))
    both, at_border = (cuts > 0).all(0), cuts[1] > cuts[0]
    for _ in range(16):  # what is turned towards the middle is foreshortened less: settles in a few rounds
        seen = rays @ rotation.T
        pixels, flesh = seen[..., :2] / seen[..., 2:] * focal, _BODY_RADIUS * focal / seen[..., 2:]
        low, high = np.median((pixels - flesh).min(1), 0), np.median((pixels + flesh).max(1), 0)
        window = np.stack([low, high]) + (high - low) * cuts * [[1], [-1]]
        zooms = room / (window[1] - window[0])
        # Cuts on opposite sides fix the size; else all that is not cut off stays inside.
        zoom = zooms[both].max() if both.any() else zooms.min()
        focal, window = focal * zoom, window * zoom
        one_sided = (cuts > 0).any(0) & ~both
        source = np.where(one_sided, np.where(at_border, window[1], window[0]), window.mean(0))
        goal = np.where(one_sided, np.where(at_border, size / 2, -size / 2), 0.0)
        # Pan, then tilt: the horizon stays as level as it was.
        pan, tilt = np.arctan(goal / focal) - np.arctan(source / focal)
        rotation = _turn(0, -tilt) @ _turn(1, pan) @ rotation
    return rotation, float(focal)


def _turn(axis: int, angle: float) -> np.ndarray:
    return rotvec_to_matrix(torch.from_numpy(np.eye(3)[axis] * angle)).numpy()


def _follow(joints: np.ndarray, mode: str, fps: float) -> np.ndarray:
    """(T, 3) the point that the camera travels with: constant, or the smoothed pelvis on the floor."""
    pelvis = joints[:, 0] * (1, 0, 1)
    travel = np.ptp(pelvis, axis=0).max()
    if len(joints) == 1 or mode == "fixed" or (mode == "auto" and travel <= _TRACKING_TRAVEL):
        return np.repeat(pelvis.mean(0, keepdims=True), len(joints), 0)
    sigma = _SMOOTHING_SECONDS * fps
    reach = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    # Continued with the same speed at both ends, or the camera would lag there.
    padded = np.pad(pelvis, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(padded[:, i], kernel / kernel.sum(), "valid") for i in range(3)], 1)


def direction(yaw: float, elevation: float) -> np.ndarray:
    """(3,) unit vector from the person to a camera or lamp; at yaw 0 towards +z."""
    return np.array([np.sin(yaw) * np.cos(elevation), np.sin(elevation), np.cos(yaw) * np.cos(elevation)])


def _rotation(yaw: float, elevation: float, turn: float) -> np.ndarray:
    rotation, _ = look_at(torch.from_numpy(direction(yaw, elevation)), torch.zeros(3, dtype=torch.float64))
    return (in_plane_rotation(torch.tensor(turn, dtype=torch.float64)) @ rotation).numpy()


def _distance(offsets: np.ndarray, fill: float, focal: float, image_size: tuple[int, int]) -> float:
    """Smallest distance from which all points project into the wanted share of the image."""
    half = np.array(image_size[::-1]) / 2 * fill
    needed = (np.abs(offsets[:, :2]) + _BODY_RADIUS) * focal / half - offsets[:, 2:]
    nearest = 0.4 - offsets[:, 2].min()  # no joint closer than 40 cm
    return float(max(needed.max(), nearest))


# Own choice: the grain is drawn this much larger than the picture and shifted from frame to frame.
_GRAIN_SIDE = 64


@dataclass(frozen=True)
class Film:
    """Settings of one clip. The neutral ones change nothing."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  #: RGB factors: exposure and white balance
    contrast: float = 1.0  #: factor around middle grey
    saturation: float = 1.0  #: 0 is black and white
    softness: float = 0.0  #: 0 sharp to 0.5: weight that each pixel gives to its neighbours
    grain: float = 0.0  #: standard deviation of the noise, of 255


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
        self._tile, self._seed = None, seed
        if film.grain > 0:
            sides = image_size[0] + _GRAIN_SIDE, image_size[1] + _GRAIN_SIDE, 3
            tile = np.random.default_rng(seed).standard_normal(sides, np.float32) * film.grain
            self._tile = torch.from_numpy(tile).to(device)

    def __call__(self, images: Float[torch.Tensor, "T H W 3"], first_frame: int) -> UInt8[torch.Tensor, "T H W 3"]:
        """Pictures 0 to 255 → finished pictures. ``first_frame`` is the number of the first one in its clip."""
        film = self._film
        side = film.softness / (1 + 2 * film.softness)
        for axis in (1, 2) if film.softness > 0 else ():
            rows = torch.arange(images.shape[axis], device=images.device)
            before = images.index_select(axis, rows.sub(1).clamp_min(0))
            after = images.index_select(axis, rows.add(1).clamp_max(len(rows) - 1))
            images = (1 - 2 * side) * images + side * (before + after)
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
