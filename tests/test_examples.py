"""The examples in docstrings run as they stand, with ``import numpy as np, torch, posesyn as ps`` before them."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

import posesyn as ps

ROOT = Path(ps.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if ">>> " in path.read_text("utf-8"))
SHOWN = [
    *(name for name in ps.__all__ if name[0].isupper()), "load_body", "load_estimator", "data.RenderedClips",
    "data.crop_person", "data.load_motion", "evaluation.evaluate", "metrics.bootstrap_mean", "metrics.mpjpe",
    "metrics.oks", "metrics.pa_mpjpe", "metrics.pck3d", "skeletons.convert", "training.MixedPoseDataModule",
    "training.PoseEstimatorModule",
]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples(path):
    name = ".".join(("posesyn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"np": np, "ps": ps, "torch": torch})
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", SHOWN)
def test_the_public_names_show_how_they_are_used(name):
    value = ps
    for part in name.split("."):
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(f"{value.__name__}.{part}")
    assert ">>> " in (value.__doc__ or "")
