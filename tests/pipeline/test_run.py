"""The order of the stages, the folder of a run, and what happens when it is killed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posesyn.cli.main import main
from posesyn.detectors import CallableDetector
from posesyn.errors import InputError, RunError
from posesyn.estimators import EstimatorKeypointDetector, load_estimator
from posesyn.pipeline import stages
from posesyn.pipeline.run import Pipeline
from posesyn.settings import (
    ExtractionSettings,
    FilterSettings,
    FineTuningSettings,
    RenderingSettings,
    RunSettings,
    SynthesisSettings,
)
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import read_json
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from tests.factories import make_clip, make_motion, make_report, make_scored, write_clips

TINY = RunSettings(
    ExtractionSettings(num_challenging=2, num_non_challenging=2),
    SynthesisSettings(num_motions=2),
    RenderingSettings(frames_per_motion=2, image_size=64),
    training=FineTuningSettings(steps=2, batch_size=4, checkpoint_every=1),
)


def contents(folder: Path) -> dict[str, str]:
    """Name → hash of everything that a stage hands on: motions, shards, what the filter kept, weights."""
    patterns = ("motions/*.npz", "clips/shards/*.tar", "clips/keep.json", "fine_tuned/*.safetensors")
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.integration
def test_the_hand_chain_gives_the_same_bytes_as_a_run(shared, tmp_path, capsys):
    folder = shared / "data" / "images" / "coco"
    data = ["--data.annotations", str(folder / "annotations.json"), "--data.images", str(folder)]
    picked = ["--extraction.num_challenging", "2", "--extraction.num_non_challenging", "2"]
    motions = ["--synthesis.num_motions", "2", "--synthesis.max_frames", "48"]
    drawn = ["--rendering.frames_per_motion", "2", "--rendering.image_size", "64"]
    judge = ["--filtering.rule", "estimator", "--filtering.quantile", "0.6", "--filtering.calibration_frames", "4"]
    kept, trained = judge, ["--training.steps", "2", "--training.batch_size", "4"]
    seed, quiet = ["--seed", "5"], ["--progress", "false", "--device", "cpu"]
    run, hand = tmp_path / "run", tmp_path / "hand"

    def posesyn(*arguments):
        assert main([*map(str, arguments), *quiet]) == 0, capsys.readouterr().err

    posesyn("run", *data, "--out", run, *picked, *motions, *drawn, *kept, *trained, *seed)
    printed = capsys.readouterr().out
    assert "weights: " in printed and "posesyn.load_estimator('hmr_small', checkpoint=" in printed

    found = ["--extraction", hand / "extraction"]
    posesyn("extract", *data, "--out", hand / "extraction", *picked)
    posesyn("synthesize", *data, *found, "--out", hand / "motions", *motions, *seed)
    posesyn("render", "--motions", hand / "motions", *data, *found, "--out", hand / "clips", *drawn, *seed)
    posesyn("filter", "--clips", hand / "clips", *kept)
    posesyn("train", "estimator", *data, "--clips", hand / "clips", "--out", hand / "fine_tuned", *trained, *seed)

    ours, theirs = contents(run), contents(hand)
    assert ours == theirs and len(ours) == 4 + 1 + 1 + 1
    assert "of 4 right labels" in printed and "of 4 right labels" in (run / "report.html").read_text()
    # The two know each other: a run goes on in what was made by hand, and the other way round.
    for stage in ("extraction", "motions", "clips", "fine_tuned"):
        configs = [(place / stage / "config.json").read_text() for place in (run, hand)]
        assert configs[0] == configs[1], stage


@pytest.mark.parametrize("stage", ["run", "motions", "clips"])
def test_what_an_earlier_version_began_is_refused(body, tiny_prior, tmp_path, stage):
    """Motions of before have other seeds: a folder must not hold both."""
    (tmp_path / "config.json").write_text(f'{{"kind": "{stage}", "layout": {stages.LAYOUT - 1}}}')
    with pytest.raises(RunError, match="cannot continue"):
        if stage == "run":
            Pipeline(load_estimator("hmr_small"), [make_scored().person], tmp_path, TINY, progress=False)
        elif stage == "motions":
            made = MotionSynthesizer(tiny_prior, body=body)
            stages.synthesize(make_report(), TINY.synthesis, tmp_path, synthesizer=made)
        else:
            stages.render([make_motion()], TINY.rendering, tmp_path)


def test_the_detector_of_a_run_is_independent_and_stays_the_same(tmp_path):
    estimator, person = load_estimator("hmr_small"), make_scored().person

    def pipeline(where, **changes):
        return Pipeline(estimator, [person], tmp_path / where, TINY, progress=False, **changes)

    def middle(images, boxes):
        return np.repeat((boxes[:, None, :2] + boxes[:, None, 2:]) / 2, 17, axis=1)

    with pytest.raises(InputError, match=r"one network \(hmr_small\)"):
        pipeline("own", detector=EstimatorKeypointDetector(estimator))
    with pytest.raises(InputError, match="needs a detector"):
        Pipeline(estimator, [person], tmp_path / "own", replace(TINY, filtering=FilterSettings(rule="detector")))
    assert not (tmp_path / "own").exists()
    with pipeline("run", detector=CallableDetector(middle, name="middle")) as run:
        clips = write_clips(tmp_path / "run" / "clips", [make_clip()])
        run.settings = replace(TINY, filtering=FilterSettings(threshold=0.0))
        run.filter(ClipStore(tmp_path / "run" / "clips"))
        assert clips and read_json(tmp_path / "run" / "clips" / stages.FILTERED)["mode"] == "detector"
    pipeline("run", detector=CallableDetector(middle, name="middle")).close()
    for other in (None, CallableDetector(middle, name="other")):
        with pytest.raises(RunError, match="detector"):
            pipeline("run", detector=other)


@pytest.mark.integration
def test_run_goes_through_on_photos_and_resumes(shared, tmp_path, monkeypatch):
    from posesyn.data import CocoKeypoints

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
        pipeline(settings=replace(TINY, synthesis=SynthesisSettings(num_motions=3)))
