"""What comes from outside (data set, estimator, captioner), what the stages are told that find persons, draw clips and
judge them, and what a whole run is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from posesyn.errors import InputError
from posesyn.settings.base import FREE, check_choices, check_least
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.settings.training import FineTuningSettings
from posesyn.types.looks import short_repr


@dataclass(frozen=True)
class DataSettings:
    """Where persons come from.

    Args:
        format: ``coco``, ``mpii``, ``lspet``, ``jhmdb``, ``3dpw``, ``emdb``, ``3dhp-train``, ``3dhp-test``, ``spin``,
            ``bedlam``, ``agora`` (docs, "Read published data sets"); ``rendered`` is a folder of clips that posesyn
            wrote; or a name that is registered or announced under ``posesyn.data_formats``.
        annotations: The annotation file or folder (not for ``rendered``, ``emdb``, ``3dhp-train``, ``3dhp-test``).
        images: The image folder (``rendered``: the folder of clips; ``emdb`` and ``3dhp-*``: the data set's root).
        on_missing: Whether a listed image that is not there stops the run or is skipped and counted.
        captions: JSON file, person id → text: your own words, which win over every other caption.
        image_captions: The data set's captions: COCO's captions json of the same images, for ``mpii`` a JSON file
            file name → text, for ``jhmdb`` action → text.
        options: What the format's reader takes beside these, by name: ``stride``, ``split``, ``on_bad``,
            ``min_keypoints`` ... (docs, "Read published data sets"). On the command line
            ``--data.options.stride 5``.
    """

    images: Path
    annotations: Path | None = None
    format: str = "coco"
    on_missing: Literal["error", "skip"] = "error"
    captions: Path | None = None
    image_captions: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("on_missing", "captions"):
            if name in self.options:
                own = {"captions": "image_captions"}.get(name, name)
                raise InputError(f"'{name}' is no reader option here", where="DataSettings", fix=f"set data.{own}")


@dataclass(frozen=True)
class EstimatorSettings:
    """Which estimator.

    Args:
        name: ``hmr_small`` (shipped), another built-in name, or one that a package registered under the entry point
            group ``posesyn.estimators``.
        checkpoint: Weights to load; the shipped ones if not given.
    """

    name: str = "hmr_small"
    checkpoint: Path | None = None

    __repr__ = short_repr


@dataclass(frozen=True)
class CaptionerSettings:
    """A vision-language model that puts the challenging persons into words.

    Your own text (``DataSettings.captions``) wins over the model's, and the model's over the data set's captions. The
    paper captions with such a model and names neither it nor its prompt; all values are our own choice.

    Args:
        model: Local folder of a model that transformers runs as ``image-text-to-text``; nobody is asked if not given.
        prompt: What it is asked; posesyn's own question if not given.
        keep_annotated: Do not ask about persons whom the data set describes.
        max_new_tokens: Length of an answer at most.
        batch_size: Persons at once.
    """

    model: Path | None = None
    prompt: str | None = None
    keep_annotated: bool = False
    max_new_tokens: int = 40
    batch_size: int = field(default=8, metadata=FREE)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_least(self, max_new_tokens=1, batch_size=1)


Normalizer = Literal["box", "area", "keypoints", "torso", "head"]
Style = Literal["wild", "lab"]


def check_style(style: str) -> None:
    """Raises InputError unless ``style`` names a family of appearances."""
    if style not in get_args(Style):
        raise InputError("unknown style", where="rendering", expected=" or ".join(get_args(Style)), got=style)


@dataclass(frozen=True)
class ExtractionSettings:
    """How persons are scored and picked. PoseSyn (arXiv 2503.13025) gives 500 and 200; the rest is our own choice.

    Args:
        num_challenging: Persons with the largest error, which get synthetic data (paper: 500).
        num_non_challenging: Persons with the smallest error, which lend their appearance (paper: 200). No person is in
            both: with fewer persons than the two together they are divided in that proportion.
        joint_weights: ``limbs``, ``uniform``, or weights by joint name.
        normalizer: What the error is divided by. Persons that do not show their torso or head are skipped where it is
            that.
        min_joints: Persons with fewer comparable joints are skipped. A sum over few joints is small whatever they do.
        reduce: ``sum`` over the joints, as in the paper, or their ``mean``. The sum is divided by the weights of all
            joints of the data set's skeleton, so that for a fully annotated person the two are the same; joints without
            annotation count nothing.
        occluded_weight: Factor on the weight of joints that are marked as hidden or lie outside the image; 0 leaves
            them out, 1 (the paper's) treats all alike.
        crowded_weight: The same for joints inside another person's box.
        selection: ``rank`` takes the largest errors, as the paper does; ``diverse`` picks among the largest errors
            those unlike each other; ``random`` takes anybody, the control of every clever choice; ``mixed`` takes half
            of them by rank and half at random.
        selection_seed: Decides who is taken at random.
        diversity_pool: How many times as many persons ``diverse`` picks from.
        rank_by: ``error`` as the paper; ``lifted``, the distance in mm between the predicted pose and those that
            explain the 2D truth, which sees what is wrong in depth (0.2 s a person; persons with too few limb joints
            are skipped); or ``disagreement`` with further estimators, which asks for no annotation but a box.
        keep: ``all`` scored persons stay in the report; ``selected`` keeps only the two selections in memory, for data
            sets of any size.
        batch_size: Persons per call of the estimator.
        num_threads: Threads that decode images ahead of it.
        num_processes: Processes that do so in place of the threads; 0 for none.
        error_budget: Unreadable images tolerated: a fraction of the persons (float, at least one) or a number (int).
    """

    num_challenging: int = 500
    num_non_challenging: int = 200
    joint_weights: Literal["limbs", "uniform"] | dict[str, float] = "limbs"
    normalizer: Normalizer = "box"
    min_joints: int = 8
    reduce: Literal["sum", "mean"] = "sum"
    occluded_weight: float = 1.0
    crowded_weight: float = 1.0
    selection: Literal["rank", "diverse", "random", "mixed"] = "rank"
    selection_seed: int = 0
    diversity_pool: int = 4
    rank_by: Literal["error", "lifted", "disagreement"] = "error"
    keep: Literal["all", "selected"] = "all"
    batch_size: int = field(default=64, metadata=FREE)
    num_threads: int = field(default=2, metadata=FREE)
    num_processes: int = field(default=0, metadata=FREE)
    error_budget: int | float = field(default=0.1, metadata=FREE)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, num_challenging=1, num_non_challenging=0, min_joints=1, occluded_weight=0, crowded_weight=0)
        check_least(self, diversity_pool=1, batch_size=1, num_threads=1, num_processes=0)
        if not isinstance(self.joint_weights, (str, Mapping)):
            raise InputError("joint_weights must be a name or weights by joint", got=type(self.joint_weights).__name__)


@dataclass(frozen=True)
class RenderingSettings:
    """What is drawn of the motions, and how; PoseSyn states none of these values: our own choice.

    The first four say what the stage hands to the renderer (:meth:`AnimationRenderer.prepare`); a motion that is given
    to :meth:`AnimationRenderer.render` directly is drawn as it is.

    Args:
        frames_per_motion: Frames rendered per motion, on both sides of the frame that fits the 2D truth best; None
            takes all. 8 motions of 7 frames come near the paper's 54 kept frames per person.
        frame_stride: Motion frames (20 per second) between two rendered ones, at most.
        max_drift: Metres by which the rendered frames may be off the anchor frame's pose on average (PA-MPJPE): the
            stride shrinks, to 1 at least, where a motion passes its anchor faster. None leaves the stride. On
            validation subjects (4 px of noise) frames 1 / 2 / 3 apart are 83 / 91 / 105 mm from the true pose and
            29 / 58 / 80 mm from each other; with a stride of 2 and this bound 84 and 36.
        shape_spread: Standard deviation of the betas of the rendered bodies, drawn per motion; 0 leaves the motion's
            own body.
        backend: ``mesh``, or a name that is registered or announced under ``posesyn.render_backends``.
        image_size: Side of the square frames in pixels.
        backgrounds: Folder of background photographs; None takes the persons' own images and procedural rooms.
        style: ``wild`` (all appearances, scenes, lights and cameras) or ``lab`` (few and plain).
    """

    frames_per_motion: int | None = 7
    frame_stride: int = 2
    max_drift: float | None = 0.04
    shape_spread: float = 0.8
    backend: str = "mesh"
    image_size: int = 256
    backgrounds: Path | None = None
    style: Style = "wild"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, frames_per_motion=1, frame_stride=1, max_drift=0, shape_spread=0, image_size=1)


@dataclass(frozen=True)
class FilterSettings:
    """Which frames are kept; all values are our own choice, since PoseSyn does not state its threshold.

    Args:
        quantile: Share of right labels that the judge must let pass where its threshold is calibrated. That is done on
            pictures that are rendered for it alone, with right and with wrong labels; not where ``threshold`` is given.
        threshold: Metres that the judging estimator may be off, or the least agreement of a judging detector.
        reduce: Whether an estimator's error is the ``mean`` or the ``sum`` over joints (the paper sums).
        measure: How a detector's agreement is measured.
        min_inside: Body joints, of 22, that must lie inside the image.
        batch_size: Frames per call of the judge.
        rule: Who judges beside the labels themselves. ``detector``: a detector of 2D keypoints; ``labels``: nobody;
            ``estimator``: the estimator that is improved, the paper's rule, which drops what is hard for it with what
            is wrong. ``auto``: a detector if one is given, else nobody where the pictures are rendered meshes, whose
            labels are exact, and the estimator where they are not.
        calibration_frames: Pictures rendered for the calibration.
        calibration_seed: Decides them and their wrong labels.
    """

    quantile: float = 0.95
    threshold: float | None = None
    reduce: Literal["mean", "sum"] = "mean"
    measure: Literal["oks", "pck"] = "oks"
    min_inside: int = 8
    batch_size: int = field(default=32, metadata=FREE)
    rule: Literal["auto", "labels", "detector", "estimator"] = "auto"
    calibration_frames: int = 72
    calibration_seed: int = 0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, threshold=0, calibration_frames=1, calibration_seed=0, min_inside=0, batch_size=1)
        if not 0 < self.quantile <= 1:
            raise InputError("quantile must be in (0, 1]", where="FilterSettings", got=self.quantile)


@dataclass(frozen=True)
class RunSettings:
    """A run: one part per stage, each the same object that the stage takes when it is used alone.

    Args:
        extraction: Who is picked.
        synthesis: How their motions are made.
        rendering: What is drawn of them.
        filtering: Which frames are kept.
        training: How the estimator is retrained; ``steps=0`` ends the run after the filter.
        seed: Decides everything that is drawn.
        rounds: How often the chain is gone through. Each round after the first mines with the estimator as the round
            before left it, goes on from its weights and trains on the clips of all rounds so far. A finished run may be
            given more. PoseSyn has one round: our own choice.
        control: Also train, from the same weights, in the same way and as long, on the real persons alone.
        lifted_labels: Real persons without 3D labels get the pose that was fitted to their 2D truth, used as far as it
            can be trusted (:mod:`posesyn.data.persons.lifted`; about 0.2 s a person).
    """

    extraction: ExtractionSettings = field(default_factory=ExtractionSettings)
    synthesis: SynthesisSettings = field(default_factory=SynthesisSettings)
    rendering: RenderingSettings = field(default_factory=RenderingSettings)
    filtering: FilterSettings = field(default_factory=FilterSettings)
    training: FineTuningSettings = field(default_factory=FineTuningSettings)
    seed: int = 0
    rounds: int = field(default=1, metadata=FREE)
    control: bool = field(default=False, metadata=FREE)
    lifted_labels: bool = False

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_least(self, seed=0, rounds=1)
        asked = {"rounds": self.rounds > 1, "control": self.control, "lifted_labels": self.lifted_labels}
        for name, wanted in asked.items():
            if wanted and self.training.steps == 0:
                what = f"{name} without a training makes no sense"
                raise InputError(what, where="RunSettings", got="0 steps", fix="raise training.steps")
