"""The order of the stages, the folder of a run, and what happens when it is killed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posesyn.cli.build import PipelineSettings
from posesyn.errors import RunError
from posesyn.pipeline.run import Pipeline, thin_motion
from posesyn.settings.training import FineTuningSettings
from posesyn.types import Motion

TINY = PipelineSettings(
    num_challenging=2,
    num_non_challenging=2,
    num_motions=2,
    frames_per_motion=2,
    image_size=64,
    fine_tuning=FineTuningSettings(steps=2, batch_size=4, checkpoint_every=1),
)


def make_motion(frames: int, anchor: int | None) -> Motion:
    transl = np.arange(frames, dtype=np.float32)[:, None].repeat(3, 1)
    return Motion("m", np.zeros((frames, 24, 3)), transl, np.zeros(10), 20.0, anchor_frame=anchor)


@pytest.mark.parametrize(
    ("frames", "anchor", "count", "stride"), [(40, 13, 7, 3), (40, 0, 7, 3), (40, 39, 7, 3), (3, 1, 7, 3)]
)
def test_thin_motion_keeps_the_anchor(frames, anchor, count, stride):
    thin = thin_motion(make_motion(frames, anchor), count, stride)
    rows = thin.transl_world[:, 0].astype(int)
    assert rows[thin.anchor_frame] == anchor
    assert len(rows) == min(count, len(range(anchor % stride, frames, stride)))
    assert (np.diff(rows) == stride).all()
    assert len(rows) == 1 or thin.fps == pytest.approx(20 / stride)


def test_thin_motion_without_anchor_takes_the_middle():
    rows = thin_motion(make_motion(41, None), 5, 4).transl_world[:, 0]
    assert rows[2] == 20


@pytest.mark.integration
def test_run_goes_through_on_photos_and_resumes(shared, tmp_path, monkeypatch):
    from posesyn.data import CocoKeypoints
    from posesyn.estimators import load_estimator

    folder = shared / "data" / "images" / "coco"
    persons = CocoKeypoints(folder / "annotations.json", folder)
    out = tmp_path / "run"

    def pipeline(where=out, settings=TINY):
        return Pipeline(load_estimator("hmr_small"), persons, where, settings, progress=False)

    # Killed in the middle of the rendering ...
    with pipeline() as first:
        report = first.extract()
        motions = first.synthesize(report)
        render, made = first.renderer.render, []

        def dies_after_one(*arguments, **options):
            for clip in render(*arguments, **options):
                if made:
                    raise KeyboardInterrupt
                made.append(clip.clip_id)
                yield clip

        monkeypatch.setattr(first.renderer, "render", dies_after_one)
        with pytest.raises(KeyboardInterrupt):
            first.render(motions, report)
    assert len(motions) == 4 and len(made) == 1

    # ... and continued: what was there is not made again, and the end is that of a run in one go.
    with pipeline() as second:
        trained = second.run()
        summary = second.summary()
    with pipeline(tmp_path / "straight") as straight:
        straight.run()
    clips = [list((where / "clips" / "shards").glob("*.tar")) for where in (out, tmp_path / "straight")]
    assert [path.read_bytes() for path in clips[0]] == [path.read_bytes() for path in clips[1]]
    assert summary.funnel["rendered frames"] == 8
    assert [row["persons"] for row in summary.rows] == ["challenging", "non-challenging"]
    assert all(np.isfinite([row["before"], row["after"]]).all() for row in summary.rows)
    assert len(summary.improved) == 2
    before = dict(second.estimator.named_parameters())
    assert any(not np.allclose(before[k].detach(), v.detach()) for k, v in trained.named_parameters())

    # Another setting in the same folder is refused by name.
    with pytest.raises(RunError, match="num_motions"):
        pipeline(settings=replace(TINY, num_motions=3))
