"""What lies behind the person: photographs from a folder, a person's own picture, or a procedural scene."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np

from posesyn.errors import FileError, InputError
from posesyn.settings.stages import check_style
from posesyn.storage.images import ImageFile
from posesyn.synthesis.rendering.appearance import scenes
from posesyn.synthesis.rendering.appearance.appearance import from_hsv
from posesyn.synthesis.rendering.appearance.scenes import Flat, Scene, sample_outdoors, sample_room
from posesyn.synthesis.rendering.view import CameraPath

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_KEPT_IMAGES = 32  # own choices: photos kept in memory, at this longest side
_KEPT_SIDE = 720


class PhotoFolder:
    """Photographs in a folder (not its subfolders), in the order of their names.

    Raises:
        FileError: The folder is missing or holds no picture. A damaged picture raises when it is drawn.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileError("the background folder does not exist", where=folder, fix="name a folder with photographs")
        self.paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not self.paths:
            raise FileError(
                "the background folder holds no picture",
                where=folder,
                expected=" ".join(SUFFIXES),
                fix="put photographs into it, or use backgrounds='procedural'",
            )
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def draw(self, rng: np.random.Generator, image_size: tuple[int, int]) -> tuple[np.ndarray, str]:
        """A random cut-out (H, W, 3) uint8 of a random photo, possibly mirrored, and the photo's name."""
        index = int(rng.integers(len(self.paths)))
        picture = crop_to(self._load(index), image_size, rng)
        return picture, self.paths[index].name

    def _load(self, index: int) -> np.ndarray:
        if index not in self._kept:
            image = ImageFile(self.paths[index], orientation="exif").load()
            scale = _KEPT_SIDE / max(image.shape[:2])
            if scale < 1:
                size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            self._kept[index] = image
            if len(self._kept) > _KEPT_IMAGES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]


def crop_to(image: np.ndarray, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture, at least half as large as the largest that fits, scaled to ``image_size``."""
    height, width = image_size
    largest = min(image.shape[0] / height, image.shape[1] / width)
    scale = largest * rng.uniform(0.5, 1.0)
    tall, wide = max(1, int(height * scale)), max(1, int(width * scale))
    top = int(rng.integers(image.shape[0] - tall + 1))
    left = int(rng.integers(image.shape[1] - wide + 1))
    part = image[top : top + tall, left : left + wide]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    shrinks = tall > height
    part = cv2.resize(
        np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return part


class Backgrounds:
    """Where clips take their scene from.

    Args:
        source: A folder of photographs, ``"procedural"`` or None (the same).
        style: ``"lab"`` draws plain rooms and plain colours, ``"wild"`` everything.
    """

    def __init__(self, source: str | Path | None = None, style: str = "wild") -> None:
        check_style(style)
        self._style = style
        self._photos = None if source is None or source == "procedural" else PhotoFolder(source)

    def draw(
        self,
        rng: np.random.Generator,
        camera: CameraPath,
        person_floor: np.ndarray,
        floor: float,
        image_size: tuple[int, int],
    ) -> tuple[Scene, str]:
        """A scene for a clip, and its name for the records.

        Args:
            rng: Source of randomness.
            camera: The clip's camera.
            person_floor: (T, 3) where the person is, world.
            floor: Height of the floor.
            image_size: (height, width).
        """
        if self._photos is not None:
            picture, name = self._photos.draw(rng, image_size)
            return Flat(picture.astype(np.float32)), f"photo:{name}"
        if self._style == "lab":
            kinds, chances = ["room", "plain", "gradient"], [0.6, 0.2, 0.2]
        else:
            kinds = ["room", "outdoors", "clutter", "noise", "gradient"]
            chances = [0.42, 0.36, 0.1, 0.07, 0.05]
        kind = str(rng.choice(kinds, p=chances))
        if kind == "room":
            return sample_room(rng, camera.position, person_floor, floor, self._style == "lab"), kind
        if kind == "outdoors":
            return sample_outdoors(rng, floor), kind
        return Flat(_picture(rng, kind, image_size, self._style == "lab")), kind


def _picture(rng: np.random.Generator, kind: str, image_size: tuple[int, int], lab: bool) -> np.ndarray:
    height, width = image_size
    if kind == "clutter":
        return np.clip(scenes.clutter(rng, image_size), 0, 255).astype(np.float32)
    saturation = 0.05 if lab else 0.5
    first, second = (
        np.array(from_hsv(rng.random(), rng.uniform(0, saturation), rng.uniform(0.45, 0.9)), np.float32)
        for _ in range(2)
    )
    if kind == "plain":
        return np.broadcast_to(first, (height, width, 3)).copy()
    if kind == "gradient":
        share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        return np.broadcast_to(first + share * (second - first), (height, width, 3)).copy()
    if kind == "noise":
        field = scenes.fractal(rng, 256, rng.uniform(0.8, 1.8), 3)
        field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(first + field * rng.uniform(15, 50), 0, 255).astype(np.float32)
    raise InputError("unknown kind of background", expected="plain, gradient, noise or clutter", got=kind)
