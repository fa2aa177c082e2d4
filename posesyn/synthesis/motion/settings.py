"""How motions are made for challenging persons."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from posesyn.errors import InputError
from posesyn.synthesis.motion.pose_refinement import LiftingSettings

MAX_FRAMES = 100_000  # 83 minutes; beyond this a length is taken for a mistake. Our own choice.


@dataclass(frozen=True)
class SynthesisSettings:
    """How motions are made. PoseSyn publishes none of these values (posesyn.md section 8): all are our own choice.

    Attributes:
        prefix_frames: Frames for which the wrong pose is repeated (T); a multiple of the prior's frames per token (4).
        max_frames: Longest motion, prefix included. Beyond the prior's 200 frames, motions are continued in windows
            (``continuation``) and all have this length.
        min_frames: END is not drawn earlier.
        temperature, top_k: Sampling, see ``SamplingOptions``.
        guidance: Classifier-free guidance; None takes the prior's own value.
        oversample: Candidates per motion asked for; the ones that reproject best are kept.
        yaw_search: Radians; the motion may be turned by these angles to fit the person's 2D truth.
        smoothing: Standard deviation in frames of the Gaussian that takes the jitter out of decoded joints.
        airborne: Frames for which a person's motion may stay off the floor; what floats for longer is lowered, climbing
            too (``grounding``). None leaves it; motions from captions alone are lowered only if ``from_captions`` is
            told to.
        batch_rows: Motions sampled at once.
        steering: ``"2d"`` lifts the wrong pose toward the person's 2D truth and lets the motions pass through the
            lifted poses; ``"none"`` is the paper's plain way, which starts from the wrong pose.
        lifting: How poses are lifted.
        spread: How far a sample's pose may be drawn from its hypothesis, in standard deviations of what the picture
            leaves open: 0 not at all.
        blend_frames: Standard deviation in frames of the Gaussian with which a motion bends to its lifted pose.
        photo_view: Share of the steered motions that ask the renderer for the photo's own view (``meta["camera_yaw"]``
            and ``meta["camera_elevation"]``); the others may be seen from all sides.
    """

    prefix_frames: int = 8
    max_frames: int = 100
    min_frames: int = 40
    temperature: float = 1.0
    top_k: int | None = None
    guidance: float | None = None
    oversample: int = 1
    yaw_search: tuple[float, ...] = (0.0, -0.26, 0.26, -0.52, 0.52)
    smoothing: float = 1.0
    airborne: int | None = 16
    batch_rows: int = 64
    steering: Literal["2d", "none"] = "2d"
    lifting: LiftingSettings = field(default_factory=LiftingSettings)
    spread: float = 0.4
    blend_frames: float = 6.0
    photo_view: float = 0.5

    def checked(self, step: int, most_tokens: int) -> SynthesisSettings:
        """Itself, if a prior with ``step`` frames per token and so many tokens can do it; else :class:`InputError`."""
        where = "SynthesisSettings"
        if self.prefix_frames < step or self.prefix_frames % step:
            raise InputError(
                "prefix_frames must fill whole tokens",
                where=where,
                expected=f"a positive multiple of {step}",
                got=self.prefix_frames,
            )
        if self.prefix_frames > step * most_tokens:
            raise InputError(
                "the prefix is too long",
                where=where,
                expected=f"at most {step * most_tokens} frames (prefix + new frames)",
                got=self.prefix_frames,
            )
        if not self.prefix_frames <= self.max_frames <= MAX_FRAMES:
            raise InputError(
                "max_frames is out of range",
                where=where,
                expected=f"{self.prefix_frames} (the prefix) to {MAX_FRAMES} frames",
                got=self.max_frames,
            )
        if self.oversample < 1 or self.batch_rows < 1 or not self.smoothing >= 0 or not self.yaw_search:
            raise InputError(
                "oversample and batch_rows must be positive, and yaw_search not empty", where=where, got=self
            )
        if self.airborne is not None and self.airborne < 1:
            raise InputError("airborne must be positive or None", where=where, got=self.airborne)
        if self.steering not in ("2d", "none"):
            raise InputError("unknown steering", where=where, expected="'2d' or 'none'", got=self.steering)
        if not (self.spread >= 0 and self.blend_frames >= 0 and 0 <= self.photo_view <= 1):
            raise InputError(
                "spread and blend_frames must not be negative, and photo_view a share",
                where=where,
                got=(self.spread, self.blend_frames, self.photo_view),
            )
        return replace(self, min_frames=min(self.min_frames, self.max_frames))
