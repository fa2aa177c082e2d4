"""The command line: what a user sees when it goes right and when it does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import posesyn
from posesyn.cli import main as cli
from posesyn.cli import stages
from posesyn.cli.train import train_estimator
from posesyn.settings import RunSettings


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
    assert cli.main(["run", "--data.images", "x", "--out", str(tmp_path), "--synthesis.num_motions", "0"]) == 2
    assert "num_motions" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(["--version"])
    assert ending.value.code == 0 and capsys.readouterr().out == f"posesyn {posesyn.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ["'rnu'", "did you mean run?"]),
        (["train", "estimtor"], ["'estimtor'", "did you mean estimator?"]),
        (["extract", "--data.imges", "x"], ["posesyn extract:", "--data.imges", "did you mean --data.images"]),
        (["run", "--data.images", "x", "--out", "y", "--extraction.num_challengin", "3"], ["--extraction.num_chal"]),
        (["train", "estimator", "--data.images", "x"], ["posesyn train estimator:", "required: --clips, --out ("]),
        (["extract", "--data.images", "x", "--out", "y", "--extraction.normalizer", "bx"], ["'torso'", "bx"]),
        (
            ["run", "--data.images", "x", "--out", "y", "--settings.num_motions", "3"],
            ["did you mean --synthesis.num_m"],
        ),
        (["run", "--seed", "1"], ["posesyn run: ", "required: --data.images, --out (`posesyn run --help`"]),
        (["evaluate", "estimator", "--device", "cpu"], ["posesyn evaluate estimator: ", "--data.images, --out ("]),
    ],
)
def test_a_wrong_option_is_one_line_and_a_guess(arguments, words, capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(arguments)
    message = capsys.readouterr().err
    assert ending.value.code == 2 and message.count("\n") == 1 and "usage" not in message
    assert all(word in message for word in words), message


def test_an_option_has_one_name_in_every_command():
    """``--extraction.num_challenging`` is the same in `run`, in `extract` and in Python; so are all others."""
    for command in (stages.run, stages.extract, stages.synthesize, stages.render, stages.filter_clips, train_estimator):
        hints = typing.get_type_hints(command)
        for name, kind in typing.get_type_hints(RunSettings).items():
            if name in hints and hints[name] not in (Path, Path | None):  # the folder of an extraction
                assert hints[name] is kind, (command.__name__, name)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--control"], (True, False, 1)),
        (["--control", "--rounds", "3", "--lifted_labels"], (True, True, 3)),
        (["--lifted_labels", "false", "--control", "true"], (True, False, 1)),
        (["--rounds", "2"], (False, False, 2)),
    ],
)
def test_switches_may_stand_alone(arguments, expected, monkeypatch):
    seen = []

    def run(control: bool = False, lifted_labels: bool = False, rounds: int = 1) -> None:
        seen.append((control, lifted_labels, rounds))

    monkeypatch.setattr("posesyn.cli.main.COMMANDS", {"run": run, "demo": run})
    assert cli.main(["run", *arguments]) == 0 and seen == [expected]


def test_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(**arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("posesyn.cli.main.COMMANDS", {"demo": interrupted, "run": interrupted})
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["demo"]) == cli.INTERRUPTED
    assert "to resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before  # a notebook that calls main() keeps its own


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
    command += ["--extraction.num_challenging", "4", "--extraction.num_non_challenging", "2"]
    command += ["--out", str(tmp_path / "o")]
    told = ["--extraction.normalizer", "torso", "--extraction.selection", "diverse"]
    told += ["--extraction.joint_weights", "uniform"]
    assert cli.main([*command, *told, "--others", '[{"name": "hmr_small"}]']) == 0, capsys.readouterr().err
    config = json.loads((tmp_path / "o/report.json").read_text())
    assert len(config["challenging"]) == 4
    capsys.readouterr()
    # The folder holds a ranking by another error now.
    assert cli.main(command) == 2
    assert "normalizer" in capsys.readouterr().err
    assert cli.main([*command, "--extraction.rank_by", "disagreement"]) == 2
    assert "others" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_run_on_photos_ends_in_shards_and_stages_continue(shared, tmp_path, capsys, name):
    folder, out = shared / "data" / "images" / name, tmp_path / "run"
    config = tmp_path / "run.yaml"
    config.write_text(
        f"data: {{format: {name}, images: {folder}, annotations: {folder / 'annotations.json'}}}\nout: {out}\n"
        "extraction: {num_challenging: 1, num_non_challenging: 1}\nsynthesis: {num_motions: 1}\n"
        "rendering: {frames_per_motion: 2, image_size: 64}\ntraining: {steps: 0}\n"
    )
    assert cli.main(["run", "--config", str(config)]) == 0, capsys.readouterr().err
    assert list((out / "clips" / "shards").glob("*.tar"))
    assert "data:image" in (out / "report.html").read_text()
    # Filtering again starts from all frames, so that it ends where it ended before.
    capsys.readouterr()
    kept = []
    judged = ["filter", "--clips", str(out / "clips"), "--filtering.rule", "estimator", "--filtering.threshold", "9"]
    for command in (judged, judged[:3], judged):
        assert cli.main(command) == 0
        kept.append(capsys.readouterr().out)
    assert kept[0] == kept[2] and "by the estimator hmr_small, threshold 9.000 m" in kept[0]
    assert "kept 2 of 2 frames, by their labels only" in kept[1]
    # The same folder with other settings is refused by the name of the setting.
    config.write_text(config.read_text().replace("num_motions: 1", "num_motions: 2"))
    assert cli.main(["run", "--config", str(config)]) == 2
    assert "num_motions" in capsys.readouterr().err


def test_reader_options_are_told_on_the_command_line(tmp_path, capsys, monkeypatch):
    import numpy as np
    from scipy.io import savemat

    from posesyn.cli import build
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

    load = build.persons_of

    def recorded(settings):
        seen.append((settings, load(settings).person_ids))
        raise InputError("no more is needed")

    monkeypatch.setattr(build, "persons_of", recorded)
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
    assert not any(name.startswith("option") for name in build.data_identity(seen[0][0]))
    assert build.data_identity(seen[1][0])["option_stride"] == "2"
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
    missing = ["--synthesis.prior", str(tmp_path / "no_prior.safetensors")]
    assert cli.main(["run", *arguments, "--out", str(tmp_path / "out"), *missing]) == 2
    assert "no_prior" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.integration
def test_a_model_captions_a_run_and_the_users_text_wins(shared, tmp_path, capsys, vision_model):
    from posesyn.cli.build import captioner_of, persons_of
    from posesyn.data import load_motion
    from posesyn.settings import CaptionerSettings, DataSettings
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
        f"data: {data}\nout: {out}\ncaptioner: {captioner}\n"
        "extraction: {num_challenging: 8, num_non_challenging: 1}\n"
        "synthesis: {num_motions: 1}\nrendering: {frames_per_motion: 1, image_size: 64}\ntraining: {steps: 0}\n"
    )
    assert cli.main(["run", "--config", str(config)]) == 0, capsys.readouterr().err

    def made(where):
        motions = [load_motion(path) for path in sorted(where.glob("*.npz"))]
        return {motion.person_id: (motion.meta["caption_source"], motion.caption) for motion in motions}

    persons = persons_of(DataSettings(folder, annotations, image_captions=tmp_path / "image_captions.json"))
    found = [scored.person for scored in load_report(out / "extraction", persons).challenging]
    said = captioner_of(CaptionerSettings(vision_model, max_new_tokens=6)).caption(found)
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
        *(
            "synthesize",
            "--data.annotations",
            str(annotations),
            "--data.images",
            str(folder),
            "--synthesis.num_motions",
            "1",
        ),
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
    alone = made(tmp_path / "alone")
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
    arguments = ["--motions", str(bvh), "--rendering.image_size", "96", "--rendering.frames_per_motion", "3"]
    arguments += ["--rendering.frame_stride", "10"]
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


def test_a_detector_judges_by_name(tmp_path, capsys, monkeypatch):
    import numpy as np

    from posesyn import skeletons
    from posesyn.storage.clip_store import ClipStore
    from tests.factories import make_clip, write_clips

    clip = make_clip()
    write_clips(tmp_path / "clips", [clip])
    points, _ = skeletons.convert(clip.keypoints_px, "smpl45", "coco17")
    points[3:] += 300
    np.save(tmp_path / "points.npy", points)
    (tmp_path / "judging.py").write_text(
        "import numpy as np\nfrom posesyn.detectors import CallableDetector\n"
        "def made(checkpoint):\n"
        "    return CallableDetector(lambda images, boxes: np.load('points.npy')[:len(images)])\n"
        "def hmr(checkpoint):\n"
        "    return CallableDetector(lambda images, boxes: np.load('points.npy')[:len(images)], family='hmr_small')\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["filter", "--clips", "clips", "--device", "cpu", "--progress", "false", "--filtering.threshold", "0.5"]
    assert cli.main([*command, "--detector", "judging:made"]) == 0, capsys.readouterr().err
    assert "kept 3 of 5 frames, by the detector <lambda>, threshold 0.500 OKS" in capsys.readouterr().out
    assert ClipStore(tmp_path / "clips").labels(0)["keep"].tolist() == [True] * 3 + [False] * 2
    for name, message in (
        ("judging:hmr", "are one network (hmr_small)"),
        ("movenet_thundr", "Did you mean 'movenet_thunder'"),
    ):
        assert cli.main([*command, "--detector", name]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path / "cache"))
    assert cli.main([*command, "--detector", "movenet_thunder"]) == 2
    assert "`posesyn assets fetch movenet_thunder`" in capsys.readouterr().err
