"""What comes from outside: the data set, the estimator, a model that describes pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from posesyn.errors import InputError
from posesyn.settings.base import FREE, check_choices, check_least
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
