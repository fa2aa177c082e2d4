"""The command line: what a user sees when it goes right and when it does not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from posesyn import cli


def test_help_lists_all_stages(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(["--help"])
    assert ending.value.code == 0
    text = capsys.readouterr().out
    for name in ("demo", "run", "extract", "synthesize", "render", "filter", "train", "evaluate", "compare", "report"):
        assert name in text


def test_help_loads_no_torch():
    code = (
        "import sys, posesyn.cli\n"
        "try: posesyn.cli.main(['run', '--help'])\n"
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

    monkeypatch.setattr("posesyn.commands.COMMANDS", {"demo": interrupted, "run": interrupted})
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
