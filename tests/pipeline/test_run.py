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
from posesyn.pipeline.run import Arm, Pipeline
from posesyn.pipeline.summary import CONTROL, FINE_TUNED, read_rounds, round_folder
from posesyn.report import write_run_report
from posesyn.settings import (
    ExtractionSettings,
    FilterSettings,
    FineTuningSettings,
    RenderingSettings,
    RunSettings,
    SynthesisSettings,
)
from posesyn.storage.checkpoints import fingerprint, load_into, load_weights
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import read_json
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.training.estimators.fine_tuning import WEIGHTS
from tests.factories import (
    make_clip,
    make_estimator,
    make_labelled,
    make_motion,
    make_report,
    make_scored,
    write_clips,
)

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

    # A control beside it changes nothing.
    posesyn("run", *data, "--out", run, *picked, *motions, *drawn, *kept, *trained, *seed, "--control")
    printed = capsys.readouterr().out
    assert (
        f"control: {run / 'control'}" in printed
        and "weights: " in printed
        and "posesyn.load_estimator('hmr_small', checkpoint=" in printed
    )

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


PERSONS = [make_scored(index).person for index in range(8)]


@pytest.fixture
def tiny(body, tiny_prior, tmp_path):
    """A pipeline of tiny networks in a folder of that name."""

    def make(where, persons=PERSONS, **changes):
        settings = replace(TINY, synthesis=SynthesisSettings(num_motions=1, max_frames=16, steering="none"), **changes)
        synthesizer = MotionSynthesizer(tiny_prior, settings.synthesis, body=body)
        made = {"synthesizer": synthesizer, "device": "cpu", "progress": False}
        return Pipeline(make_estimator(), persons, tmp_path / where, settings, **made)

    return make


def everything(folder: Path) -> dict[str, str]:
    """What three rounds hand on, see :func:`contents`."""
    found = {}
    for number in (1, 2, 3):
        place = round_folder(folder, number)
        found |= {f"{number}/{name}": value for name, value in contents(place).items()}
        found |= {f"{number}/{path.parent.name}": path.read_bytes() for path in place.glob("control/*.safetensors")}
    return found


def trained_in(folder: Path):
    estimator = make_estimator()
    load_into(estimator, load_weights(folder / WEIGHTS))
    return estimator


def dies_on(call: int, render):
    """A renderer that is killed after the first clip of its n-th call."""
    calls = []

    def killed(*arguments, **options):
        calls.append(1)
        for clip in render(*arguments, **options):
            yield clip
            if len(calls) == call:
                raise KeyboardInterrupt

    return killed


@pytest.mark.integration
def test_rounds_mine_with_the_tuned_network_and_train_on_all_clips_so_far(tiny, tmp_path, monkeypatch):
    with tiny("straight", rounds=3, control=True) as straight:
        straight.run()
        page = straight.summary()
        ends = {arm: fingerprint(one) for arm, one in straight.trained.items()}
    rows = read_rounds(tmp_path / "straight")
    assert [row["round"] for row in rows] == [1, 2, 3] and [row["folder"] for row in rows] == [
        ".",
        "round_2",
        "round_3",
    ]
    assert len({row["seed"] for row in rows}) == 3 and rows[0]["new"] == 2
    mined = [set(row["persons"]) for row in rows]
    assert [row["new"] for row in rows[1:]] == [len(mined[1] - mined[0]), len(mined[2] - mined[1] - mined[0])]
    assert [row["frames_trained_on"] for row in rows] == np.cumsum([row["kept_frames"] for row in rows]).tolist()
    before = fingerprint(make_estimator())
    starts = {FINE_TUNED: before, CONTROL: before}
    for row in rows:
        folder = tmp_path / "straight" / row["folder"]
        config = {arm: read_json(folder / arm / "config.json") for arm in starts}
        assert read_json(folder / "extraction" / "config.json")["estimator_fingerprint"] == starts[FINE_TUNED]
        assert config[FINE_TUNED]["synthetic"] == row["frames_trained_on"] and config[CONTROL]["synthetic"] is None
        for arm, start in starts.items():  # each goes on from its own weights; nothing else differs
            assert config[arm].pop("weights") == start
            config[arm].pop("synthetic")
            starts[arm] = fingerprint(trained_in(folder / arm))
        assert config[FINE_TUNED] == config[CONTROL]
        assert all(np.isfinite([row["error"][name], row["error_of_first"][name]]).all() for name in row["error"])
    assert ends == starts and starts[CONTROL] != starts[FINE_TUNED]
    assert list(page.rows[0]) == ["persons", "count", "before", "control", "after"] and len(page.rounds) == 3
    assert page.rows[0]["after"] == pytest.approx(rows[2]["error_of_first"]["after"])
    assert page.rows[0]["before"] == pytest.approx(rows[0]["error"]["before"])
    assert "round 3: extract" in page.timings and any("The control started" in note for note in page.notes)
    write_run_report(tmp_path / "report.html", page)
    assert "Round by round" in (tmp_path / "report.html").read_text()

    # One round without a control is the first of these, to the byte; and it goes on with what is asked for later ...
    with tiny("later") as later:
        later.run()
        assert later.summary().rounds == () and list(later.summary().rows[0])[2:] == ["before", "after"]
    first, whole = everything(tmp_path / "later"), everything(tmp_path / "straight")
    assert first.items() < whole.items()
    assert set(first) == {name for name in whole if name.startswith("1/") and CONTROL not in name}
    # ... also where round 2 is killed.
    with tiny("later", rounds=3, control=True) as killed, monkeypatch.context() as patch:
        patch.setattr(killed.renderer, "render", dies_on(2, killed.renderer.render))
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    assert len(read_rounds(tmp_path / "later")) == 1
    with tiny("later", rounds=3, control=True) as continued:
        continued.run()
    assert everything(tmp_path / "later") == whole and read_rounds(tmp_path / "later") == rows


@pytest.mark.integration
def test_lifted_labels_reach_the_training_as_an_option_and_as_an_arm(tiny, tmp_path, body):
    held_out = [make_labelled(body, f"held out {row}") for row in range(2)]
    with tiny("lifted", lifted_labels=True, control=True) as run:
        run.run()
        found = run.score_held_out(held_out)
        page = run.summary()
    assert list(found) == ["before", "after", "control"] and len(run.lifted) == len(PERSONS)
    held = [row for row in page.rows if row["persons"].startswith("held out")]
    assert [row["persons"] for row in held] == ["held out: MPJPE [mm]", "held out: PA-MPJPE [mm]"]
    assert held[0]["control"] == pytest.approx(found["control"].values["MPJPE [mm]"].mean())
    assert "Held-out persons" in page.table_note and any("8 real persons have lifted" in note for note in page.notes)
    with tiny("plain") as plain:
        arms = plain.fine_tune_all({"lifted": Arm(lifted=True), CONTROL: None})
    own = {arm: fingerprint(one) for arm, one in arms.items()}
    # The control of a run with lifted labels has them, too: nothing but the synthetic persons differs.
    assert own["lifted"] == fingerprint(trained_in(tmp_path / "lifted" / CONTROL)) != own[CONTROL]
    with pytest.raises(RunError, match="lifted_labels"):
        tiny("lifted")


def test_what_cannot_be_lifted_is_told_before_a_folder_is_made(tiny, tmp_path, body):
    with pytest.raises(InputError, match="3D labels for everybody"):
        tiny("nobody", persons=[make_labelled(body)], lifted_labels=True)
    assert not (tmp_path / "nobody").exists()
