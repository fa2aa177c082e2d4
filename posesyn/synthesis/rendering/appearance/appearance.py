"""What a rendered person looks like: skin, hair, clothes, and how they are drawn at random."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from posesyn.errors import InputError
from posesyn.settings.stages import check_style

Colour = tuple[int, int, int]
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "camouflage", "block", "logo", "raglan")
HAIR_STYLES = ("bald", "short", "medium", "long", "cap")

# sRGB of the Monk Skin Tone scale (skintone.google, CC BY 4.0), light to dark.
SKIN_TONES: tuple[Colour, ...] = (
    (246, 237, 228),
    (243, 231, 219),
    (247, 234, 208),
    (234, 218, 186),
    (215, 189, 150),
    (160, 126, 86),
    (130, 92, 67),
    (96, 65, 52),
    (58, 49, 42),
    (41, 36, 32),
)
# All palettes and chances below are our own choice: everyday hair, cloth and shoe colours.
_HAIR_COLOURS: tuple[Colour, ...] = (
    (22, 18, 16),
    (38, 27, 20),
    (62, 42, 28),
    (96, 64, 38),
    (140, 100, 58),
    (196, 160, 104),
    (120, 56, 30),
    (128, 126, 124),
    (200, 198, 194),
)
_MUTED: tuple[Colour, ...] = (
    (36, 38, 44),
    (64, 66, 72),
    (118, 118, 122),
    (190, 190, 188),
    (228, 226, 220),
    (44, 58, 92),
    (70, 92, 132),
    (112, 92, 70),
    (160, 140, 108),
    (74, 82, 58),
    (96, 40, 44),
)
_LAB_TOPS: tuple[Colour, ...] = ((60, 64, 72), (70, 92, 132), (190, 190, 188))
_LAB_BOTTOMS: tuple[Colour, ...] = ((36, 38, 44), (44, 58, 92))
_SHOES: tuple[Colour, ...] = (
    (30, 30, 32),
    (232, 232, 230),
    (110, 72, 46),
    (150, 150, 152),
    (170, 40, 40),
    (40, 70, 140),
)


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
    """Draws a look.

    Args:
        rng: Source of randomness; the same state gives the same look.
        style: ``"lab"`` draws from few, plain looks (short sleeves, long trousers, short hair); ``"wild"`` from all.
    """
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
    return Garment(
        _cloth(rng),
        _cloth(rng),
        pattern,
        scale=float(rng.uniform(0.03, 0.12)),
        thickness=float(rng.uniform(0.004, 0.02)),
    )


def _cloth(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.55:
        return _jitter(rng, _pick(rng, _MUTED), 14)
    return from_hsv(rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.95))


def from_hsv(hue: float, saturation: float, value: float) -> Colour:
    """Hue, saturation, value in 0 to 1 → sRGB 0 to 255."""
    sector = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    rgb = value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return _colour(rgb * 255)


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    return palette[int(rng.integers(len(palette)))]


def _jitter(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    return _colour(np.asarray(colour) + rng.normal(0, spread) + rng.normal(0, spread / 2, 3))


def _colour(rgb: np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in np.clip(np.round(rgb), 0, 255))
    return red, green, blue
