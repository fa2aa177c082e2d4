"""The demo with tiny sizes: the chain is whole and comparable, whatever the numbers are."""

from __future__ import annotations

import json

import pytest

from posesyn.demo.run import BEFORE, CONTROL, OURS, WorldSettings, run_demo
from posesyn.settings import ExtractionSettings, FineTuningSettings, RenderingSettings, RunSettings, SynthesisSettings


@pytest.mark.integration
def test_tiny_demo_runs_and_resumes(tmp_path):
    sizes = WorldSettings(lab_motions=2, wild_motions=4, held_out_motions=2, frames_per_motion=2, image_size=96)
    settings = RunSettings(
        ExtractionSettings(num_challenging=2, num_non_challenging=2),
        SynthesisSettings(num_motions=2, airborne=None),
        RenderingSettings(frames_per_motion=2, image_size=96),
        training=FineTuningSettings(steps=2, batch_size=4, learning_rate=1e-4),
    )
    result = run_demo(tmp_path, seed=3, progress=False, sizes=sizes, settings=settings)
    assert list(result.evaluations) == [BEFORE, CONTROL, OURS]
    ids = {evaluation.person_ids for evaluation in result.evaluations.values()}
    assert len(ids) == 1 and result.held_out_persons == 4
    assert result.funnel["motions"] == 4 and result.funnel["rendered frames"] == 8
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["rows"][0]["model"] == BEFORE
    again = run_demo(tmp_path, seed=3, progress=False, sizes=sizes, settings=settings)
    for name in result.evaluations:
        assert (result.evaluations[name].mpjpe_mm == again.evaluations[name].mpjpe_mm).all()
