from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from posesyn.errors import InputError
from posesyn.evaluation_commands import compare, evaluate
from posesyn.settings import DataSettings, EstimatorSettings
from posesyn.storage.shards import ClipWriter
from posesyn.training.evaluation_settings import EvaluationSettings


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
        evaluate(data, tmp_path / name, EstimatorSettings(), EvaluationSettings(resamples=50))
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
        EvaluationSettings(regressor=tmp_path / "J.npy").load_regressor(None)
