"""An estimator that answers with joints only goes through the whole chain."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from posesyn.data import CocoKeypoints
from posesyn.pipeline.run import Pipeline
from posesyn.report import write_run_report
from posesyn.settings import ExtractionSettings, FineTuningSettings, RenderingSettings, RunSettings, SynthesisSettings

TINY = RunSettings(
    ExtractionSettings(num_challenging=2, num_non_challenging=2),
    SynthesisSettings(num_motions=1, max_frames=48),
    RenderingSettings(frames_per_motion=2, image_size=64),
    training=FineTuningSettings(steps=2, batch_size=2, checkpoint_every=1),
)


@pytest.mark.integration
def test_photographs_become_a_fine_tuned_network(shared, tmp_path, random_lite):
    folder = shared / "data" / "images" / "coco"
    persons = CocoKeypoints(folder / "annotations.json", folder)
    estimator = copy.deepcopy(random_lite)
    before = {name: value.detach().clone() for name, value in estimator.named_parameters()}
    with Pipeline(estimator, persons, tmp_path / "run", TINY, progress=False) as pipeline:
        trained = pipeline.run()
        summary = pipeline.summary()
    assert summary.funnel["rendered frames"] == 4
    assert all(np.isfinite([row["before"], row["after"]]).all() for row in summary.rows)
    moved = {
        name for name, value in trained.named_parameters() if not np.allclose(before[name], value.detach(), atol=0)
    }
    assert any(name.startswith("landmarks.trunk") for name in moved)
    assert not any(name.startswith(("detector", "landmarks.segmentation")) for name in moved)
    write_run_report(tmp_path / "report.html", summary)
    assert "blazepose_lite" in (tmp_path / "report.html").read_text()
