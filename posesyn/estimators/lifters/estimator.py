"""A lifter as a target estimator: keypoints of persons in, 3D poses in the full-image camera out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.base import predict_in_chunks
from posesyn.estimators.lifters import keypoints
from posesyn.estimators.lifters.keypoints import FOCAL, NEEDED, View, lifted_from, person_view
from posesyn.estimators.lifters.lifter import JOINTS, SKELETON, Lifter, load_lifter
from posesyn.estimators.losses import require
from posesyn.estimators.placement import camera_of, place_before_camera
from posesyn.interfaces import EstimatorSpec, KeypointDetector
from posesyn.types import Person, PoseBatch

_KEYS = ("keypoints_px", "visible", "has_labels", "joints", "intrinsics")


class LifterEstimator(nn.Module):
    """Makes a lifter usable by ErrorExtractor, evaluation and fine-tuning.

    The camera is that of a person's labels, 3D joints or ``intrinsics`` where one of them says it, else one of
    focal length ``keypoints.FOCAL`` with the principal point in the middle. The lifter's root-relative pose is placed
    so that it projects closest to the keypoints it was given.

    Args:
        lifter: The network.
        detector: Finds the keypoints in the picture; None takes the persons' annotations.
        batch_size: Persons per call.
        view: What the lifter is shown, in prediction and fine-tuning (:func:`posesyn.estimators.lifters.keypoints.
            person_view`): ``person`` turns and zooms to the person, ``image`` is PoseAug's rule.
        min_score: Keypoints of the detector whose score is not above it count as hidden.

    Raises:
        InputError: Unknown view.
    """

    def __init__(
        self,
        lifter: Lifter,
        detector: KeypointDetector | None = None,
        batch_size: int = 256,
        view: View = "person",
        min_score: float = 0.0,
    ) -> None:
        super().__init__()
        if view not in ("person", "image"):
            raise InputError("unknown view of a lifter", expected="'person' or 'image'", got=view)
        self.lifter, self.batch_size, self.view, self.min_score = lifter, batch_size, view, min_score
        # Not a child module: its weights are not trained with the lifter's.
        self.__dict__["detector"] = detector
        self.spec = EstimatorSpec(
            name=f"lifter_{lifter.name}", skeleton=SKELETON, camera="translation",
            keypoints_skeleton=None if detector is not None else SKELETON,
        )  # fmt: skip

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        name: str | None = None,
        detector: KeypointDetector | None = None,
        **options: Any,
    ) -> LifterEstimator:
        """The estimator of a file of posesyn (lifter or fine-tuned estimator) or of jfzhang95/PoseAug, in eval mode.

        Args:
            path: The file.
            name: The lifter it must hold; None takes whichever it is.
            detector, options: See above.

        Raises:
            FileError, UnsafeFileError: Not readable. CheckpointError: No lifter in it, or another one.
        """
        return cls(load_lifter(path, name), detector, **options).eval()

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        """Lifts all persons, in the order given; in eval mode, without gradients.

        The pose of a person with fewer than six usable keypoints is NaN: ErrorExtractor then skips the person, and
        ClipFilter drops the frame.

        Raises:
            InputError: No persons, or keypoints that are not finite.
        """
        return predict_in_chunks(self, self.spec, persons, self._predict, self.batch_size)

    def _predict(self, persons: Sequence[Person]) -> dict[str, np.ndarray]:
        cameras = np.stack([camera_of(person) for person in persons])
        joints = np.full((len(persons), JOINTS, 3), np.nan)
        given = {}
        for row, person in enumerate(persons):
            points, visible, skeleton = self._keypoints(person)
            if keypoints.usable_keypoints(visible, skeleton) >= NEEDED:
                given[row] = keypoints.sixteen_keypoints(points, visible, skeleton, f"person '{person.person_id}'")
        if given:
            rows = list(given)
            lifted = lifted_from(self.lifter, np.stack(list(given.values())), cameras[rows], self.view)
            for pose, (row, points) in zip(lifted, given.items()):
                joints[row] = pose + place_before_camera(pose, points, cameras[row])
        focal = cameras[:, None, [0, 1], [0, 1]]
        pixels = joints[..., :2] / joints[..., 2:] * focal + cameras[:, None, :2, 2]
        return {
            "joints_cam": joints.astype(np.float32),
            "keypoints_px": pixels.astype(np.float32),
            "intrinsics": cameras.astype(np.float32),
        }

    def _keypoints(self, person: Person) -> tuple[np.ndarray, np.ndarray, str]:
        if self.detector is None:
            return person.keypoints_px, person.visible, person.skeleton
        image = person.image.load()
        points, scores = self.detector.detect(image[None], np.asarray(person.body_box_xyxy, np.float32)[None])
        return points[0], np.asarray(scores[0]) > self.min_score, self.detector.skeleton

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """MSE on root-relative poses of persons with 3D truth whose keypoints are all known, times their share.

        Crops enter as rays of the crop's camera, in the same view as in :meth:`predict`.
        """
        require(batch, _KEYS)
        points, present = skeletons.convert(batch["keypoints_px"], "smpl45", SKELETON, batch["visible"])
        truth, _ = skeletons.convert(batch["joints"], "smpl45", SKELETON)
        usable = batch["has_labels"] & present.all(-1)
        if int(usable.sum()) < 2:
            return {"joints": sum(parameter.sum() for parameter in self.lifter.parameters()) * 0.0}
        camera, target = batch["intrinsics"][usable], truth[usable] - truth[usable][:, :1]
        rays = (points[usable] - camera[:, None, :2, 2]) / camera[:, None, [0, 1], [0, 1]]
        if self.view == "person":
            flat, rotation = person_view(rays)
            target = target @ rotation.mT
        else:
            flat = FOCAL * rays
        return {"joints": functional.mse_loss(self.lifter(flat), target) * usable.float().mean()}
