"""``posesyn train lifter``, ``posesyn train poseaug`` and ``posesyn evaluate lifter``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from posesyn.settings.lifters import LifterChoice, LifterSettings, PoseAugSettings, PosePairSettings


def train_lifter(
    data: PosePairSettings,
    out: Path,
    lifter: LifterChoice = LifterChoice(),
    settings: LifterSettings = LifterSettings(),
    validation: PosePairSettings | None = None,
    seed: int = 0,
    synthesized: Path | None = None,
    progress: bool = True,
) -> None:
    """Trains a 2D-to-3D lifter alone (also: posesyn train lifter).

    Args:
        data: Pose pairs to train on.
        out: Folder for weights and learning curves; an interrupted training continues from it.
        lifter: The network.
        settings: How it is trained.
        validation: What the best epoch is chosen on; a fifth of the subjects if not given. Never test data.
        seed: Decides the start and the order.
        synthesized: Clips that posesyn made (folder ``clips`` of ``posesyn run``), trained on beside the data.
        progress: Show a progress bar.
    """
    from posesyn.training.lifters.run import train_lifter as run_training

    network = _lifter(lifter, seed)
    pairs, held = _pairs(data, validation, seed, synthesized)
    _tell(run_training(network, pairs, out, settings, held, seed, progress))


def train_poseaug(
    data: PosePairSettings,
    out: Path,
    lifter: LifterChoice = LifterChoice(),
    settings: PoseAugSettings = PoseAugSettings(),
    validation: PosePairSettings | None = None,
    seed: int = 0,
    synthesized: Path | None = None,
    progress: bool = True,
) -> None:
    """Trains a lifter together with an augmentor that makes its poses harder (also: posesyn train poseaug).

    Args:
        data: Pose pairs with cameras to train on.
        out: Folder for weights and learning curves; an interrupted training continues from it.
        lifter: The network, best with the weights of ``posesyn train lifter``. ST-GCN is trained without dropout, as
            published, unless the options say otherwise.
        settings: How it is trained.
        validation: What the best epoch is chosen on; a fifth of the subjects if not given, and the last epoch is kept
            with ``settings.recipe official``. Never test data.
        seed: Decides order and noise.
        synthesized: Clips that posesyn made (folder ``clips`` of ``posesyn run``), trained on and augmented beside the
            data.
        progress: Show a progress bar.
    """
    from posesyn.training.lifters.run import train_poseaug as run_training

    network = _lifter(lifter, seed)
    if network.name == "stgcn" and "dropout" not in lifter.options:
        network = _lifter(replace(lifter, name="stgcn", options={**lifter.options, "dropout": 0.0}), seed)
    pairs, held = _pairs(data, validation, seed, synthesized)
    _tell(run_training(network, pairs, out, settings, held, seed, progress))


def evaluate_lifter(
    data: PosePairSettings, lifter: LifterChoice, flip: bool | None = None, out: Path | None = None
) -> None:
    """Scores a lifter on pose pairs: MPJPE, PA-MPJPE, PCK@150 and AUC (also: posesyn evaluate lifter).

    Args:
        data: Pose pairs; of Human3.6M S9 and S11 if no subjects are named. ``--data.format 3dhp`` reads PoseAug's
            MPI-INF-3DHP file.
        lifter: Checkpoint to score.
        flip: Average with the mirrored input. Not given: as published, with ``3dhp`` and not elsewhere.
        out: JSON file for the numbers.
    """
    from posesyn.data.pose_pairs.h36m import TEST_SUBJECTS
    from posesyn.data.pose_pairs.sources import load_pairs
    from posesyn.errors import InputError
    from posesyn.storage.files import write_json
    from posesyn.training.lifters.lifter import score

    if lifter.checkpoint is None:
        raise InputError("there is no lifter to score", where="evaluate lifter", fix="give --lifter.checkpoint")
    if data.format == "h36m" and data.subjects is None:
        data = replace(data, subjects=list(TEST_SUBJECTS))
    network, pairs = _lifter(lifter, 0), load_pairs(data)
    flipped = data.format == "3dhp" if flip is None else flip
    numbers = score(network, pairs, flipped)
    print(f"{network.name}, {len(pairs)} poses{', averaged with the mirrored input' if flipped else ''}")
    print("  ".join(f"{label} {numbers[key]:.1f}" for key, label in _SCORES.items()))
    if out is not None:
        write_json(out, {"lifter": network.name, "poses": len(pairs), "flip": flipped, **numbers})


_SCORES = {"mpjpe": "MPJPE [mm]", "pa_mpjpe": "PA-MPJPE [mm]", "pck150": "PCK@150 [%]", "auc": "AUC [%]"}


def _lifter(choice: LifterChoice, seed: int) -> Any:
    import torch

    from posesyn.estimators.lifters.lifter import load_lifter, make_lifter

    torch.manual_seed(seed)
    options = {name: int(value) if float(value).is_integer() else value for name, value in choice.options.items()}
    if choice.checkpoint is None:
        return make_lifter(choice.name or "mlp", **options)
    return load_lifter(choice.checkpoint, choice.name, **options)


def _pairs(
    data: PosePairSettings, validation: PosePairSettings | None, seed: int, synthesized: Path | None
) -> tuple[Any, Any]:
    from posesyn.data.pose_pairs.sources import load_pairs, pairs_of_clips, with_synthesised

    pairs, held = load_pairs(data, seed), None if validation is None else load_pairs(validation, seed)
    return with_synthesised(pairs, None if synthesized is None else pairs_of_clips(synthesized), seed=seed), held


def _tell(path: Path) -> None:
    from posesyn.storage.checkpoints import load_metadata

    found = load_metadata(path)
    if "selected_epoch" in found:
        print(f"epoch {found['selected_epoch'] + 1} was best on validation data: {found['validation_mpjpe_mm']:.1f} mm")
    print(f"weights: {path}")
