"""An estimator as a detector of 2D keypoints: its projected joints."""

from __future__ import annotations

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.protocols import TargetEstimator
from posesyn.types import ArrayImage, Person


class EstimatorKeypointDetector:
    """A ``KeypointDetector`` made of a ``TargetEstimator``.

    Judging an estimator's training data with the estimator itself deletes what it gets wrong (posesyn.md section 9):
    use another estimator than the one being improved.

    Args:
        estimator: Whose joints are projected.
        skeleton: Joint order of the result; joints the estimator lacks get score 0.
    """

    def __init__(self, estimator: TargetEstimator, skeleton: str = "coco17") -> None:
        skeletons.get(skeleton)
        self.estimator, self.skeleton = estimator, skeleton

    def detect(self, images: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, H, W, 3) uint8 and (T, 4) boxes → keypoints (T, J, 2) px and scores (T, J).

        A regressor knows no confidence: the score is 1 for a joint inside the image, 0 for one outside it or absent
        from the estimator's skeleton.

        Raises:
            InputError: Wrong shapes, or an unusable box.
        """
        images, boxes = np.asarray(images), np.asarray(boxes_xyxy, np.float32)
        joints = len(skeletons.get(self.skeleton))
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or boxes.shape != (len(images), 4):
            raise InputError(
                "detect needs images and one box per image",
                where=f"detector over '{self.estimator.spec.name}'",
                expected="(T, H, W, 3) uint8 and (T, 4)",
                got=f"{images.shape} {images.dtype} and {boxes.shape}",
            )
        if not len(images):
            return np.zeros((0, joints, 2), np.float32), np.zeros((0, joints), np.float32)
        nothing = np.zeros((joints, 2), np.float32), np.zeros(joints, bool)
        persons = [
            Person(f"frame/{row:06d}", ArrayImage(image, f"frame {row}"), box, *nothing, self.skeleton)
            for row, (image, box) in enumerate(zip(images, boxes))
        ]
        found = self.estimator.predict(persons)
        keypoints, present = skeletons.convert(found.keypoints_px, found.skeleton, self.skeleton)
        height, width = images.shape[1:3]
        inside = ((keypoints > -0.5) & (keypoints < (width - 0.5, height - 0.5))).all(-1)
        return keypoints.astype(np.float32), (present & inside).astype(np.float32)
