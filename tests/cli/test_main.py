"""The command line: what a user sees when it goes right and when it does not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from posesyn.cli import main as cli


def test_help_lists_all_stages(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(["--help"])
    assert ending.value.code == 0
    text = capsys.readouterr().out
    for name in ("demo", "run", "extract", "synthesize", "render", "filter", "train", "evaluate", "compare", "report"):
        assert name in text


def test_help_loads_no_torch():
    code = (
        "import sys, posesyn.cli.main\n"
        "try: posesyn.cli.main.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"


def test_unknown_estimator_is_a_clear_error(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    arguments = ["extract", "--data.annotations", str(tmp_path / "a.json"), "--data.images", str(tmp_path)]
    status = cli.main([*arguments, "--out", str(tmp_path / "out"), "--estimator.name", "hrm_small"])
    message = capsys.readouterr().err
    assert status == 2
    assert "hrm_small" in message and "hmr_small" in message
    assert "Traceback" not in message


def test_missing_motions_is_a_clear_error(tmp_path, capsys):
    assert cli.main(["render", "--motions", str(tmp_path / "nothing"), "--out", str(tmp_path / "o")]) == 2
    assert "there are no motions" in capsys.readouterr().err


def test_wrong_setting_is_refused(tmp_path, capsys):
    assert cli.main(["run", "--data.images", "x", "--out", str(tmp_path), "--settings.num_motions", "0"]) == 2
    assert "num_motions" in capsys.readouterr().err


def test_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(**arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("posesyn.cli.stages.COMMANDS", {"demo": interrupted, "run": interrupted})
    assert cli.main(["demo"]) == cli.INTERRUPTED
    assert "to resume" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize(("name", "persons"), [("coco", 27), ("mpii", 3)])
def test_extract_ranks_the_photos(shared, tmp_path, capsys, name, persons):
    folder = shared / "data" / "images" / name
    out = tmp_path / "übung 1"
    arguments = ["--data.annotations", str(folder / "annotations.json"), "--data.images", str(folder)]
    status = cli.main(["extract", "--data.format", name, *arguments, "--out", str(out)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    report = (out / "report.html").read_text()
    ranked = int(next(line for line in printed.out.splitlines() if "ranked" in line).split()[0])
    skipped = int(next(line for line in printed.out.splitlines() if "ranked" in line).split(", ")[1].split()[0])
    with open(folder / "annotations.json") as handle:
        content = json.load(handle)
    annotated = len(content["annotations"]) if name == "coco" else len(content)
    assert ranked + skipped <= annotated and ranked >= annotated - 2
    assert "<script" not in report and "data:image" in report


@pytest.mark.integration
def test_extract_is_told_how_to_score(shared, tmp_path, capsys):
    folder = shared / "data" / "images" / "coco"
    command = ["extract", "--data.annotations", str(folder / "annotations.json"), "--data.images", str(folder)]
    command += ["--selection.num_challenging", "4", "--selection.num_non_challenging", "2"]
    command += ["--out", str(tmp_path / "o")]
    told = ["--scoring.normalizer", "torso", "--scoring.selection", "diverse", "--scoring.joint_weights", "uniform"]
    assert cli.main([*command, *told, "--scoring.others", '[{"name": "hmr_small"}]']) == 0, capsys.readouterr().err
    config = json.loads((tmp_path / "o/report.json").read_text())
    assert len(config["challenging"]) == 4
    capsys.readouterr()
    # The folder holds a ranking by another error now.
    assert cli.main(command) == 2
    assert "normalizer" in capsys.readouterr().err
    assert cli.main([*command, "--scoring.rank_by", "disagreement"]) == 2
    assert "others" in capsys.readouterr().err


def test_scoring_settings_leave_earlier_runs_as_they_are():
    from dataclasses import asdict

    from posesyn.cli.build import EstimatorSettings, ScoringSettings
    from posesyn.settings import ExtractionSettings

    assert ScoringSettings().identity() == {} == ScoringSettings(num_processes=3, error_budget=5).identity()
    changed = ScoringSettings(joint_weights={"wrist": 3.0}, others=[EstimatorSettings("hmr")], rank_by="disagreement")
    assert set(changed.identity()["scoring"]) == {"joint_weights", "others", "rank_by"}
    # The defaults are the stage's own.
    own = asdict(ExtractionSettings())
    for name, value in ScoringSettings().options().items():
        assert value == ([] if name == "others" else own[name]), name


@pytest.mark.integration
@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_run_on_photos_ends_in_shards_and_stages_continue(shared, tmp_path, capsys, name):
    folder, out = shared / "data" / "images" / name, tmp_path / "run"
    config = tmp_path / "run.yaml"
    config.write_text(
        f"data: {{format: {name}, images: {folder}, annotations: {folder / 'annotations.json'}}}\nout: {out}\n"
        "settings: {num_challenging: 1, num_non_challenging: 1, num_motions: 1, frames_per_motion: 2, image_size: 64,\n"
        "  fine_tuning: {steps: 0}}\n"
    )
    assert cli.main(["run", "--config", str(config)]) == 0, capsys.readouterr().err
    assert list((out / "clips" / "shards").glob("*.tar"))
    assert "data:image" in (out / "report.html").read_text()
    # Filtering again starts from all frames, so that it ends where it ended before.
    capsys.readouterr()
    kept = []
    for _ in range(2):
        assert cli.main(["filter", "--clips", str(out / "clips"), "--quantile", "0.5"]) == 0
        kept.append(capsys.readouterr().out)
    assert kept[0] == kept[1]
    # The same folder with other settings is refused by the name of the setting.
    config.write_text(config.read_text().replace("num_motions: 1", "num_motions: 2"))
    assert cli.main(["run", "--config", str(config)]) == 2
    assert "num_motions" in capsys.readouterr().err


def test_motions_can_be_told_from_the_command_line(tmp_path):
    from posesyn.cli.build import MotionSettings
    from posesyn.settings.synthesis import SynthesisSettings

    assert MotionSettings().load().settings == SynthesisSettings()
    plain = MotionSettings(steering="none", max_frames=48, temperature=0.9, oversample=2)
    told = plain.load().settings
    assert (told.steering, told.max_frames, told.temperature, told.oversample) == ("none", 48, 0.9, 2)
    # A run of before, which knew no such settings, goes on as long as they are the default's.
    assert MotionSettings().identity() == {} and set(plain.identity()["motion"]) == {
        *("steering", "max_frames", "temperature", "oversample")
    }


def test_reader_options_are_told_on_the_command_line(tmp_path, capsys, monkeypatch):
    import numpy as np
    from scipy.io import savemat

    from posesyn.cli.build import DataSettings
    from posesyn.errors import InputError

    for video in ("first", "second"):
        (tmp_path / "joints" / "jump" / video).mkdir(parents=True)
        (tmp_path / "images" / "jump" / video).mkdir(parents=True)
        points = np.random.default_rng(0).uniform(20, 200, (2, 15, 6))
        savemat(tmp_path / "joints" / "jump" / video / "joint_positions.mat", {"pos_img": points})
        for frame in range(1, 7):  # only looked for, never decoded here
            (tmp_path / "images" / "jump" / video / f"{frame:05d}.png").touch()
    (tmp_path / "jump_test_split1.txt").write_text("first.avi 1\nsecond.avi 2\n")
    seen = []

    load = DataSettings.load

    def recorded(settings):
        seen.append((settings, load(settings).person_ids))
        raise InputError("no more is needed")

    monkeypatch.setattr(DataSettings, "load", recorded)
    places = ["--data.annotations", str(tmp_path / "joints"), "--data.images", str(tmp_path / "images")]
    base = ["report", "--extraction", "x", "--out", "x.html", "--data.format", "jhmdb", *places]
    told = ["--data.options.split", str(tmp_path / "jump_test_split1.txt"), "--data.options.stride", "2"]
    for arguments in ([], told, [*told, "--data.options.part", "train"]):
        assert cli.main([*base, *arguments]) == 2
        assert "no more is needed" in capsys.readouterr().err
    assert [len(names) for _, names in seen] == [12, 3, 3]
    assert seen[1][1] == [f"jhmdb/jump/second@{frame:05d}" for frame in (1, 3, 5)]
    assert seen[2][1][0] == "jhmdb/jump/first@00001"
    # A folder made without options goes on; one made with others does not.
    assert not any(name.startswith("option") for name in seen[0][0].identity())
    assert seen[1][0].identity()["option_stride"] == "2"
    assert cli.main([*base, "--data.options.strides", "2"]) == 2
    assert "'strides'" in capsys.readouterr().err
    assert cli.main([*base, "--data.options.on_missing", "skip"]) == 2
    assert "data.on_missing" in capsys.readouterr().err


def test_models_that_are_not_there_are_named_before_anything_is_made(shared, tmp_path, capsys):
    folder = shared / "data" / "images" / "coco"
    arguments = ["--data.annotations", str(folder / "annotations.json"), "--data.images", str(folder)]
    missing = ["--captioner.model", str(tmp_path / "no_model")]
    assert cli.main(["run", *arguments, "--out", str(tmp_path / "out"), *missing]) == 2
    assert "no_model" in capsys.readouterr().err and not (tmp_path / "out").exists()
    missing = ["--motion.prior", str(tmp_path / "no_prior.safetensors")]
    assert cli.main(["run", *arguments, "--out", str(tmp_path / "out"), *missing]) == 2
    assert "no_prior" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.integration
def test_a_model_captions_a_run_and_the_users_text_wins(shared, tmp_path, capsys, vision_model):
    from posesyn.cli.build import CaptionerSettings, DataSettings
    from posesyn.data import load_motion
    from posesyn.storage.reports import load_report

    folder, out = shared / "data" / "images" / "coco", tmp_path / "run"
    annotations = folder / "annotations.json"
    with open(annotations) as handle:
        images = [image["id"] for image in json.load(handle)["images"]]
    described = {"annotations": [{"image_id": image, "caption": f"a photo {image}"} for image in images[::2]]}
    (tmp_path / "image_captions.json").write_text(json.dumps(described))
    config = tmp_path / "run.yaml"
    data = f"{{images: {folder}, annotations: {annotations}, image_captions: {tmp_path / 'image_captions.json'}}}"
    captioner = f"{{model: {vision_model}, keep_annotated: true, max_new_tokens: 6}}"
    config.write_text(
        f"data: {data}\nout: {out}\ncaptioner: {captioner}\nsettings: {{num_challenging: 8, num_non_challenging: 1,\n"
        "  num_motions: 1, frames_per_motion: 1, image_size: 64, fine_tuning: {steps: 0}}\n"
    )
    assert cli.main(["run", "--config", str(config)]) == 0, capsys.readouterr().err

    def made(where):
        motions = [load_motion(path) for path in sorted(where.glob("*.npz"))]
        return {motion.person_id: (motion.meta["caption_source"], motion.caption) for motion in motions}

    persons = DataSettings(folder, annotations, image_captions=tmp_path / "image_captions.json").load()
    found = [scored.person for scored in load_report(out / "extraction", persons).challenging]
    said = CaptionerSettings(vision_model, max_new_tokens=6).load().caption(found)
    expected = {
        person.person_id: ("person", person.captions[0]) if person.captions else ("model", text)
        for person, text in zip(found, said)
        if person.captions or any(letter.isalnum() for letter in text)
    }
    sources = made(out / "motions")
    assert {name: sources[name] for name in expected} == expected
    assert {"person", "model"} <= {source for source, _ in sources.values()}

    # One stage alone, the model before the data set, the user before both; another prompt is another folder.
    (tmp_path / "mine.json").write_text(json.dumps({found[0].person_id: "a person dances"}))
    stage = [
        *("synthesize", "--data.annotations", str(annotations), "--data.images", str(folder), "--num_motions", "1"),
        *(
            "--data.image_captions",
            str(tmp_path / "image_captions.json"),
            "--data.captions",
            str(tmp_path / "mine.json"),
        ),
        *("--extraction", str(out / "extraction"), "--out", str(tmp_path / "alone")),
        *("--captioner.model", str(vision_model), "--captioner.max_new_tokens", "6"),
    ]
    assert cli.main(stage) == 0, capsys.readouterr().err
    alone = made(tmp_path / "alone" / "motions")
    assert alone.pop(found[0].person_id) == ("user", "a person dances")
    assert {name: alone[name] for name in expected if name in alone} == {
        person.person_id: ("model", text) if any(letter.isalnum() for letter in text) else expected[person.person_id]
        for person, text in zip(found[1:], said[1:])
        if person.person_id in expected
    }
    assert cli.main([*stage, "--captioner.prompt", "Sitting or standing?"]) == 2
    assert "captioner.prompt" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize("name", ["07_01", "60_09"])
def test_mocap_renders_the_right_way_up(shared, tmp_path, name):
    from posesyn import skeletons
    from posesyn.storage import ClipStore

    bvh = shared / "data" / "cmu" / "bvh" / f"{name}.bvh.gz"
    arguments = ["--motions", str(bvh), "--image_size", "96", "--frames", "3", "--stride", "10"]
    assert cli.main(["render", *arguments, "--out", str(tmp_path / "clips")]) == 0
    clip = ClipStore(tmp_path / "clips")[0]
    row = {
        joint: clip.keypoints_px[:, skeletons.get("smpl45").index(joint), 1]
        for joint in ("head", "pelvis", "left_ankle")
    }
    assert (row["head"] < row["pelvis"]).all() and (row["pelvis"] < row["left_ankle"]).all()
    assert clip.mask.any((1, 2)).all()
    # A folder rendered with other settings is not taken for this one.
    assert cli.main(["render", *arguments[:-1], "5", "--out", str(tmp_path / "clips")]) == 2
