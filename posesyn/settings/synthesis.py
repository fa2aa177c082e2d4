"""How motions are made for challenging persons."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from posesyn.errors import InputError
from posesyn.settings.base import FREE, check_choices, check_least
from posesyn.types.looks import short_repr

MAX_FRAMES = 100_000  # 83 minutes; beyond this a length is taken for a mistake. Our own choice.


@dataclass(frozen=True)
class FittingSettings:
    """How a pose is fitted to keypoints; all values our own choice, set on validation subjects.

    Args:
        hypotheses: Poses kept at most.
        starts: Examples refined.
        yaw_steps, elevations: Views in which every example is compared: turns of the person, and heights of the camera
            above the horizon in radians.
        distinct: Metres by which two starts, and half of which two hypotheses, must differ (root mean square).
        iterations: Damped Gauss-Newton steps.
        keypoint_noise: Standard deviation of keypoints in units of the person's size: of annotators, and of what the
            skeletons call by one name.
        stand_in_noise: The same for keypoints that only approximate a joint (head top, thorax).
        prediction_noise: Metres by which predicted joints may be off before they are distrusted.
        prediction_reach: Metres from which on they count ever less (Geman-McClure).
        prediction_share: Weight of the distance to the prediction against that in the picture, when starts are sought.
        bone_noise: Metres.
        roll, elevation, elevation_noise: Radians; the camera's tilt. Its roll is zero up to ``roll``.
        closeness, closeness_noise: 1 / camera distance, 1 / metres.
        temperature: Of the choice between hypotheses when samples are drawn, in units of their cost.
    """

    hypotheses: int = 8
    starts: int = 16
    yaw_steps: int = 16
    elevations: tuple[float, ...] = (-0.05, 0.25, 0.6, 1.0)
    distinct: float = 0.1
    iterations: int = 10
    keypoint_noise: float = 0.02
    stand_in_noise: float = 0.06
    prediction_noise: float = 0.25
    prediction_reach: float = 0.2
    prediction_share: float = 0.02
    bone_noise: float = 0.015
    roll: float = 0.08
    elevation: float = 0.25
    elevation_noise: float = 0.3
    closeness: float = 0.4
    closeness_noise: float = 0.15
    temperature: float = 2.0

    __repr__ = short_repr


@dataclass(frozen=True)
class SynthesisSettings:
    """How motions are made. PoseSyn (arXiv 2503.13025) publishes none of these values: all are our own choice.

    Args:
        num_motions: Motions per challenging person.
        prior: File of the motion prior; the shipped one if not given.
        prefix_frames: Frames for which the wrong pose is repeated (T); a multiple of the prior's frames per token (4).
        max_frames: Longest motion, prefix included. Beyond the prior's 200 frames, motions are continued in windows
            (``long_motions``) and all have this length.
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
        steering: ``"2d"`` fits the wrong pose to the person's 2D truth and lets the motions pass through the
            fitted poses; ``"none"`` is the paper's plain way, which starts from the wrong pose.
        fitting: How poses are fitted to the keypoints.
        spread: How far a sample's pose may be drawn from its hypothesis, in standard deviations of what the picture
            leaves open: 0 not at all.
        blend_frames: Standard deviation in frames of the Gaussian with which a motion bends to its fitted pose; longer
            where the pose is so far off that it would move faster than 0.4 m/s on average. 0 bends one frame alone.
        photo_view: Share of the steered motions that ask the renderer for the photo's own view (``Motion.view``); the
            others may be seen from all sides.
        anchor: Where the pose of a steered motion stands. ``"middle"``: motion drawn from the pose is played backwards
            before it, and the prior goes on after it; ``"start"``: the motion begins with the pose, as in the paper. On
            validation subjects (4 px of noise) the frames rendered are 93 mm from the true pose (PA-MPJPE) with the
            former, 103 mm with the latter, 2 frames apart, and their acceleration around the pose is half.
        truncated_view: Share of the steered motions of persons whose body leaves the photo that ask for an image whose
            border cuts the body off likewise (``ViewRequest.truncation``).
    """

    num_motions: int = 8
    prior: Path | None = None
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
    batch_rows: int = field(default=64, metadata=FREE)
    steering: Literal["2d", "none"] = "2d"
    fitting: FittingSettings = field(default_factory=FittingSettings)
    spread: float = 0.2
    blend_frames: float = 6.0
    photo_view: float = 0.5
    anchor: Literal["middle", "start"] = "middle"
    truncated_view: float = 0.5

    __repr__ = short_repr

    def __post_init__(self) -> None:
        where = "SynthesisSettings"
        check_choices(self)
        check_least(self, num_motions=1, min_frames=0, oversample=1, smoothing=0, airborne=1, batch_rows=1, top_k=1)
        check_least(self, spread=0, blend_frames=0, photo_view=0, truncated_view=0)
        if not self.temperature > 0:
            raise InputError("temperature must be positive", where=where, got=self.temperature)
        if not self.yaw_search:
            raise InputError("yaw_search must not be empty", where=where, fix="(0.0,) searches nothing")
        for name in ("photo_view", "truncated_view"):
            if getattr(self, name) > 1:
                raise InputError(f"{name} is a share", where=where, expected="0 to 1", got=getattr(self, name))

    def checked(self, step: int, most_tokens: int) -> SynthesisSettings:
        """Itself, if a prior with ``step`` frames per token and so many tokens can do it; else :class:`InputError`."""
        where, prefix = "SynthesisSettings", self.prefix_frames
        if prefix < step or prefix % step:
            wanted = f"a positive multiple of {step}"
            raise InputError("prefix_frames must fill whole tokens", where=where, expected=wanted, got=prefix)
        if prefix > step * most_tokens:
            wanted = f"at most {step * most_tokens} frames (prefix + new frames)"
            raise InputError("the prefix is too long", where=where, expected=wanted, got=prefix)
        if not prefix <= self.max_frames <= MAX_FRAMES:
            wanted = f"{prefix} (the prefix) to {MAX_FRAMES} frames"
            raise InputError("max_frames is out of range", where=where, expected=wanted, got=self.max_frames)
        return replace(self, min_frames=min(self.min_frames, self.max_frames))
