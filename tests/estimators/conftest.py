"""Small persons and networks for the tests of estimators."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from posesyn.estimators.hmr import HMR
from posesyn.types import ArrayImage, Person


@pytest.fixture(scope="session")
def small(body):
    torch.manual_seed(0)
    return HMR.small(body=body).eval()


@pytest.fixture
def persons(rng) -> list[Person]:
    """Five persons in three images of different sizes."""
    images = [
        ArrayImage(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), f"image{i}")
        for i, (height, width) in enumerate(((120, 160), (200, 90), (64, 64)))
    ]
    boxes = [(20, 10, 80, 110), (100, 30, 150, 119), (5, 20, 85, 190), (10, 12, 50, 60), (-8, -8, 40, 70)]
    return [
        Person(
            f"person/{i}",
            images[min(i // 2, 2)],
            np.array(box, np.float32),
            rng.uniform(0, 60, (17, 2)),
            rng.random(17) < 0.8,
            "coco17",
        )
        for i, box in enumerate(boxes)
    ]


@pytest.fixture
def labelled(body, rng) -> list[Person]:
    """Four persons whose 3D labels, keypoints and boxes agree, each in an image of its own."""
    from posesyn.geometry.rotations import rotvec_to_matrix
    from posesyn.types import BodyLabels

    made = []
    for row in range(4):
        pose = rotvec_to_matrix(torch.from_numpy(rng.normal(0, 0.2, (1, 24, 3)).astype(np.float32)))
        pose[0, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ pose[0, 0]
        betas = torch.from_numpy(rng.normal(0, 0.5, (1, 10)).astype(np.float32))
        transl = torch.tensor([[0.1 * row - 0.15, 0.0, 3.0]])
        joints = body(pose, betas, transl).joints[0].numpy()
        camera = np.array([[150, 0, 63.5], [0, 150, 63.5], [0, 0, 1]], np.float32)
        points = joints @ camera.T
        keypoints = points[:, :2] / points[:, 2:]
        box = np.concatenate((keypoints.min(0), keypoints.max(0)))
        image = ArrayImage(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8), f"labelled{row}")
        labels = BodyLabels(pose[0].numpy(), betas[0].numpy(), transl[0].numpy(), joints, camera)
        visible = np.ones(45, bool)
        made.append(Person(f"labelled/{row}", image, box, keypoints, visible, "smpl45", labels=labels))
    return made


class Official:
    """Files in the published layouts, with weights from the recipe of ../shared/conformance."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        try:
            self.fill = importlib.import_module("fill")
        finally:
            sys.path.remove(str(folder))
        self.folder = folder

    def spec(self, name: str) -> dict:
        return json.loads((self.folder / name / "spec.json").read_text())

    def vectors(self, name: str):
        return np.load(self.folder / name / "vectors.npz")

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        arrays = self.fill.state(self.spec(name), given=self.vectors(name))
        return {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}

    def image(self, name: str, mean=(0, 0, 0), std=(1, 1, 1)) -> torch.Tensor:
        spec = self.spec(name)
        blocks = self.fill.blocks("input:image", spec["inputs"]["image"]["shape"], spec["seed"], 16)
        mean, std = (np.array(value, np.float32)[:, None, None] for value in (mean, std))
        return torch.from_numpy((self.fill.sigmoid(1.5 * blocks) - mean) / std)

    def compare(self, name: str, output: dict[str, torch.Tensor]) -> None:
        vectors = self.vectors(name)
        for key, entry in self.spec(name)["outputs"].items():
            result = output[key].detach().numpy()
            if "stored" in entry:
                parts = entry["stored"].strip("[]").split(",")
                result = result[tuple(slice(*(int(n) if n.strip() else None for n in p.split(":"))) for p in parts)]
            np.testing.assert_allclose(result, vectors[key], atol=1e-4, rtol=1e-4, err_msg=key)


@pytest.fixture(scope="session")
def official(shared) -> Official:
    return Official(shared / "conformance")
