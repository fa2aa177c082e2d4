"""What the commands can be told; plain dataclasses that load nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from posesyn.errors import InputError
from posesyn.settings.training import FineTuningSettings
from posesyn.storage.files import read_json

if TYPE_CHECKING:  # jsonargparse runs these imports too: nothing that loads torch
    from posesyn.interfaces import Captioner, TargetEstimator
    from posesyn.types import Person


@dataclass(frozen=True)
class PipelineSettings:
    """What a run makes. Numbers of the paper where it states them (arXiv 2503.13025), else our own choice.

    Args:
        num_challenging: Persons with the largest error that get synthetic data (paper: 500).
        num_non_challenging: Persons with the smallest error that lend their appearance (paper: 200).
        num_motions: Motions sampled per challenging person; our own choice.
        frames_per_motion: Frames rendered per motion, on both sides of the frame that fits the 2D truth best. 8 motions
            of 7 frames come near the paper's 54 kept frames per person; the split is our own choice.
        frame_stride: Motion frames (20 per second) between two rendered ones; our own choice.
        shape_spread: Standard deviation of the betas of the rendered bodies (0: the mean body); our own choice.
        image_size: Side of the rendered square frames in pixels; our own choice.
        backgrounds: Folder of background photos; None takes the persons' own images and procedural rooms.
        filter_quantile: The paper's filter drops frames on which the estimator is further than a threshold from the
            label. The threshold is this quantile of the errors on the rendered clips, whose labels are exact; our own
            choice.
        fine_tuning: How the estimator is retrained; ``steps=0`` ends the run after the filter.
        batch_size: Persons per forward pass of the extraction.
        seed: Decides everything that is drawn.
    """

    num_challenging: int = 500
    num_non_challenging: int = 200
    num_motions: int = 8
    frames_per_motion: int = 7
    frame_stride: int = 8
    shape_spread: float = 0.8
    image_size: int = 256
    backgrounds: Path | None = None
    filter_quantile: float = 0.95
    fine_tuning: FineTuningSettings = field(default_factory=FineTuningSettings)
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "num_challenging",
            "num_non_challenging",
            "num_motions",
            "frames_per_motion",
            "frame_stride",
            "image_size",
            "batch_size",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"PipelineSettings.{name} must be at least 1", got=getattr(self, name))
        if not 0 < self.filter_quantile <= 1:
            raise InputError("PipelineSettings.filter_quantile must be in (0, 1]", got=self.filter_quantile)


@dataclass(frozen=True)
class DataSettings:
    """Where persons come from.

    Args:
        format: A published data set's format (docs, "Read published data sets"); ``rendered`` is a folder of clips that
            posesyn wrote.
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

    def __post_init__(self) -> None:
        for name in ("on_missing", "captions"):
            if name in self.options:
                own = {"captions": "image_captions"}.get(name, name)
                raise InputError(f"'{name}' is no reader option here", where="DataSettings", fix=f"set data.{own}")

    def load(self) -> Sequence[Person]:
        """The data set."""
        from posesyn.data.persons.formats import open_dataset

        persons = open_dataset(
            self.format,
            self.images,
            self.annotations,
            on_missing=self.on_missing,
            captions=self.image_captions,
            **self.options,
        )
        skipped = getattr(persons, "skipped", ())  # clips that posesyn wrote are complete
        if len(skipped):
            print(f"{len(skipped)} annotations were skipped, e.g. {skipped[0]}")
        return persons

    def identity(self) -> dict[str, str]:
        """What a continued run must find unchanged: the places, and the content of annotations and image captions."""
        found = {"format": self.format, "images": str(self.images), "annotations": str(self.annotations)}
        found |= {f"option_{name}": str(value) for name, value in sorted(self.options.items())}
        for name, path in (("annotations", self.annotations), ("image_captions", self.image_captions)):
            if path is not None and path.is_file():
                with open(path, "rb") as stream:
                    found[f"{name}_sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        return found

    def load_captions(self) -> dict[str, str]:
        """person_id → text."""
        if self.captions is None:
            return {}
        content = read_json(self.captions)
        if not isinstance(content, Mapping) or not all(isinstance(text, str) for text in content.values()):
            raise InputError("the caption file must map person ids to texts", where=self.captions)
        return dict(content)


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
        device: Where it runs, such as ``cpu`` or ``cuda``.
    """

    model: Path | None = None
    prompt: str | None = None
    keep_annotated: bool = False
    max_new_tokens: int = 40
    batch_size: int = 8
    device: str = "cpu"

    def load(self) -> Captioner | None:
        """The captioner, or None."""
        if self.model is None:
            return None
        from posesyn.synthesis.motion.captions import PROMPT, VisionCaptioner

        return VisionCaptioner(
            self.model,
            PROMPT if self.prompt is None else self.prompt,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            device=self.device,
            keep_annotated=self.keep_annotated,
        )

    def identity(self) -> dict[str, dict[str, Any]]:
        """What a continued run must find unchanged; nothing where no model is asked."""
        if self.model is None:
            return {}
        shown = ("prompt", "keep_annotated", "max_new_tokens")
        return {"captioner": {"model": str(self.model)} | {name: getattr(self, name) for name in shown}}


@dataclass(frozen=True)
class MotionSettings:
    """How motions are sampled, as far as commands can be told.

    The defaults are those of :class:`~posesyn.synthesis.motion.settings.SynthesisSettings`; all are our own choice.

    Args:
        prior: Motion prior to use; the shipped one if not given.
        steering: ``2d`` fits the wrong pose to the person's 2D truth first; ``none`` is the paper's plain way.
        max_frames: Longest motion at 20 frames per second.
        temperature: Divides the scores of the tokens; below 1 motions vary less.
        oversample: Candidates per motion; the ones that reproject best are kept.
    """

    prior: Path | None = None
    steering: Literal["2d", "none"] = "2d"
    max_frames: int = 100
    temperature: float = 1.0
    oversample: int = 1

    def load(self) -> Any:
        """The :class:`~posesyn.synthesis.motion.synthesizer.MotionSynthesizer` with its prior."""
        from posesyn.settings.synthesis import SynthesisSettings
        from posesyn.synthesis.motion.synthesizer import MotionSynthesizer

        settings = SynthesisSettings(
            steering=self.steering,
            max_frames=self.max_frames,
            temperature=self.temperature,
            oversample=self.oversample,
        )
        return MotionSynthesizer.from_pretrained(self.prior, settings=settings)

    def identity(self) -> dict[str, dict[str, Any]]:
        """What a continued run must find unchanged: the settings that are not the default's."""
        own = _changed(self)
        return {"motion": own} if own else {}


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

    def load(self) -> TargetEstimator:
        """The estimator with its weights."""
        from posesyn.estimators import load_estimator

        return load_estimator(self.name, checkpoint=self.checkpoint)


@dataclass(frozen=True)
class SelectionSettings:
    """How many persons are picked.

    Args:
        num_challenging: Persons with the largest error (paper: 500).
        num_non_challenging: Persons with the smallest error (paper: 200).
        batch_size: Persons per forward pass.
    """

    num_challenging: int = 500
    num_non_challenging: int = 200
    batch_size: int = 64


@dataclass(frozen=True)
class ScoringSettings:
    """How persons are scored and picked; see :class:`~posesyn.synthesis.extraction.ErrorExtractor` for each.

    Args:
        joint_weights: ``limbs``, ``uniform``, or weights by joint name.
        normalizer: What the error is divided by.
        occluded_weight: Factor on joints that are hidden or outside the image; 0 leaves them out.
        crowded_weight: The same for joints inside another person's box.
        selection: ``rank`` as in the paper; ``diverse`` picks among the largest errors those unlike each other.
        diversity_pool: How many times as many persons ``diverse`` picks from.
        others: Further estimators, whose disagreement with the examined one is written down.
        rank_by: ``error``, or ``disagreement`` with ``others``.
        keep: ``all`` scored persons stay in the report, or the ``selected`` only, for data sets of any size.
        num_threads: Threads that decode images ahead of the network.
        num_processes: Processes that do so in their place; 0 for none.
        error_budget: Unreadable images tolerated: a fraction of the persons, or a number.
    """

    joint_weights: Literal["limbs", "uniform"] | dict[str, float] = "limbs"
    normalizer: Literal["box", "area", "keypoints", "torso", "head"] = "box"
    occluded_weight: float = 1.0
    crowded_weight: float = 1.0
    selection: Literal["rank", "diverse"] = "rank"
    diversity_pool: int = 4
    others: list[EstimatorSettings] = field(default_factory=list)
    rank_by: Literal["error", "disagreement"] = "error"
    keep: Literal["all", "selected"] = "all"
    num_threads: int = 2
    num_processes: int = 0
    error_budget: int | float = 0.1

    def options(self) -> dict[str, Any]:
        """Arguments of the extractor, further estimators loaded."""
        options = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**options, "others": [one.load() for one in self.others]}

    def identity(self) -> dict[str, dict[str, Any]]:
        """What a continued run must find unchanged: the settings that are not the default's and change its result."""
        own = _changed(self, free=("num_threads", "num_processes", "error_budget"))
        return {"scoring": own} if own else {}


def _changed(settings: MotionSettings | ScoringSettings, free: tuple[str, ...] = ()) -> dict[str, str]:
    """Fields that are not the default's, as text, but those in ``free``."""
    usual = type(settings)()
    names = [one.name for one in fields(settings) if one.name not in free]
    return {name: str(getattr(settings, name)) for name in names if getattr(settings, name) != getattr(usual, name)}
