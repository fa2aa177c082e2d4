"""``posesyn train lifter`` and ``posesyn train poseaug``."""

from __future__ import annotations

from pathlib import Path

from posesyn.training.poseaug_settings import LifterChoice, LifterSettings, PoseAugSettings, PosePairSettings


def train_lifter(
    data: PosePairSettings,
    out: Path,
    lifter: LifterChoice = LifterChoice(),
    settings: LifterSettings = LifterSettings(),
    validation: PosePairSettings | None = None,
    seed: int = 0,
    synthesized: Path | None = None,
) -> None:
    """Trains a 2D-to-3D lifter alone (also: posesyn train lifter).

    Args:
        data: Pose pairs to train on.
        out: Folder for weights and learning curves; an interrupted training continues from it.
        lifter: The network.
        settings: How it is trained.
        validation: What the best epoch is chosen on; a fifth of the subjects if not given. Never test data.
        seed: Decides start, split and order.
        synthesized: Clips that posesyn made (folder ``clips`` of ``posesyn run``), trained on beside the data.
    """
    from posesyn.training.lifter import train_lifter as run_training

    network, pairs, held = _lifting(lifter, data, validation, seed, synthesized)
    print(f"weights: {run_training(network, pairs, out, settings, held, seed)}")


def train_poseaug(
    data: PosePairSettings,
    out: Path,
    lifter: LifterChoice = LifterChoice(),
    settings: PoseAugSettings = PoseAugSettings(),
    validation: PosePairSettings | None = None,
    seed: int = 0,
    synthesized: Path | None = None,
) -> None:
    """Trains a lifter together with an augmentor that makes its poses harder (also: posesyn train poseaug).

    Args:
        data: Pose pairs with cameras to train on.
        out: Folder for weights and learning curves; an interrupted training continues from it.
        lifter: The network, best with the weights of ``posesyn train lifter``.
        settings: How it is trained.
        validation: What the best epoch is chosen on; a fifth of the subjects if not given. Never test data.
        seed: Decides split, order and noise.
        synthesized: Clips that posesyn made (folder ``clips`` of ``posesyn run``), trained on and augmented beside the
            data.
    """
    from posesyn.training.poseaug_run import train_poseaug as run_training

    network, pairs, held = _lifting(lifter, data, validation, seed, synthesized)
    print(f"weights: {run_training(network, pairs, out, settings, held, seed)}")


def _lifting(
    choice: LifterChoice,
    data: PosePairSettings,
    validation: PosePairSettings | None,
    seed: int,
    synthesized: Path | None,
) -> tuple:
    import torch

    from posesyn.data.pose_pair_sources import pairs_of_clips
    from posesyn.estimators.lifters.lifter import official_weights
    from posesyn.estimators.lifters.registry import make_lifter
    from posesyn.training.poseaug_data import load_pairs, with_synthesised

    torch.manual_seed(seed)
    options = {name: value if name == "dropout" else int(value) for name, value in choice.options.items()}
    network = make_lifter(choice.name, **options)
    if choice.checkpoint is not None:
        network.load_state(official_weights(choice.checkpoint), where=choice.checkpoint)
    pairs, held = load_pairs(data, seed), None if validation is None else load_pairs(validation, seed)
    if synthesized is not None:
        if held is None:  # the best epoch is chosen on recorded people only
            pairs, held = pairs.split_by_subject(seed=seed)
        pairs = with_synthesised(pairs, pairs_of_clips(synthesized), seed=seed)
    return network, pairs, held
