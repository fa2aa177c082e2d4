"""Numbers of lifter and PoseAug trainings, apart from the code so that the command line shows them without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from posesyn.errors import InputError
from posesyn.types.looks import short_repr

Recipe = Literal["default", "official"]
# Focal length of the Human3.6M cameras in half image widths: 1145 px in pictures of 1000 px.
FOCAL = 2.29


@dataclass(frozen=True)
class CameraRig:
    """Cameras around a person. Each sequence is seen by ``count`` of them, each looking at the person's middle place.

    Attributes:
        heights: Range of heights above the floor, metres.
        distances: Range of horizontal distances, metres.
        count: Cameras per sequence.
        azimuths: Directions in radians, the same for all sequences as in a studio; None draws them.
        aim: Range of heights looked at, metres.
        focal: Range of focal lengths in half image widths.
        aspect: Image height / width.
    """

    heights: tuple[float, float] = (1.4, 1.7)
    distances: tuple[float, float] = (4.0, 6.0)
    count: int = 4
    azimuths: tuple[float, ...] | None = None
    aim: tuple[float, float] = (0.8, 1.0)
    focal: tuple[float, float] = (FOCAL, FOCAL)
    aspect: float = 1.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name in ("heights", "distances", "aim", "focal"):
            low, high = getattr(self, name)
            least = 0 if name in ("distances", "focal") else -math.inf
            if not (math.isfinite(low) and low <= high < math.inf and low > least):
                raise InputError(f"CameraRig.{name} must be a range low <= high", got=(low, high))
        if self.count < 1 or (self.azimuths is not None and not self.azimuths):
            raise InputError("a rig needs at least one camera", where="CameraRig", got=self.count)


@dataclass(frozen=True)
class LifterSettings:
    """Training of a lifter alone. Defaults as published (jfzhang95/PoseAug, function_baseline/config.py).

    Args:
        epochs: Passes over the data; None takes the published 50, and 100 for SemGCN.
        batch_size: Poses per step.
        learning_rate: Of Adam; None takes the lifter's published one.
        decay: Factor applied at step 1 and after every ``decay_steps``.
        decay_steps: See above.
        clip: Largest gradient norm.
        schedule: ``step`` as published, or ``linear``, PoseAug's own 1 - e / (epochs + 1), to go on from a baseline.
        mirror: Show half of the poses mirrored; the official code does not.
    """

    epochs: int | None = None
    batch_size: int = 1024
    learning_rate: float | None = None
    decay: float = 0.96
    decay_steps: int = 100_000
    clip: float = 1.0
    schedule: Literal["step", "linear"] = "step"
    mirror: bool = False

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "decay_steps", "clip", *(("epochs",) if self.epochs is not None else ()))


@dataclass(frozen=True)
class PoseAugSettings:
    """Training of augmentor, discriminators and lifter together.

    ``recipe="official"`` is the published code with its quirks: the lifter stays in train mode during GAN steps (noise
    in the feedback, drifting normalisation), fakes come from the GAN pass and only coordinates above +1 are filtered,
    no average of the augmentor, no penalty, no rescue, and the last epoch is kept unless test data is passed for the
    selection. ``"default"`` freezes the lifter during GAN steps, filters both bounds and Z > 0.2 m, draws fakes from
    the averaged augmentor, penalises the discriminators' gradient, and goes back to the last healthy state after a
    collapse.

    Args:
        recipe: See above.
        epochs, batch_size: As published.
        warmup: Epochs that train the GAN only.
        learning_rate: Of Adam for augmentor and discriminators.
        lifter_rate: Of Adam for the lifter; None takes 1e-4, and 1e-3 for SemGCN. In the default recipe it falls over
            the lifter's own passes over the data, in the official one with the epochs from the warm-up on.
        clip: Largest gradient norm of each network.
        discriminate_every: Discriminator steps on every so many iterations (``df``).
        pool: Size of the fake pools.
        gan_share: Share of the data that an epoch's GAN pass takes, drawn anew every epoch: the augmentor needs fewer
            steps than the lifter (default recipe).
        bone_swap: Give the poses other subjects' bone lengths at the start of every epoch.
        weight_2d, weight_3d, weight_change: Of the augmentor's losses; zero for an ablation.
        weight_spread: Of the cost of views that are all alike (default recipe with ``camera_views``).
        feedback: Whether the lifter's error steers the augmentor.
        angles, lengths, transform: The augmentor's steps.
        camera_views: Rotations are those of a camera that moves within
            :class:`posesyn.synthesis.augmentation.ViewRange`, and D2D learns from the data seen by such cameras;
            False leaves both as published (default recipe).
        human_range: Fakes with a joint beyond the range it has in the data keep the data's bone angles (default recipe;
            needs 100 poses).
        mixed: Lifter steps on a batch of data and as many fakes beside it instead of a pass over fakes and one over
            data (default recipe). The number of steps is the same, and the data's part of a step is that of a training
            without fakes.
        fake_share: Share of the fakes in the loss of a mixed batch (default recipe). Our own choice: more
            gains elsewhere and costs the fit to the training's own cameras (docs/benchmarks.md).
        ema: Share of the old average per GAN step (default recipe).
        gradient_penalty: Weight of R1 on real poses (default recipe).
        spectral: Spectral normalisation of the discriminators (default recipe).
        rescue: Restore the last healthy state after a collapse (default recipe).
    """

    recipe: Recipe = "default"
    epochs: int = 50
    batch_size: int = 1024
    warmup: int = 2
    learning_rate: float = 1e-4
    lifter_rate: float | None = None
    clip: float = 1.0
    discriminate_every: int = 2
    pool: int = 4096
    gan_share: float = 1.0
    bone_swap: bool = True
    weight_2d: float = 1.0
    weight_3d: float = 6.0
    weight_change: float = 3.0
    weight_spread: float = 10.0
    feedback: bool = True
    angles: bool = True
    lengths: bool = True
    transform: bool = True
    camera_views: bool = True
    human_range: bool = True
    mixed: bool = True
    fake_share: float = 0.4
    ema: float = 0.99
    gradient_penalty: float = 0.1
    spectral: bool = False
    rescue: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.recipe not in ("default", "official"):
            raise InputError("unknown recipe", where="PoseAugSettings", expected="default or official", got=self.recipe)
        _positive(self, "epochs", "batch_size", "learning_rate", "clip", "discriminate_every", "pool")
        if not 0 < self.gan_share <= 1:
            raise InputError("PoseAugSettings.gan_share must lie in (0, 1]", got=self.gan_share)
        if not 0 <= self.ema < 1 or self.gradient_penalty < 0 or self.warmup < 0 or not 0 <= self.fake_share <= 1:
            raise InputError(
                "PoseAugSettings needs 0 <= ema < 1, gradient_penalty >= 0, warmup >= 0 and fake_share in [0, 1]",
                got=(self.ema, self.gradient_penalty, self.warmup, self.fake_share),
            )

    @property
    def official(self) -> bool:
        """Whether the published quirks apply."""
        return self.recipe == "official"


@dataclass(frozen=True)
class PosePairSettings:
    """Which pose pairs a lifter learns from.

    Args:
        format: ``h36m`` (npz files of VideoPose3D), ``motions`` (folder of AMASS-style npz or BVH files, read at 20
            frames per second), ``clips`` (folder ``clips`` of ``posesyn run``), ``3dhp`` (PoseAug's ``test_3dhp.npz``,
            which has no cameras: for ``posesyn evaluate lifter``).
        path: File or folder.
        keypoints: ``data_2d_h36m_*.npz`` for ``h36m``; none takes projections.
        subjects: Only these, as a list. Not given: for ``h36m`` S1, S5, S6, S7, S8, else all. A motion's subject is the
            folder of a file named as AMASS does (``..._poses.npz``, ``..._stageii.npz``), else what stands before the
            first underscore of its name (``02_01.bvh``).
        stride: Every so many frames.
        rig: Cameras that see motions; not given, four at eye height in random directions.
    """

    format: Literal["h36m", "motions", "clips", "3dhp"]
    path: str
    keypoints: str | None = None
    subjects: list[str] | None = None
    stride: int = 1
    rig: CameraRig | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _positive(self, "stride")


@dataclass(frozen=True)
class LifterChoice:
    """The lifter to train.

    Args:
        name: ``mlp``, ``videopose``, ``semgcn`` or ``stgcn``; not given, the one in the checkpoint, or ``mlp``.
        checkpoint: Weights to start from, official or of posesyn; random if not given.
        options: Arguments of the network, e.g. ``{"width": 256}``; with a checkpoint only those that its weights leave
            open, e.g. ``{"dropout": 0}``.
    """

    name: Literal["mlp", "videopose", "semgcn", "stgcn"] | None = None
    checkpoint: str | None = None
    options: dict[str, float] = field(default_factory=dict)

    __repr__ = short_repr


def _positive(settings: object, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise InputError(f"{type(settings).__name__}.{name} must be positive", got=getattr(settings, name))
