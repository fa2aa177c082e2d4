"""Persons in a user's own pictures, for which nobody drew a box or a joint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posesyn import skeletons
from posesyn.data.persons.base import Choice, box_problem, check_choice
from posesyn.data.pictures import Picture, open_pictures
from posesyn.detectors.registry import DETECTORS, load_detector
from posesyn.errors import FileError, InputError, PosesynError
from posesyn.interfaces import KeypointDetector, PersonFinder
from posesyn.progress import progress_over
from posesyn.storage.assets import ASSETS
from posesyn.storage.fetch import is_fetched
from posesyn.types import Person

if TYPE_CHECKING:
    import torch

Find = Callable[[np.ndarray], Any]

# All have the same detector; the landmarks, which check what it found, differ. The quickest that is there is enough.
FINDERS = ("blazepose_lite", "blazepose", "blazepose_heavy")
# Joints below this score do not stand in for annotated ones: what MoveNet's authors draw from (tensorflow/docs,
# movenet.ipynb).
MIN_KEYPOINT = 0.3
_SKELETON = "coco17"
# Keypoints of two boxes that are nearer than this on average, in longer sides of the smaller box, are those of one
# person; so many must be seen in both. Our own choice.
_TWICE, _COMMON = 0.1, 4
_SHOWN = 5  # pictures that a warning names


class FoundPersons(list[Person]):
    """The persons, picture by picture.

    Attributes:
        pictures: How many pictures were looked at.
        skipped: (picture, reason) of those that show nobody or cannot be read.
    """

    pictures: int = 0
    skipped: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"FoundPersons({len(self)} persons in {self.pictures} pictures, {len(self.skipped)} skipped)"


def person_finder(
    detector: str | PersonFinder | Find | None = None, estimator: object = None,
    device: str | torch.device | None = "auto",
) -> tuple[Find, str]:  # fmt: skip
    """A function of a picture that says who is in it, and its name.

    Args:
        detector: Name of a detector that finds persons (``"blazepose"``, ``"blazepose_lite"``, ``"blazepose_heavy"`` or
            ``"my_module:make"``), an object with ``detect_persons(image)``, or a function of the image. None takes
            ``estimator`` if it finds persons itself, else the smallest BlazePose whose weights were fetched.
        estimator: See above.
        device: Where a detector that is loaded here runs.

    Raises:
        InputError: Unknown name, or something that finds no persons.
        FileError: The weights were not fetched; the message says how.
    """
    if detector is None and callable(getattr(estimator, "detect_persons", None)):
        detector = estimator  # type: ignore[assignment]
    if detector is None:
        detector = next((name for name in FINDERS if is_fetched(ASSETS[name])), FINDERS[0])
    made: Any = detector
    if isinstance(detector, str):
        # What is found by its place in a file need not know of keypoints.
        own = ":" in detector
        made = DETECTORS.make(detector, None, where="find_persons") if own else load_detector(detector, device=device)
    name = str(getattr(getattr(made, "spec", made), "name", None) or getattr(made, "__name__", type(made).__name__))
    find = getattr(made, "detect_persons", None)
    # A network is called with crops, not with pictures.
    if find is None and callable(made) and not hasattr(made, "parameters") and not isinstance(detector, str):
        find = made
    if not callable(find):
        raise InputError(
            f"'{name}' does not find persons", where="find_persons",
            expected="an object with detect_persons(image), or a function of the image", got=type(made).__name__,
            fix=f"name one of {', '.join(FINDERS)}; detectors of keypoints (MoveNet, ViTPose) need a box and go to "
            "`keypoints`",
        )  # fmt: skip
    return find, name


def find_persons(
    images: Any,
    detector: str | PersonFinder | Find | None = "blazepose",
    *,
    keypoints: str | KeypointDetector | None = None,
    min_score: float = 0.0,
    min_keypoint: float = MIN_KEYPOINT,
    on_bad: Choice = "skip",
    device: str | torch.device | None = "auto",
    progress: bool = False,
) -> FoundPersons:
    """Everybody in a user's own pictures, as persons without annotation.

    They have a box, no visible joint, the ``image_id`` of their picture, ``detected_by`` and ``detection_score``;
    estimators predict them. Stages that need 2D truth (``ErrorExtractor``, motions that are
    steered by it) need ``keypoints``: those of another network then stand in for it, and ``Person.keypoints_by`` and
    the report say so. Where two boxes get the same keypoints, the person whom they fit worse has none. Nothing is
    downloaded.

    Args:
        images: See :func:`posesyn.data.pictures.open_pictures`: files, folders, arrays, image sources, or one of them.
        detector: Who finds persons: a name, an object with ``detect_persons(image)``, or a function of the image
            (H, W, 3) uint8 RGB that returns boxes (N, 4), or boxes and scores (N,). None takes the smallest BlazePose
            that was fetched.
        keypoints: A detector of 2D keypoints, or its name. Take none of the family of the estimator that is examined:
            it would find nothing wrong with it.
        min_score: Persons below it are left out. BlazePose has a limit of its own; for a lower one pass
            ``lambda image: estimator.detect_persons(image, min_score=0.3)``.
        min_keypoint: Keypoints below it count as not visible.
        on_bad: Whether a picture that cannot be read, or whose answer cannot be used, is skipped or ends the search.
        device: Where detectors that are loaded here run.
        progress: Show a bar.

    Returns:
        The persons, picture by picture and from left to right, with ``skipped``: pictures that show nobody or cannot be
        read, of which a warning tells.

    Raises:
        InputError: Nobody in any picture, an unknown detector, or one that answers with something else.
        FileError: Weights that were not fetched, a file or folder that is not there, or with ``on_bad="error"`` a
            picture that cannot be read.

    Example:
        >>> def somebody(image):
        ...     return np.array([[8, 4, 56, 44]]), np.array([0.9])
        >>> persons = find_persons(np.zeros((48, 64, 3), np.uint8), somebody)
        >>> persons[0].person_id, persons[0].detection_score, int(persons[0].visible.sum())
        ('image 0#1', 0.9, 0)
    """
    check_choice(on_bad, "on_bad")
    for what, value in (("min_score", min_score), ("min_keypoint", min_keypoint)):
        if not 0 <= value <= 1:
            raise InputError(f"{what} must be from 0 to 1", where="find_persons", got=value)
    find, name = person_finder(detector, device=device)
    joints = load_detector(keypoints, device=device) if isinstance(keypoints, str) else keypoints
    pictures = open_pictures(images)
    found, skipped = FoundPersons(), []
    for picture in progress_over(pictures, "find persons", "picture", shown=progress):
        try:
            pixels = picture.image.load()
        except FileError as error:
            if on_bad == "error":
                raise
            skipped.append((picture.name, f"it cannot be read: {error}"))
            continue
        try:
            boxes, scores = _answer(find(pixels), name, picture.name)
        except PosesynError as error:
            if on_bad == "error":
                raise
            skipped.append((picture.name, str(error)))
            continue
        sure = scores >= min_score
        persons = [
            _person(picture, number, box, float(score), pixels, name)
            for number, (box, score) in enumerate(zip(boxes[sure], scores[sure]), 1)
            if box_problem(box, (pixels.shape[1], pixels.shape[0])) is None
        ]
        if not persons:
            skipped.append((picture.name, _nobody(scores, min_score)))
        elif joints is not None:
            persons = _with_keypoints(persons, pixels, joints, min_keypoint)
        found += persons
    found.pictures, found.skipped = len(pictures), tuple(skipped)
    _tell(found, name)
    return found


def _nobody(scores: np.ndarray, min_score: float) -> str:
    if not len(scores):
        return "nobody was found in it"
    if scores.max() < min_score:
        return f"nobody was found in it as surely as {min_score:g}, at best {scores.max():.2f}"
    return "the boxes found lie outside it or are empty"


def _answer(answer: Any, name: str, picture: str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and scores (N,), float32, or InputError."""
    pair = isinstance(answer, tuple) and len(answer) == 2
    try:
        boxes = np.asarray(answer[0] if pair else answer, np.float32)
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
        scores = np.asarray(answer[1], np.float32) if pair else np.ones(len(boxes), np.float32)
    except (TypeError, ValueError) as error:
        raise InputError("a detector of persons does not return arrays", where=f"'{name}', picture '{picture}'",
                         expected="boxes (N, 4), or boxes and scores (N,)", got=error) from error  # fmt: skip
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != (len(boxes),):
        raise InputError(
            "a detector of persons answers with wrong shapes", where=f"'{name}', picture '{picture}'",
            expected="boxes (N, 4) and scores (N,)", got=f"{boxes.shape} and {scores.shape}",
        )  # fmt: skip
    if not (np.isfinite(boxes).all() and ((scores >= 0) & (scores <= 1)).all()):
        raise InputError("boxes must be finite and scores from 0 to 1", where=f"'{name}', picture '{picture}'",
                         got=f"{boxes.tolist()[:3]} and {scores.tolist()[:3]}")  # fmt: skip
    return boxes, scores


def _person(picture: Picture, number: int, box: np.ndarray, score: float, pixels: np.ndarray, name: str) -> Person:
    count = len(skeletons.get(_SKELETON))
    size = (pixels.shape[1], pixels.shape[0])
    return Person(
        f"{picture.name}#{number}", picture.image, box, np.zeros((count, 2)), np.zeros(count, bool), _SKELETON,
        image_id=picture.name, image_width_height=size, detected_by=name, detection_score=round(score, 4),
    )  # fmt: skip


def _with_keypoints(
    persons: Sequence[Person], pixels: np.ndarray, detector: KeypointDetector, least: float
) -> list[Person]:
    """The persons of one picture with the detector's keypoints in the place of annotated ones."""
    # Views of the same pixels: nothing is copied.
    images = np.broadcast_to(pixels, (len(persons), *pixels.shape))
    points, scores = detector.detect(images, np.stack([person.box_xyxy for person in persons]))
    visible = (scores >= least) & np.isfinite(points).all(-1)
    visible[_taken_twice(points, visible, [person.box_xyxy for person in persons])] = False
    name = getattr(detector, "name", type(detector).__name__)
    return [
        replace(person, keypoints_px=own, visible=seen, skeleton=detector.skeleton, keypoints_by=name)
        for person, own, seen in zip(persons, points, visible)
    ]


def _taken_twice(points: np.ndarray, visible: np.ndarray, boxes: Sequence[np.ndarray]) -> list[int]:
    """Rows whose keypoints are those of somebody else: in a box with two people a detector takes the one who is seen
    better, in both boxes. The box that fits the keypoints better keeps them."""
    sides = [float((box[2:] - box[:2]).max()) for box in boxes]
    fits = [_fit(own[seen], box) for own, seen, box in zip(points, visible, boxes)]
    lost = []
    for first in range(len(boxes)):
        for second in range(first):
            both = visible[first] & visible[second]
            if both.sum() < _COMMON:
                continue
            apart = float(np.linalg.norm(points[first][both] - points[second][both], axis=-1).mean())
            if apart < _TWICE * min(sides[first], sides[second]):
                lost.append(first if fits[first] < fits[second] else second)
    return lost


def _fit(points: np.ndarray, box: np.ndarray) -> float:
    """Intersection over union of a box and the extent of keypoints."""
    if not len(points):
        return 0.0
    low, high = points.min(0), points.max(0)
    shared = float(np.clip(np.minimum(high, box[2:]) - np.maximum(low, box[:2]), 0, None).prod())
    return shared / max(float((high - low).prod() + (box[2:] - box[:2]).prod()) - shared, 1e-9)


def _tell(found: FoundPersons, name: str) -> None:
    shown = "; ".join(f"{picture}: {reason}" for picture, reason in found.skipped[:_SHOWN])
    more = f"; and {len(found.skipped) - _SHOWN} more" if len(found.skipped) > _SHOWN else ""
    if not found:
        raise InputError("no person was found in any picture", where=f"find_persons, detector '{name}'",
                         got=f"{found.pictures} pictures: {shown}{more}",
                         fix="check the pictures, or pass another detector")  # fmt: skip
    if found.skipped:
        warnings.warn(f"{len(found.skipped)} of {found.pictures} pictures left out: {shown}{more}", stacklevel=3)
