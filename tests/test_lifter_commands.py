"""The two training commands of lifters, on mocap of ../shared/data."""

from __future__ import annotations

import shutil

import pytest

from posesyn.cli import main
from posesyn.estimators.lifters.registry import load_lifter


def test_bad_data_is_told(tmp_path, capsys):
    data = ["--data.format", "motions", "--data.path", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["train", "lifter", *data]) == 2
    assert "no motions" in capsys.readouterr().err


def test_lifter_then_poseaug(tmp_path, shared, capsys):
    files = [shared / "data/cmu/bvh" / f"{name}.bvh.gz" for name in ("02_01", "06_01", "08_01")]
    motions = tmp_path / "motions"
    motions.mkdir()
    for path in files:
        if not path.is_file():
            pytest.skip(f"{path.name} is not in the data")
        shutil.copy(path, motions)
    data = ["--data.format", "motions", "--data.path", str(motions), "--lifter.options", '{"width": 32}']
    alone = ["train", "lifter", *data, "--out", str(tmp_path / "lifter"), "--settings.epochs", "1"]
    assert main(alone) == 0, capsys.readouterr().err
    start = ["--lifter.checkpoint", str(tmp_path / "lifter/lifter.safetensors")]
    small = ["--settings.epochs", "1", "--settings.warmup", "0", "--settings.batch_size", "128"]
    assert main(["train", "poseaug", *data, *start, *small, "--out", str(tmp_path / "poseaug")]) == 0
    assert load_lifter(tmp_path / "poseaug/lifter.safetensors").options()["width"] == 32
