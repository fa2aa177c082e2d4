"""A lifter as a target estimator: keypoints of persons in, 3D poses in the full-image camera out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from posesyn import skeletons
from posesyn.estimators.batch_keys import require
from posesyn.estimators.lifters.keypoints import (
    FOCAL,
    image_intrinsics,
    normalised,
    place_before_camera,
    sixteen_keypoints,
)
from posesyn.estimators.lifters.lifter import SKELETON, Lifter
from posesyn.estimators.prediction import predict_in_chunks
from posesyn.protocols import EstimatorSpec, KeypointDetector
from posesyn.types import Person, PoseBatch

_NEEDED = ("keypoints_px", "visible", "has_labels", "joints", "intrinsics")


class LifterEstimator(nn.Module):
    """Makes a lifter usable by ErrorExtractor, evaluation and fine-tuning.

    The camera is that of a person's labels where it is known, else one of focal length ``keypoints.FOCAL`` with the
    principal point in the middle. The lifter's root-relative pose is placed so that it projects
    closest to the keypoints it was given.

    Args:
        lifter: The network.
        detector: Finds the keypoints in the picture; None takes the persons' annotations.
        batch_size: Persons per call.
    """

    def __init__(self, lifter: Lifter, detector: KeypointDetector | None = None, batch_size: int = 256) -> None:
        super().__init__()
        self.lifter, self.batch_size = lifter, batch_size
        # Not a child module: its weights are not trained with the lifter's.
        self.__dict__["detector"] = detector
        self.spec = EstimatorSpec(
            name=f"lifter_{lifter.name}", skeleton=SKELETON, camera="translation",
            keypoints_skeleton=None if detector is not None else SKELETON,
        )  # fmt: skip

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        """Lifts all persons, in the order given; in eval mode, without gradients.

        Raises:
            InputError: No persons, or one with fewer than six usable keypoints.
        """
        return predict_in_chunks(self, self.spec, persons, self._predict, self.batch_size)

    def _predict(self, persons: Sequence[Person]) -> dict[str, np.ndarray]:
        points, cameras = [], []
        for person in persons:
            where = f"person '{person.person_id}'"
            points.append(sixteen_keypoints(*self._keypoints(person), where))
            cameras.append(_camera(person))
        given = np.stack([normalised(p, c) for p, c in zip(points, cameras)])
        device = next(self.lifter.parameters()).device
        lifted = self.lifter(torch.from_numpy(given).to(device)).cpu().numpy().astype(np.float64)
        lifted -= lifted[:, :1]
        places = [place_before_camera(*row) for row in zip(lifted, points, cameras)]
        joints = (lifted + np.stack(places)[:, None]).astype(np.float32)
        matrices = np.stack(cameras).astype(np.float32)
        rays = joints[..., :2] / joints[..., 2:]
        focal = matrices[:, None, [0, 1], [0, 1]]
        return {
            "joints_cam": joints,
            "keypoints_px": rays * focal + matrices[:, None, :2, 2],
            "intrinsics": matrices,
        }

    def _keypoints(self, person: Person) -> tuple[np.ndarray, np.ndarray, str]:
        if self.detector is None:
            return person.keypoints_px, person.visible, person.skeleton
        image = person.image.load()
        points, scores = self.detector.detect(image[None], np.asarray(person.box_xyxy, np.float32)[None])
        return points[0], np.asarray(scores[0]) > 0, self.detector.skeleton

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """MSE on root-relative poses of persons with 3D truth whose keypoints are all known, times their share.

        Crops enter as rays of the crop's camera, so that a person looks as in the full image with the middle of the
        crop's camera at the middle of the picture.
        """
        require(batch, _NEEDED)
        points, present = skeletons.convert(batch["keypoints_px"], "smpl45", SKELETON, batch["visible"])
        truth, _ = skeletons.convert(batch["joints"], "smpl45", SKELETON)
        usable = batch["has_labels"] & present.all(-1)
        camera = batch["intrinsics"]
        focal = torch.stack((camera[:, 0, 0], camera[:, 1, 1]), -1)[:, None]
        flat = FOCAL * (points - camera[:, None, :2, 2]) / focal
        if int(usable.sum()) < 2:
            return {"joints": sum(parameter.sum() for parameter in self.lifter.parameters()) * 0.0}
        target = truth[usable] - truth[usable][:, :1]
        return {"joints": functional.mse_loss(self.lifter(flat[usable]), target) * usable.float().mean()}


def _camera(person: Person) -> np.ndarray:
    if person.labels is not None:
        return np.asarray(person.labels.intrinsics, np.float64)
    size = person.meta.get("image_width_height")
    if size is None:
        height, width = person.image.load().shape[:2]
        size = (width, height)
    return image_intrinsics(*size).astype(np.float64)
