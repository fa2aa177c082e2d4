"""The contracts between the parts: no inheritance, any object with these members fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from posesyn.errors import InputError
from posesyn.types import Clip, Motion, Person, PoseBatch
from posesyn.types.looks import changes_of, short_repr

if TYPE_CHECKING:  # importing posesyn must not load torch
    import torch

Antialias = Literal["average", "gaussian"]


@dataclass(frozen=True)
class EstimatorSpec:
    """What an estimator wants to see and how its numbers are to be read.

    Attributes:
        name: Name for tables and reports.
        input_size: (height, width) of the network input in pixels.
        mean, std: Normalisation in 0..1 per channel, in the order of the network's channels.
        channels: Channel order of the input.
        box_scale: Factor by which the person's box grows before it is cropped; the box is taken to be drawn around the
            whole person, by an annotator or a detector.
        box_aspect: width / height to which the box is padded before cropping.
        box_clip: Whether the box is cut at the borders of the image before anything else.
        skeleton: Joint order of its predictions.
        keypoints_skeleton: Joint order of 2D keypoints it needs as input, or None for an image-only network.
        camera: How it parametrises translation: ``weak_perspective`` (s, tx, ty) or ``translation``.
        focal_length: Focal length in crop pixels that its camera assumes.
        rot6d_layout: Layout of its 6D rotations (see ``geometry.rotations``), or None.
        neighbours: Other persons of the image whose 2D joints its training takes, at most; 0 for none.
        family: Networks of one family learnt from the same data and err alike (the three BlazePose, say); none of them
            may judge another one's training data as a detector. None: ``name`` is the family.
        tight_box_scale: Factor by which a box around nothing but the joints (``Person.box_is_tight``) grows first, to
            that of a box drawn around the person; ``box_scale`` follows. Joints lie inside the body; 1.2 is
            3DCrowdNet's. 1 for networks whose ``box_scale`` is meant for both kinds, as SPIN's is.
        antialias: What is done against aliasing where the crop is smaller than its region: ``average``, each crop pixel
            averages over what it covers, as Pillow's bilinear resize does; ``gaussian``, the weaker blur of HMR2; None,
            nothing. See :func:`posesyn.data.resampling.warp`.
        region: What its training shows: the upright ``box``, or the ``body``'s own circle with the person standing up
            (:class:`~posesyn.data.body_region.BodyRegion`; the box where joints are missing).
        surroundings: Side in pixels of a second picture that its training takes, for networks that look for the person
            first (:mod:`posesyn.data.surroundings`); 0 for none.

    Raises:
        InputError: An unknown ``antialias`` or ``region``, a factor that is not positive, or negative ``surroundings``.

    Example:
        >>> EstimatorSpec("mine", input_size=(256, 192), box_aspect=0.75).skeleton
        'smpl45'
    """

    name: str
    input_size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"
    box_scale: float = 1.2
    box_aspect: float = 1.0
    box_clip: bool = False
    skeleton: str = "smpl45"
    keypoints_skeleton: str | None = None
    camera: Literal["weak_perspective", "translation"] = "weak_perspective"
    focal_length: float = 5000.0
    rot6d_layout: Literal["interleaved", "contiguous"] | None = None
    neighbours: int = 0
    family: str | None = None
    tight_box_scale: float = 1.2
    antialias: Antialias | None = None
    region: Literal["box", "body"] = "box"
    surroundings: int = 0

    def __post_init__(self) -> None:
        where = f"EstimatorSpec '{self.name}'"
        if self.antialias is not None and self.antialias not in get_args(Antialias):
            expected = f"{', '.join(get_args(Antialias))} or None"
            raise InputError("unknown antialias", where=where, expected=expected, got=repr(self.antialias))
        if self.region not in ("box", "body"):
            raise InputError("unknown region", where=where, expected="box or body", got=repr(self.region))
        for name in ("box_scale", "tight_box_scale", "box_aspect"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive", where=where, got=getattr(self, name))
        if self.surroundings < 0:
            raise InputError("surroundings must not be negative", where=where, got=self.surroundings)

    def __repr__(self) -> str:
        return short_repr(
            self, **{"name": "", "input_size": self.input_size, "skeleton": self.skeleton, **changes_of(self)}
        )


@runtime_checkable
class TargetEstimator(Protocol):
    """The 3D pose network being improved.

    Example:
        >>> class Zeros:
        ...     spec = EstimatorSpec("zeros")
        ...     def predict(self, persons):
        ...         joints = np.zeros((len(persons), 45, 3))
        ...         return PoseBatch(tuple(person.person_id for person in persons), "smpl45", joints, joints[..., :2])
        >>> isinstance(Zeros(), TargetEstimator)
        True
    """

    spec: EstimatorSpec

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        """Predicts all persons; results in the full-image camera frame, in the order given."""


@runtime_checkable
class TrainableEstimator(TargetEstimator, Protocol):
    """What fine-tuning asks for in addition."""

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Named scalar losses; their sum is minimised. ``batch`` is described in ``posesyn.data.batches``."""

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The parameters to optimise."""


class BodyModel(Protocol):
    """A SMPL-format body: 24 joints, 10 betas, skinning, UVs optional."""

    faces: np.ndarray
    parents: tuple[int, ...]

    def __call__(self, pose_rotmat: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None = None) -> Any:
        """(B, 24, 3, 3), (B, 10), (B, 3) → an object with ``vertices`` (B, V, 3) and ``joints`` (B, 45, 3), metres."""


class TextEncoder(Protocol):
    """Text to a fixed-size embedding."""

    dim: int

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """B texts → (B, dim) float32."""


class Captioner(Protocol):
    """Describes what a person does."""

    def caption(self, persons: Sequence[Person]) -> list[str]:
        """One description per person."""


class KeypointDetector(Protocol):
    """Finds 2D keypoints; an estimator is turned into one by projecting its joints.

    Two further attributes are read where they are there: ``name``, for reports and for the check that a continued run
    is the same, and ``family``, whose weights these are (see :class:`EstimatorSpec`): a filter refuses a detector of
    the family of the estimator that is being improved.
    """

    skeleton: str

    def detect(self, images: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, H, W, 3) uint8 and (T, 4) boxes → keypoints (T, J, 2) px and scores (T, J)."""


class PersonFinder(Protocol):
    """Finds who is in a picture. BlazePose is one; :func:`posesyn.find_persons` takes any function of a picture too."""

    def detect_persons(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 → boxes (N, 4) in pixels, x0, y0, x1, y1 around whole persons, and scores (N,), 0 to 1."""


class RenderBackend(Protocol):
    """Turns a motion and an appearance into a labelled clip."""

    def render(self, motion: Motion, appearance: Any, *, seed: int) -> Clip:
        """Frames with exact labels, same number of frames as the motion."""
