"""What detectors that are networks share: checked frames in, batches that fit the device, NumPy out."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from posesyn import skeletons
from posesyn.data.crops import frame_persons
from posesyn.errors import InputError
from posesyn.geometry.devices import halving, on_cpu
from posesyn.types import Person


class NetworkDetector(nn.Module):
    """A ``KeypointDetector`` around a network. A derived class implements :meth:`find`.

    Args:
        name: For tables and reports.
        family: Whose weights these are (see :class:`~posesyn.interfaces.EstimatorSpec`).
        skeleton: Joint order of the keypoints.
        batch_size: Persons per pass through the network; halved where the device's memory is full.
    """

    def __init__(self, name: str, family: str, skeleton: str = "coco17", batch_size: int = 32) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError("batch_size must be at least 1", where=f"detector '{name}'", got=batch_size)
        self.name, self.family, self.skeleton, self.batch_size = name, family, skeleton, batch_size

    def find(self, persons: list[Person]) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (B, J, 2) in pixels of the persons' images and scores (B, J), 0 to 1, float32; one batch."""
        raise NotImplementedError

    def detect(self, images: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, H, W, 3) uint8 and (T, 4) boxes → keypoints (T, J, 2) px and scores (T, J), float32.

        In eval mode, without gradients; the module is left in the mode it was in.

        Raises:
            InputError: Wrong shapes, or a box that is empty or outside its image.
        """
        persons = frame_persons(images, boxes_xyxy, self.skeleton, f"detector '{self.name}'")
        if not persons:
            joints = len(skeletons.get(self.skeleton))
            return np.zeros((0, joints, 2), np.float32), np.zeros((0, joints), np.float32)
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                parts = halving(self.find, persons, self.batch_size, last=on_cpu(self, self.find))
        finally:
            self.train(was_training)
        keypoints, scores = (np.concatenate(values) for values in zip(*parts))
        return keypoints, scores
