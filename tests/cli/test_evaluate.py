from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from posesyn.cli import main as cli
from posesyn.cli.evaluate import compare, evaluate_estimator
from posesyn.errors import InputError
from posesyn.settings import DataSettings, EstimatorSettings, EvaluationSettings
from posesyn.storage.clip_writer import ClipWriter


@pytest.fixture
def clips(make_clip, tmp_path) -> Path:
    folder = tmp_path / "clips"
    with ClipWriter(folder, plan=["a", "b"], config={}) as writer:
        for seed, name in enumerate("ab"):
            writer.write(make_clip(name, frames=3, size=48, seed=seed))
    return folder


def test_evaluate_and_compare_from_the_command_line(clips, tmp_path, capsys):
    data = DataSettings(images=clips, format="rendered")
    for name in ("one", "two"):
        evaluate_estimator(data, tmp_path / name, EstimatorSettings(), EvaluationSettings(resamples=50))
    printed = capsys.readouterr().out
    assert "protocol smpl24" in printed and "MPJPE [mm]" in printed
    content = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert content["settings"]["root"] == ["pelvis"] and content["results"][0]["sequences"] == 2
    assert len(content["by_joint"]) == 24 and content["interval"]["resamples"] == 50
    for file in ("error_by_joint.svg", "pck_curve.svg", "histogram.svg"):
        assert (tmp_path / "one" / file).read_bytes().startswith(b"<?xml")
    compare(tmp_path / "one", tmp_path / "two", tmp_path / "deeper" / "compare.json", resamples=20)
    rows = json.loads((tmp_path / "deeper" / "compare.json").read_text())["rows"]
    assert rows[0]["difference"] == 0 and rows[0]["p"] == 1 and rows[0]["better"] == "equal"
    assert "| MPJPE [mm]" in capsys.readouterr().out


def test_settings_that_make_no_sense(tmp_path):
    with pytest.raises(InputError):
        EvaluationSettings(level=1.0)
    np.save(tmp_path / "J.npy", np.zeros((17, 3)))
    with pytest.raises(InputError, match="needs the SMPL body"):
        EvaluationSettings(regressor=tmp_path / "J.npy")


def test_the_command_line_scores_clips_and_compares(clips, tmp_path, capsys):
    arguments = ["evaluate", "estimator", "--data.format", "rendered", "--data.images", str(clips)]
    arguments += ["--evaluation.resamples", "20"]
    for name in ("one", "two"):
        assert cli.main([*arguments, "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name / "persons.parquet").is_file()
    assert cli.main(["compare", "--first", str(tmp_path / "one"), "--second", str(tmp_path / "two")]) == 0
    assert "| MPJPE [mm]" in capsys.readouterr().out


def test_the_command_line_scores_real_photos(shared, tmp_path, capsys):
    folder = shared / "data" / "images" / "coco"
    annotations = next(folder.glob("*.json"))
    arguments = ["--data.annotations", str(annotations), "--data.images", str(folder)]
    status = cli.main(
        ["evaluate", "estimator", *arguments, "--evaluation.protocol", "coco-pck", "--out", str(tmp_path / "coco")]
    )
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert "PCK" in captured.out
    content = json.loads((tmp_path / "coco" / "evaluation.json").read_text())
    assert content["settings"]["name"] == "coco-pck"


def test_every_published_format_can_be_named(tmp_path, capsys):
    status = cli.main(
        ["evaluate", "estimator", "--data.format", "emdb", "--data.images", str(tmp_path), "--out", str(tmp_path / "o")]
    )
    assert status == 2 and str(tmp_path) in capsys.readouterr().err
