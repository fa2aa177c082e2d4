"""How crops are disturbed in training: one disturbance, and the rule that they are drawn by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posesyn.interfaces import EstimatorSpec
from posesyn.types.looks import short_repr


@dataclass(frozen=True, repr=False)
class CropVariation:
    """One way to disturb a crop.

    Attributes:
        flip: Mirror left and right.
        rotation: Radians by which the picture turns clockwise as seen.
        scale: Factor on the box size; above 1 the person becomes smaller.
        shift: Movement of the person in the crop as a fraction of the crop's (width, height).
        colour: Factor per RGB channel.
        upright: Cut out the person's box even where the region around the body is wanted.
    """

    flip: bool = False
    rotation: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    upright: bool = False

    __repr__ = short_repr


@dataclass(frozen=True)
class CropAugmentation:
    """How strongly crops are disturbed in training.

    Defaults: flip, rotation and scale as SPIN, 3DCrowdNet and HMR2 agree (their repositories: flip 0.5,
    30 degrees clipped at 60 applied with probability 0.6, scale 25 %); shift and colour as HMR2 (0.02 with
    probability 0.5; 20 %).

    Attributes:
        flip: Probability.
        rotation_deg, rotation_probability: Standard deviation (clipped at twice its value) and how often it is applied.
        scale: Standard deviation, clipped at its own value.
        shift, shift_probability: Standard deviation, clipped at its own value, and how often it is applied.
        colour: Half width of the uniform factor per channel.
        upright: Probability of a crop of the box where the spec's region is the body: what a network sees at first
            whose detector has found nobody, or turned them wrongly.
    """

    flip: float = 0.5
    rotation_deg: float = 30.0
    rotation_probability: float = 0.6
    scale: float = 0.25
    shift: float = 0.02
    shift_probability: float = 0.5
    colour: float = 0.2
    upright: float = 0.0

    @classmethod
    def of_spec(cls, spec: EstimatorSpec) -> CropAugmentation:
        """The defaults; for a network that sees regions around the body what these scatter by in use.

        Around the region of the true joints those of BlazePose turn by 5 to 7 degrees, 10 to 15 % in size and 3 % in
        place (lite and full, persons of LSPET train; measured here). Twice that for turns, as its first look needs.
        """
        if spec.region != "body":
            return cls()
        return cls(
            rotation_deg=12.0, rotation_probability=1.0, scale=0.15, shift=0.03, shift_probability=1.0, upright=0.3
        )

    def sample(self, rng: np.random.Generator) -> CropVariation:
        """Draws one variation; the same number of draws each time, so that samples stay comparable."""
        flip, turn, move = rng.random(3)
        normal = rng.standard_normal(4)
        colour = rng.uniform(1 - self.colour, 1 + self.colour, 3)
        rotation = np.deg2rad(self.rotation_deg) * float(np.clip(normal[0], -2, 2))
        shift = tuple(float(x) for x in self.shift * np.clip(normal[2:], -1, 1))
        # What draws on from the same generator must not depend on an option that is off.
        box = rng.random() if self.upright else 1.0
        return CropVariation(
            flip=bool(flip < self.flip),
            rotation=rotation if turn < self.rotation_probability else 0.0,
            scale=1.0 + self.scale * float(np.clip(normal[1], -1, 1)),
            shift=shift if move < self.shift_probability else (0.0, 0.0),
            colour=tuple(float(x) for x in colour),
            upright=bool(box < self.upright),
        )
