"""Small persons and networks for the tests of estimators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.body import load_body
from posesyn.estimators.hmr import HMR
from posesyn.types import ArrayImage, Person


@pytest.fixture(scope="session")
def body():
    return load_body(size="small")


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
