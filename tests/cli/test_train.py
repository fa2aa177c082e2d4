"""The two training commands of lifters, on mocap of ../shared/data."""

from __future__ import annotations

import json
import shutil

import pytest

from posesyn.cli.main import main
from posesyn.estimators.lifters import load_lifter


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
    data = ["--data.format", "motions", "--data.path", str(motions), "--progress", "false"]
    alone = ["train", "lifter", *data, "--lifter.name", "stgcn", "--lifter.options", '{"width": 8}']
    assert main([*alone, "--out", str(tmp_path / "lifter"), "--training.epochs", "1"]) == 0, capsys.readouterr().err
    assert "epoch 1 was best on validation data" in capsys.readouterr().out
    start = ["--lifter.checkpoint", str(tmp_path / "lifter/lifter.safetensors")]
    small = ["--training.epochs", "1", "--training.warmup", "0", "--training.batch_size", "128"]
    assert main(["train", "poseaug", *data, *start, *small, "--out", str(tmp_path / "poseaug")]) == 0
    made = tmp_path / "poseaug/lifter.safetensors"
    assert load_lifter(made).options() == {"width": 8, "dropout": 0}  # as published: none with PoseAug
    other = ["train", "poseaug", *data, "--lifter.name", "mlp", *start, *small, "--out", str(tmp_path / "other")]
    assert main(other) == 2
    assert "--lifter.name stgcn" in capsys.readouterr().err
    scored = ["evaluate", "lifter", *data[:4], "--data.rig.heights", "[0.5, 0.7]", "--lifter.checkpoint", str(made)]
    assert main([*scored, "--out", str(tmp_path / "scores.json")]) == 0
    assert "stgcn," in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text()).keys() >= {"mpjpe", "pa_mpjpe", "pck150", "auc", "poses"}
