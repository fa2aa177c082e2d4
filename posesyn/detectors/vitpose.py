"""ViTPose (arXiv 2204.12484) as the package transformers runs it; that package is not installed with posesyn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from posesyn.detectors.base import NetworkDetector
from posesyn.errors import FileError, InputError, MissingDependencyError
from posesyn.geometry.devices import device_of
from posesyn.types import Person

# 90 million weights, Apache-2.0; the smallest of the authors' own conversions on huggingface.co.
MODEL = "usyd-community/vitpose-base-simple"
JOINTS = 17


class ViTPose(NetworkDetector):
    """A ``KeypointDetector``: crops, network and decoding are those of transformers.

    Args:
        network: A ``VitPoseForPoseEstimation`` of 17 COCO keypoints.
        processor: Its ``VitPoseImageProcessor``.
        dataset: Of a ViTPose++ network, the row of its experts; 0 is COCO (transformers, docs of ViTPose).
        batch_size: Persons per pass.

    Raises:
        InputError: Another number of keypoints.
    """

    def __init__(self, network: torch.nn.Module, processor: Any, dataset: int = 0, batch_size: int = 16) -> None:
        super().__init__("vitpose", "vitpose", "coco17", batch_size)
        config: Any = network.config
        if config.num_labels != JOINTS:
            raise InputError("a ViTPose network has other keypoints", where="ViTPose", expected=f"{JOINTS} (COCO)",
                             got=config.num_labels, fix="take a network that was trained on COCO")  # fmt: skip
        self.network, self.processor, self.dataset = network, processor, dataset
        self._experts = getattr(config.backbone_config, "num_experts", 1) > 1

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str] = MODEL, **options: Any) -> ViTPose:
        """A network that is on this machine. Nothing is downloaded.

        Args:
            model: Folder that ``save_pretrained`` wrote, or the name of a model in the cache of huggingface_hub.
            options: See above.

        Raises:
            MissingDependencyError: transformers is not installed.
            FileError: The model is not on this machine, or damaged.
        """
        try:
            from transformers import VitPoseForPoseEstimation, VitPoseImageProcessor
        except ImportError as error:
            raise MissingDependencyError(
                "ViTPose needs the package transformers", where="load_detector('vitpose')", got=error,
                fix='pip install "posesyn[vitpose]"',
            ) from error  # fmt: skip
        name = str(model)
        try:
            processor = VitPoseImageProcessor.from_pretrained(name, local_files_only=True)
            network = VitPoseForPoseEstimation.from_pretrained(name, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            fetch = f"hf download {MODEL if Path(name).is_absolute() else name}"
            raise FileError(
                "a ViTPose model cannot be loaded", where=name, got=str(error).splitlines()[0][:200],
                fix=f"posesyn downloads nothing: get it with `{fetch}`, or pass the folder of one: "
                "load_detector('vitpose', checkpoint=...)",
            ) from error  # fmt: skip
        return cls(network, processor, **options).eval()

    def find(self, persons: list[Person]) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (B, 17, 2) in pixels of the persons' images and scores (B, 17): the peaks of the heatmaps."""
        corners = np.stack([person.body_box_xyxy for person in persons]).astype(np.float64)
        boxes = [[[*low, *(high - low)]] for low, high in zip(corners[:, :2], corners[:, 2:])]
        images = [person.image.load() for person in persons]
        pixels = self.processor(images, boxes=boxes, return_tensors="pt")["pixel_values"].to(device_of(self))
        experts = torch.full((len(persons),), self.dataset, device=pixels.device) if self._experts else None
        output = self.network(pixels, dataset_index=experts)
        found = [poses[0] for poses in self.processor.post_process_pose_estimation(output, boxes=boxes)]
        keypoints = np.stack([np.asarray(pose["keypoints"], np.float32) for pose in found])
        scores = np.stack([np.asarray(pose["scores"], np.float32) for pose in found])
        return keypoints, scores.clip(0, 1)
