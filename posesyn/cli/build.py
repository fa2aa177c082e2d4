"""From settings to objects: opens the files that the command line names, and says what was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posesyn.errors import InputError
from posesyn.settings import (
    CaptionedMotionSettings,
    CaptionerSettings,
    DataSettings,
    EstimatorSettings,
    LifterChoice,
    PosePairSettings,
    TrainerSettings,
)
from posesyn.settings.base import identity

if TYPE_CHECKING:  # jsonargparse runs these imports too: nothing that loads torch
    from posesyn.interfaces import Captioner, KeypointDetector, TargetEstimator
    from posesyn.types import ErrorReport, Motion, Person


def persons_of(data: DataSettings) -> Sequence[Person]:
    """The data set; annotations that it skips are counted aloud."""
    from posesyn.data.persons.formats import open_dataset

    options: dict[str, Any] = {"on_missing": data.on_missing, "captions": data.image_captions, **data.options}
    persons = open_dataset(data.format, data.images, data.annotations, **options)
    skipped = getattr(persons, "skipped", ())  # clips that posesyn wrote are complete
    if len(skipped):
        print(f"{len(skipped)} annotations were skipped, e.g. {skipped[0]}")
    return persons


def data_identity(data: DataSettings) -> dict[str, str]:
    """What a continued run must find unchanged: the places, and the content of annotations and image captions."""
    found = {"format": data.format, "images": str(data.images), "annotations": str(data.annotations)}
    found |= {f"option_{name}": str(value) for name, value in sorted(data.options.items())}
    for name, path in (("annotations", data.annotations), ("image_captions", data.image_captions)):
        if path is not None and path.is_file():
            with open(path, "rb") as stream:
                found[f"{name}_sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def captions_of(data: DataSettings) -> dict[str, str]:
    """The user's own words: person_id → text."""
    from posesyn.storage.files import read_json

    if data.captions is None:
        return {}
    content = read_json(data.captions)
    if not isinstance(content, Mapping) or not all(isinstance(text, str) for text in content.values()):
        raise InputError("the caption file must map person ids to texts", where=data.captions)
    return dict(content)


def estimator_of(estimator: EstimatorSettings, device: str = "auto") -> TargetEstimator:
    """The estimator with its weights."""
    from posesyn.estimators import load_estimator

    return load_estimator(estimator.name, checkpoint=estimator.checkpoint, device=device)


def detector_of(name: str | None, device: str = "auto") -> KeypointDetector | None:
    """The detector of that name with its weights, or None."""
    from posesyn.detectors import load_detector

    return None if name is None else load_detector(name, device=device)


def trainer_of(trainer: TrainerSettings, device: str) -> TrainerSettings:
    """What the Trainer is told; a named device wins over ``trainer``'s own."""
    if device == "auto":
        return trainer
    place = TrainerSettings.on(device)
    return replace(trainer, accelerator=place.accelerator, devices=place.devices)


def captioner_of(captioner: CaptionerSettings, device: str = "auto") -> Captioner | None:
    """The model that describes persons, or None."""
    if captioner.model is None:
        return None
    from posesyn.geometry.devices import resolve_device
    from posesyn.synthesis.motion.captions import PROMPT, VisionCaptioner

    prompt, place = PROMPT if captioner.prompt is None else captioner.prompt, str(resolve_device(device))
    asked = {name: getattr(captioner, name) for name in ("max_new_tokens", "batch_size", "keep_annotated")}
    return VisionCaptioner(captioner.model, prompt, device=place, **asked)


def captioner_identity(captioner: CaptionerSettings) -> dict[str, Any]:
    """What a continued run must find unchanged; nothing where no model is asked."""
    return {} if captioner.model is None else {"captioner": identity(captioner)}


def motions_of(place: Path) -> list[Motion]:
    """Motion files of a folder, also of the folder ``motions`` in it, or one BVH file."""
    from posesyn.data.motions.bvh import bvh_to_motion
    from posesyn.pipeline.stages import load_motions

    if place.is_file():
        return [bvh_to_motion(place)]
    return load_motions(place / "motions" if (place / "motions").is_dir() else place)


def report_of(extraction: Path, data: DataSettings | None) -> ErrorReport:
    """What ``posesyn extract`` found, with the persons of its data set."""
    from posesyn.storage.reports import load_report

    if data is None:
        raise InputError("an extraction needs the data set", where=extraction, fix="give --data beside --extraction")
    return load_report(extraction, persons_of(data))


def captioned_motions(data: CaptionedMotionSettings, split: str | None) -> Sequence[Any]:
    """Motions of one part of a folder, as the training of a motion prior takes them."""
    from posesyn.data.motions.captions import load_mocap
    from posesyn.training.prior.sources import HumanML3DClips

    if data.format == "humanml3d":
        return HumanML3DClips(data.folder, split or "train")
    return load_mocap(data.folder, split, mirrored=data.mirrored)


def lifter_of(choice: LifterChoice, seed: int) -> Any:
    """A lifter with the weights of a file, or with random ones drawn from ``seed``."""
    import torch

    from posesyn.estimators.lifters import load_lifter, make_lifter

    torch.manual_seed(seed)
    options = {name: int(value) if float(value).is_integer() else value for name, value in choice.options.items()}
    if choice.checkpoint is None:
        return make_lifter(choice.name or "mlp", **options)
    return load_lifter(choice.checkpoint, choice.name, **options)


def pairs_of(
    data: PosePairSettings, validation: PosePairSettings | None, seed: int, synthesized: Path | None
) -> tuple[Any, Any]:
    """Pose pairs to train on, and those that the best epoch is chosen on or None."""
    from posesyn.data.pose_pairs.sources import load_pairs, pairs_of_clips, with_synthesised

    pairs, held = load_pairs(data, seed), None if validation is None else load_pairs(validation, seed)
    return with_synthesised(pairs, None if synthesized is None else pairs_of_clips(synthesized), seed=seed), held
