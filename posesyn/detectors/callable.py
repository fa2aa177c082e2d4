"""Any function as a keypoint detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.crops import frame_persons
from posesyn.errors import InputError
from posesyn.types.looks import short_repr


class CallableDetector:
    """Wraps ``fn(images, boxes_xyxy) -> (keypoints, scores)`` as a ``KeypointDetector``.

    ``fn`` gets frames (T, H, W, 3) uint8 RGB and boxes (T, 4) float32 in pixels, and returns keypoints (T, J, 2) in
    pixels of the frames and scores (T, J), 0 to 1; or keypoints alone, which then score 1.

    Args:
        fn: The function.
        skeleton: Joint order of its keypoints.
        name: For reports; the function's own if not given.
        family: Whose weights it uses (see :class:`~posesyn.interfaces.EstimatorSpec`); None: nobody knows.

    Example:
        >>> def middle(images, boxes):
        ...     return np.repeat((boxes[:, None, :2] + boxes[:, None, 2:]) / 2, 17, axis=1)
        >>> detector = CallableDetector(middle)
        >>> keypoints, scores = detector.detect(np.zeros((2, 48, 64, 3), np.uint8), np.array([[8, 4, 56, 44]] * 2))
        >>> keypoints[0, 0].tolist(), scores.shape
        ([32.0, 24.0], (2, 17))
    """

    def __init__(
        self, fn: Callable[[np.ndarray, np.ndarray], Any], skeleton: str = "coco17", name: str | None = None,
        family: str | None = None,
    ) -> None:  # fmt: skip
        if not callable(fn):
            raise InputError(
                "CallableDetector needs a function", expected="fn(images, boxes_xyxy)", got=type(fn).__name__
            )
        skeletons.get(skeleton)
        self.fn, self.skeleton, self.family = fn, skeleton, family
        self.name = name or getattr(fn, "__name__", type(fn).__name__)

    def __repr__(self) -> str:
        return short_repr(self, name=self.name, skeleton=self.skeleton, family=self.family)

    def detect(self, images: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, H, W, 3) uint8 and (T, 4) boxes → keypoints (T, J, 2) px and scores (T, J), float32.

        Raises:
            InputError: Wrong shapes, a box that is empty or outside its image, or an answer of ``fn`` that breaks the
                contract above.
        """
        where = f"detector '{self.name}'"
        frame_persons(images, boxes_xyxy, self.skeleton, where)
        shape = (len(images), len(skeletons.get(self.skeleton)))
        answer = self.fn(np.asarray(images), np.asarray(boxes_xyxy, np.float32))
        points, sure = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
        try:
            keypoints = np.asarray(points, np.float32)
            scores = np.ones(shape, np.float32) if sure is None else np.asarray(sure, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError("the wrapped function does not return arrays", where=where, got=error) from error
        if keypoints.shape != (*shape, 2) or scores.shape != shape:
            raise InputError(
                "the wrapped function does not return what a detector must say",
                where=f"{where}, skeleton '{self.skeleton}'",
                expected=f"keypoints {(*shape, 2)} and scores {shape}",
                got=f"{keypoints.shape} and {scores.shape}",
            )
        if not (np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()):
            raise InputError("scores must be from 0 to 1", where=where, got=f"{scores.min():g} to {scores.max():g}")
        return keypoints, scores
