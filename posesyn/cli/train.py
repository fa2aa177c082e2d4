"""``posesyn train ...``: an estimator on clips, a lifter, a lifter with PoseAug, a motion prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from posesyn.cli import build
from posesyn.settings import (
    CaptionedMotionSettings,
    DataSettings,
    EstimatorSettings,
    FineTuningSettings,
    LifterChoice,
    LifterSettings,
    PoseAugSettings,
    PosePairSettings,
    PriorSettings,
    TrainerSettings,
)


def train_estimator(
    data: DataSettings,
    clips: Path,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    training: FineTuningSettings = FineTuningSettings(),
    trainer: TrainerSettings = TrainerSettings(),
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Fine-tunes an estimator on real persons and rendered clips.

    Args:
        data: The real data.
        clips: Folder of the clip store.
        out: Folder for the weights; an interrupted training continues from it.
        estimator: The estimator to train.
        training: How it is trained.
        trainer: Devices, strategy and precision.
        seed: Decides the order of the data.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.data.persons.rendered import RenderedClips
    from posesyn.storage.clip_store import ClipStore
    from posesyn.training.estimators.fine_tuning import fine_tune

    weights = fine_tune(
        build.estimator_of(estimator, device), build.persons_of(data), RenderedClips(ClipStore(clips)), out, training,
        seed=seed, name="train", progress=progress, trainer=build.trainer_of(trainer, device),
    )  # fmt: skip
    print(f"weights: {weights}\nload them: posesyn.load_estimator({estimator.name!r}, checkpoint={str(weights)!r})")


def train_lifter(
    data: PosePairSettings,
    out: Path,
    lifter: LifterChoice = LifterChoice(),
    training: LifterSettings = LifterSettings(),
    validation: PosePairSettings | None = None,
    seed: int = 0,
    synthesized: Path | None = None,
    trainer: TrainerSettings = TrainerSettings(),
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Trains a 2D-to-3D lifter alone.

    Args:
        data: Pose pairs to train on.
        out: Folder for weights and learning curves; an interrupted training continues from it.
        lifter: The network.
        training: How it is trained.
        validation: What the best epoch is chosen on; a fifth of the subjects if not given. Never test data.
        seed: Decides the start and the order.
        synthesized: Clips that posesyn made (folder ``clips`` of ``posesyn run``), trained on beside the data.
        trainer: Devices, strategy and precision.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.training.lifters.run import train_lifter as run_training

    network = build.lifter_of(lifter, seed)
    pairs, held = build.pairs_of(data, validation, seed, synthesized)
    _tell(run_training(network, pairs, out, training, held, seed, progress, trainer=build.trainer_of(trainer, device)))


def train_poseaug(
    data: PosePairSettings,
    out: Path,
    lifter: LifterChoice = LifterChoice(),
    training: PoseAugSettings = PoseAugSettings(),
    validation: PosePairSettings | None = None,
    seed: int = 0,
    synthesized: Path | None = None,
    trainer: TrainerSettings = TrainerSettings(),
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Trains a lifter together with an augmentor that makes its poses harder.

    Args:
        data: Pose pairs with cameras to train on.
        out: Folder for weights and learning curves; an interrupted training continues from it.
        lifter: The network, best with the weights of ``posesyn train lifter``. ST-GCN is trained without dropout, as
            published, unless the options say otherwise.
        training: How it is trained.
        validation: What the best epoch is chosen on; a fifth of the subjects if not given, and the last epoch is kept
            with ``training.recipe official``. Never test data.
        seed: Decides order and noise.
        synthesized: Clips that posesyn made (folder ``clips`` of ``posesyn run``), trained on and augmented beside the
            data.
        trainer: Devices, strategy and precision.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.training.lifters.run import train_poseaug as run_training

    network = build.lifter_of(lifter, seed)
    if network.name == "stgcn" and "dropout" not in lifter.options:
        network = build.lifter_of(replace(lifter, name="stgcn", options={**lifter.options, "dropout": 0.0}), seed)
    pairs, held = build.pairs_of(data, validation, seed, synthesized)
    _tell(run_training(network, pairs, out, training, held, seed, progress, trainer=build.trainer_of(trainer, device)))


def train_prior(
    data: CaptionedMotionSettings,
    out: Path,
    training: PriorSettings = PriorSettings(),
    trainer: TrainerSettings = TrainerSettings(),
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Trains a motion prior on captioned motions: tokeniser, residual codebooks, transformer.

    Args:
        data: Captioned motions.
        out: Folder for ``prior.safetensors`` and the stages; an interrupted training continues from it.
        training: Sizes and lengths.
        trainer: Devices, strategy and precision.
        seed: Decides everything that is drawn.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.training.prior.run import train_prior as run_training

    held = None if data.validation is None else build.captioned_motions(data, data.validation)
    motions = build.captioned_motions(data, data.split)
    place = build.trainer_of(trainer, device)
    path = run_training(motions, out, training, held, seed, progress, trainer=place)
    print(f"prior: {path}\nuse it: posesyn.MotionSynthesizer.from_pretrained({str(path)!r})")


def _tell(path: Path) -> None:
    from posesyn.storage.checkpoints import load_metadata

    found = load_metadata(path)
    if "selected_epoch" in found:
        print(f"epoch {found['selected_epoch'] + 1} was best on validation data: {found['validation_mpjpe_mm']:.1f} mm")
    print(f"weights: {path}")
