"""Objects of the user as estimators, and estimators as keypoint detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posesyn import skeletons
from posesyn.data.crops import CropBatch, crop_persons, frame_persons
from posesyn.errors import InputError
from posesyn.estimators.base import predict_in_chunks
from posesyn.geometry.cameras import (
    apply_affine,
    crop_to_full_translation,
    full_image_focal,
    intrinsics,
    invert_affine,
    project,
)
from posesyn.geometry.devices import device_of
from posesyn.interfaces import EstimatorSpec, TargetEstimator
from posesyn.types import Person, PoseBatch
from posesyn.types.looks import short_repr

_CAMERAS = ("keypoints_px", "cam", "transl_cam")
_OPTIONAL = {"pose_rotmat": (24, 3, 3), "betas": (10,)}
Losses = Callable[[Any, Mapping[str, Any]], dict[str, Tensor]]


class CallableEstimator(nn.Module):
    """Wraps ``fn(images) -> output`` as a ``TargetEstimator``, and as a ``TrainableEstimator`` if ``losses`` is given.

    ``fn`` gets crops (B, 3, H, W) float32 as ``spec`` describes them and returns a mapping of tensors or arrays:

    * ``joints`` (B, J, 3) metres, axes of the OpenCV camera, joint order ``spec.skeleton``; any root;
    * and one of: ``keypoints_px`` (B, J, 2) in crop pixels; ``cam`` (B, 3) weak perspective (s, tx, ty);
      ``transl_cam`` (B, 3) metres in the pinhole camera of the crop with ``spec.focal_length``;
    * optionally ``pose_rotmat`` (B, 24, 3, 3) and ``betas`` (B, 10).

    A pair ``(joints, keypoints_px)`` does as well.

    Args:
        fn: Function or ``torch.nn.Module``; a module's parameters are the estimator's.
        spec: Input, crop rule, camera and joint order.
        losses: ``losses(output of fn, batch) -> {name: scalar}``; the batch is described in
            :mod:`posesyn.data.batches`.
        batch_size: Persons per call of ``fn``.

    Example:
        >>> def network(images):
        ...     joints = torch.zeros(len(images), 45, 3)
        ...     return {"joints": joints, "keypoints_px": joints[..., :2] + 8}
        >>> estimator = CallableEstimator(network, EstimatorSpec("mine", input_size=(16, 16)))
        >>> image = ps.types.ArrayImage(np.zeros((48, 64, 3), np.uint8))
        >>> person = Person("a", image, np.array([8, 4, 56, 44]), np.full((17, 2), 20.0), np.ones(17), "coco17")
        >>> estimator.predict([person]).keypoints_px.shape
        (1, 45, 2)
    """

    def __init__(
        self, fn: Callable[[Tensor], Any], spec: EstimatorSpec, losses: Losses | None = None, batch_size: int = 64
    ) -> None:
        super().__init__()
        if not callable(fn):
            raise InputError("CallableEstimator needs a function", expected="fn(images)", got=type(fn).__name__)
        if spec.keypoints_skeleton is not None:
            got = f"a spec that asks for '{spec.keypoints_skeleton}' keypoints"
            raise InputError("CallableEstimator passes images only", where=f"estimator '{spec.name}'", got=got,
                             fix="write an object with `spec` and `predict(persons)`")  # fmt: skip
        skeletons.get(spec.skeleton)
        self.spec, self.fn, self.losses, self.batch_size = spec, fn, losses, batch_size
        if losses is not None:
            # Only then does the object have the method, so that isinstance(..., TrainableEstimator) tells the truth.
            self.training_losses = self._training_losses

    def _training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.losses(self.fn(batch["images"]), batch)

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        """Predicts in the camera of the full image, in the order given; in eval mode, without gradients.

        Raises:
            InputError: No persons, an unusable box, or an output of ``fn`` that breaks the contract above.
        """
        return predict_in_chunks(self, self.spec, persons, self._predict, self.batch_size)

    def _predict(self, persons: Sequence[Person]) -> dict[str, np.ndarray]:
        crops = crop_persons(persons, self.spec)
        images = torch.from_numpy(crops.images).to(device_of(self))
        output = self._checked(self.fn(images), len(persons))
        extra = {name: output[name].numpy() for name in _OPTIONAL if name in output}
        joints = output["joints"]
        if "cam" in output:
            return {**_from_weak_perspective(joints, output["cam"], crops, self.spec), **extra}
        if "transl_cam" in output:
            joints = joints + output["transl_cam"][:, None]
            height, width = self.spec.input_size
            keypoints = project(joints, intrinsics(self.spec.focal_length, width, height))
        else:
            keypoints = output["keypoints_px"]
        full = [apply_affine(invert_affine(affine), points) for affine, points in zip(crops.affines, keypoints.numpy())]
        return {"joints_cam": joints.numpy(), "keypoints_px": np.stack(full), **extra}

    def _checked(self, output: Any, batch: int) -> dict[str, Tensor]:
        if isinstance(output, tuple) and len(output) == 2:
            output = {"joints": output[0], "keypoints_px": output[1]}
        where = f"estimator '{self.spec.name}'"
        if not isinstance(output, Mapping) or "joints" not in output or not any(name in output for name in _CAMERAS):
            got = sorted(output) if isinstance(output, Mapping) else type(output).__name__
            what = "the wrapped function does not return what an estimator must say"
            wanted = f"a mapping with 'joints' and one of {', '.join(_CAMERAS)}"
            raise InputError(what, where=where, expected=wanted, got=got)
        joints = len(skeletons.get(self.spec.skeleton))
        shapes = {"joints": (joints, 3), "keypoints_px": (joints, 2), "cam": (3,), "transl_cam": (3,), **_OPTIONAL}
        values = {}
        for name, shape in shapes.items():
            if name not in output:
                continue
            value = torch.as_tensor(output[name]).detach().float().cpu()
            if (seen := tuple(value.shape)) != (batch, *shape):
                what, where = (
                    f"the wrapped function returns '{name}' of the wrong shape",
                    f"{where}, skeleton '{self.spec.skeleton}'",
                )
                raise InputError(what, where=where, expected=(batch, *shape), got=seen)
            values[name] = value
        return values


def _from_weak_perspective(joints: Tensor, cam: Tensor, crops: CropBatch, spec: EstimatorSpec) -> dict[str, np.ndarray]:
    sizes = torch.from_numpy(crops.image_sizes)
    focal = torch.tensor([full_image_focal(spec.focal_length, spec.input_size[1], *map(float, size)) for size in sizes])
    centers, extents = torch.from_numpy(crops.box_centers), torch.from_numpy(crops.box_sizes)
    transl = crop_to_full_translation(cam, centers, extents, sizes, focal)
    camera, placed = intrinsics(focal, sizes[:, 0], sizes[:, 1]), joints + transl[:, None]
    result = {"joints_cam": placed, "keypoints_px": project(placed, camera), "transl_cam": transl, "intrinsics": camera}
    return {name: value.numpy() for name, value in result.items()}


class EstimatorKeypointDetector(nn.Module):
    """A ``KeypointDetector`` made of a ``TargetEstimator``, which it holds as its part if that is a module; also a
    ``PersonFinder`` if the estimator is one.

    Judging an estimator's training data with the estimator itself deletes what it gets wrong:
    use another estimator than the one being improved.

    Args:
        estimator: Whose joints are projected.
        skeleton: Joint order of the result; joints the estimator lacks get score 0.

    Example:
        >>> detector = EstimatorKeypointDetector(ps.load_estimator("hmr_small"))
        >>> keypoints, scores = detector.detect(np.zeros((1, 48, 64, 3), np.uint8), np.array([[8, 4, 56, 44]]))
        >>> keypoints.shape, scores.shape
        ((1, 17, 2), (1, 17))
    """

    def __init__(self, estimator: TargetEstimator, skeleton: str = "coco17") -> None:
        super().__init__()
        skeletons.get(skeleton)
        self.estimator, self.skeleton = estimator, skeleton
        if callable(getattr(estimator, "detect_persons", None)):
            # Only then does the object have the method: not every estimator finds persons by itself.
            self.detect_persons = estimator.detect_persons  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        name, place = self.estimator.spec.name, str(device_of(self.estimator))
        return short_repr(self, estimator=name, skeleton=self.skeleton, device=place)

    @property
    def name(self) -> str:
        """The estimator's name."""
        return self.estimator.spec.name

    @property
    def family(self) -> str:
        """The estimator's family."""
        return self.estimator.spec.family or self.estimator.spec.name

    def detect(self, images: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, H, W, 3) uint8 and (T, 4) boxes → keypoints (T, J, 2) px and scores (T, J).

        The score is the estimator's own (:attr:`PoseBatch.scores`), or 1 where it has none; 0 for a joint outside the
        image or absent from the estimator's skeleton.

        Raises:
            InputError: Wrong shapes, or an unusable box.
        """
        persons = frame_persons(images, boxes_xyxy, self.skeleton, f"detector over '{self.estimator.spec.name}'")
        if not persons:
            joints = len(skeletons.get(self.skeleton))
            return np.zeros((0, joints, 2), np.float32), np.zeros((0, joints), np.float32)
        found = self.estimator.predict(persons)
        keypoints, present = skeletons.convert(found.keypoints_px, found.skeleton, self.skeleton)
        height, width = np.shape(images)[1:3]
        inside = ((keypoints > -0.5) & (keypoints < (width - 0.5, height - 0.5))).all(-1)
        scores = (present & inside).astype(np.float32)
        if found.scores is not None:
            scores *= skeletons.convert(found.scores[..., None], found.skeleton, self.skeleton)[0][..., 0]
        return keypoints.astype(np.float32), scores
