"""What a rendered person looks like and what lies behind it: skin, hair and clothes drawn at random; photographs from a
folder, a person's own picture, or a procedural scene."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posesyn.errors import FileError, InputError
from posesyn.settings.stages import check_style
from posesyn.storage.images import ImageFile
from posesyn.synthesis.rendering.appearance.scenes import (
    Colour,
    Flat,
    Scene,
    clutter,
    fractal,
    from_hsv,
    rounded,
    sample_outdoors,
    sample_room,
)
from posesyn.synthesis.rendering.view import CameraPath

PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "camouflage", "block", "logo", "raglan")
HAIR_STYLES = ("bald", "short", "medium", "long", "cap")


def _palette(text: str) -> tuple[Colour, ...]:
    """Colours written as on the web, RRGGBB."""
    return tuple((code[0], code[1], code[2]) for code in map(bytes.fromhex, text.split()))


# The Monk Skin Tone scale (skintone.google, CC BY 4.0), light to dark.
SKIN_TONES = _palette("f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420")
# All palettes and chances below are our own choice: everyday hair, cloth and shoe colours.
_HAIR_COLOURS = _palette("161210 261b14 3e2a1c 604026 8c643a c4a068 78381e 807e7c c8c6c2")
_MUTED = _palette("24262c 404248 76767a bebebc e4e2dc 2c3a5c 465c84 705c46 a08c6c 4a523a 60282c")
_LAB_TOPS, _LAB_BOTTOMS = _palette("3c4048 465c84 bebebc"), _palette("24262c 2c3a5c")
_SHOES = _palette("1e1e20 e8e8e6 6e482e 969698 aa2828 28468c")


@dataclass(frozen=True)
class Garment:
    """A piece of cloth.

    Attributes:
        colour, second: sRGB 0 to 255; the second colour is that of the pattern.
        pattern: One of :data:`PATTERNS`.
        scale: Period of the pattern in metres.
        thickness: How far the cloth stands off the skin, in metres.
    """

    colour: Colour
    second: Colour = (230, 230, 230)
    pattern: str = "plain"
    scale: float = 0.06
    thickness: float = 0.008

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise InputError("unknown Garment.pattern", expected=", ".join(PATTERNS), got=self.pattern)


@dataclass(frozen=True, eq=False)
class Appearance:
    """Look of a person. Lengths along limbs: 0 shoulder or hip, 1 elbow or knee, 2 wrist or ankle.

    Attributes:
        skin, hair: sRGB 0 to 255.
        hair_style: One of :data:`HAIR_STYLES`; the colour of a cap is ``hair``.
        top, bottom: Shirt and trousers.
        sleeve: Length of the sleeves along the arm; 0 or less is a tank top.
        hem: Lower edge of the shirt, 0 pelvis, 1 neck.
        tucked: Whether the trousers cover the shirt.
        collar: Radius in metres that the neckline leaves free.
        trouser: Length of the trousers along the leg; about 0.45 are shorts.
        skirt: Trousers are drawn as one cloth around both legs.
        shoes: sRGB, or None for bare feet.
        sole: sRGB of the soles.
        socks: sRGB, or None.
        beard: 0 none to 1 full.
        fold_seed: Seed of the creases and of the irregular patterns.
        background: (H, W, 3) uint8 picture that belongs to the look, or None.
        background_box: (x1, y1, x2, y2) pixels of that picture where the person stood, or None.
        source: Where the look comes from: ``"random"`` or the name of a person.
        notes: What could not be taken from the source, and why.
    """

    skin: Colour
    hair: Colour
    hair_style: str
    top: Garment
    bottom: Garment
    sleeve: float = 0.6
    hem: float = -0.1
    tucked: bool = False
    collar: float = 0.07
    trouser: float = 1.95
    skirt: bool = False
    shoes: Colour | None = (30, 30, 32)
    sole: Colour = (200, 200, 200)
    socks: Colour | None = None
    beard: float = 0.0
    fold_seed: int = 0
    background: np.ndarray | None = field(default=None, compare=False, repr=False)
    background_box: tuple[float, float, float, float] | None = None
    source: str = "random"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hair_style not in HAIR_STYLES:
            raise InputError("unknown Appearance.hair_style", expected=", ".join(HAIR_STYLES), got=self.hair_style)

    def to_meta(self) -> dict[str, Any]:
        """The look as plain values, without the picture."""
        values = asdict(self)
        values["background"] = None if self.background is None else list(self.background.shape[:2])
        return values


def sample_appearance(rng: np.random.Generator, style: str = "wild") -> Appearance:
    """Draws a look: ``"lab"`` from few, plain ones (short sleeves, long trousers, short hair), ``"wild"`` from all."""
    check_style(style)
    return _lab(rng) if style == "lab" else _wild(rng)


def _lab(rng: np.random.Generator) -> Appearance:
    return Appearance(
        skin=_jitter(rng, SKIN_TONES[rng.integers(2, 6)], 4),
        hair=_pick(rng, _HAIR_COLOURS[:4]),
        hair_style="short",
        top=Garment(_pick(rng, _LAB_TOPS)),
        bottom=Garment(_pick(rng, _LAB_BOTTOMS)),
        sleeve=float(rng.choice([0.55, 1.9])),
        fold_seed=int(rng.integers(2**31)),
    )


def _wild(rng: np.random.Generator) -> Appearance:
    top, bottom = _garment(rng, 0.55), _garment(rng, 0.25, patterns=("plain", "checks", "camouflage", "pinstripes"))
    sleeve = (rng.uniform(-0.25, 0.05), rng.uniform(0.3, 0.75), rng.uniform(0.8, 1.4), rng.uniform(1.8, 2.0))
    trouser = (rng.uniform(0.2, 0.45), rng.uniform(0.5, 0.95), rng.uniform(1.2, 1.6), rng.uniform(1.8, 2.0))
    skirt = bool(rng.random() < 0.12)
    length = float(trouser[rng.choice(4, p=[0.15, 0.25, 0.1, 0.5])])
    cropped = rng.random() < 0.1
    hair_style = HAIR_STYLES[rng.choice(5, p=[0.07, 0.38, 0.2, 0.22, 0.13])]
    hair = _pick(rng, _HAIR_COLOURS) if hair_style != "cap" else _cloth(rng)
    return Appearance(
        skin=_jitter(rng, SKIN_TONES[rng.integers(len(SKIN_TONES))], 6),
        hair=_jitter(rng, hair, 8),
        hair_style=hair_style,
        top=top,
        bottom=bottom,
        sleeve=float(sleeve[rng.choice(4, p=[0.18, 0.42, 0.08, 0.32])]),
        hem=float(rng.uniform(0.25, 0.4)) if cropped else float(rng.uniform(-0.3, 0.12)),
        tucked=bool(rng.random() < 0.25),
        collar=float(rng.uniform(0.055, 0.1)),
        trouser=float(rng.uniform(0.5, 1.5)) if skirt else length,
        skirt=skirt,
        shoes=None if rng.random() < 0.12 else _jitter(rng, _pick(rng, _SHOES), 12),
        sole=_pick(rng, ((230, 230, 228), (40, 40, 40), (170, 140, 100))),
        socks=_jitter(rng, _pick(rng, _MUTED), 10) if rng.random() < 0.35 else None,
        beard=float(rng.choice([0, 0, 0, 0.5, 0.9])),
        fold_seed=int(rng.integers(2**31)),
    )


def _garment(rng: np.random.Generator, patterned: float, patterns: tuple[str, ...] = PATTERNS) -> Garment:
    pattern = str(rng.choice(patterns[1:])) if rng.random() < patterned else "plain"
    colours = _cloth(rng), _cloth(rng)
    return Garment(*colours, pattern, scale=float(rng.uniform(0.03, 0.12)), thickness=float(rng.uniform(0.004, 0.02)))


def _cloth(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.55:
        return _jitter(rng, _pick(rng, _MUTED), 14)
    return from_hsv(rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.95))


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    return palette[int(rng.integers(len(palette)))]


def _jitter(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    return rounded(np.asarray(colour) + rng.normal(0, spread) + rng.normal(0, spread / 2, 3))


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
        return crop_to(self._load(index), image_size, rng), self.paths[index].name

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
    return _resized(part, image_size, tall > height)


def _resized(image: np.ndarray, size: tuple[int, int], shrinks: bool) -> np.ndarray:
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=how)


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
        """A scene for a clip, and its name for the records. ``person_floor`` (T, 3) is where the person is, world, and
        ``floor`` the floor's height."""
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
    """(H, W, 3) float32 0 to 255: clutter, noise, a gradient or one plain colour."""
    height, width = image_size
    if kind == "clutter":
        return np.clip(clutter(rng, image_size), 0, 255).astype(np.float32)
    saturation = 0.05 if lab else 0.5
    first, second = (
        np.array(from_hsv(rng.random(), rng.uniform(0, saturation), rng.uniform(0.45, 0.9)), np.float32)
        for _ in range(2)
    )
    if kind == "noise":
        field = fractal(rng, 256, rng.uniform(0.8, 1.8), 3)
        field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(first + field * rng.uniform(15, 50), 0, 255).astype(np.float32)
    share = np.linspace(0, kind == "gradient", height, dtype=np.float32)[:, None, None]
    return np.broadcast_to(first + share * (second - first), (height, width, 3)).copy()


def place_background(
    picture: np.ndarray,
    box: tuple[float, float, float, float] | None,
    keypoints: np.ndarray,
    image_size: tuple[int, int],
) -> np.ndarray:
    """Cuts a picture so that the place where a person stood comes behind the rendered person.

    Args:
        picture: (H, W, 3) uint8; the cut-out is shrunk and moved as needed to stay inside.
        box: Where the person stood, pixels of the picture, or None for the middle.
        keypoints: (T, J, 2) pixels of the rendered person.
        image_size: (height, width) of the result, uint8.
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
    return _resized(picture[int(y) : int(y) + lines, int(x) : int(x) + columns], image_size, scale > 1)
