"""``posesyn predict``: pictures stand alone, bad ones are named, overlays and tables come out."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from posesyn.cli import main as cli
from posesyn.storage.assets import ASSETS
from posesyn.storage.fetch import is_fetched

FINDER = """
import numpy as np
class Finder:
    name = "bright"
    def detect_persons(self, image):
        if image.mean() < 9:
            return []
        height, width = image.shape[:2]
        boxes = np.array([[0, 0, width / 2, height], [width / 2, 0, width, height]]) - 0.5
        return boxes, np.array([0.9, 0.6])
def make(checkpoint):
    return Finder()
"""
NETWORK = """
import numpy as np
import posesyn as ps
class Reads:
    spec = ps.EstimatorSpec("reads", keypoints_skeleton="coco17")
    def predict(self, persons):
        raise ps.PosesynError("never called")
class Fails:
    spec = ps.EstimatorSpec("fails", skeleton="coco17")
    def predict(self, persons):
        shape = (len(persons), 17, 3)
        joints = np.full(shape, np.nan) if persons[0].image.name == "a.png" else np.ones(shape)
        if persons[0].image.name == "a.jpg":
            raise RuntimeError("out of luck")
        return ps.PoseBatch(tuple(one.person_id for one in persons), "coco17", joints, joints[..., :2])
class Unknown:
    spec = ps.EstimatorSpec("unknown", skeleton="mine7")
    def predict(self, persons):
        shape = (len(persons), 7, 3)
        return ps.PoseBatch(tuple(one.person_id for one in persons), "mine7", np.ones(shape), np.ones(shape)[..., :2])
def unknown(checkpoint):
    return Unknown()
def reads(checkpoint):
    return Reads()
def fails(checkpoint):
    return Fails()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: pictures with two persons each, one with nobody, a broken file, and modules."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b c.jpg", "more/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(60, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / name)
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "dark.png")
    (tmp_path / "broken.jpg").write_text("no picture")
    (tmp_path / "finder_of_tests.py").write_text(FINDER)
    (tmp_path / "network_of_tests.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> int:
    return cli.main(["predict", *words, "--detector", "finder_of_tests:make", "--device", "cpu"])


def test_pictures_in_overlays_and_tables_out(folder, capsys):
    assert run("a.png", "b c.jpg", "--estimator", "hmr_small", "--out", "o", "dark.png", "broken.jpg", "more") == 0
    printed = capsys.readouterr().out
    assert "left out: dark.png: nobody was found in it" in printed
    assert "left out: broken.jpg: it cannot be read" in printed
    assert "6 persons in 3 of 5 pictures, found by bright, predicted by hmr_small" in printed
    # Two pictures are called a: the files of their overlays have their whole names.
    assert sorted(path.name for path in (folder / "o/overlays").iterdir()) == ["a.jpg.jpg", "a.png.jpg", "b c.jpg"]
    with open(folder / "o/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["person_id"] for row in rows[:3]] == ["a.png#1", "a.png#2", "b c.jpg#1"] and len(rows) == 6
    assert float(rows[0]["root_z_m"]) > 0 and rows[1]["score"] == "0.6000"
    with np.load(folder / "o/predictions.npz") as arrays:
        assert arrays["joints_cam"].shape == (6, 45, 3) and arrays["intrinsics"].shape == (6, 3, 3)
        assert str(arrays["estimator"]) == "hmr_small"
    # Drawn persons change the picture, where they are.
    with Image.open(folder / "o/overlays/b c.jpg") as overlay, Image.open(folder / "b c.jpg") as picture:
        assert overlay.size == picture.size
        assert np.abs(np.asarray(overlay, float) - np.asarray(picture, float)).max() > 60


def test_one_picture_that_fails_does_not_stop_the_others(folder, capsys):
    assert run("a.png", "b c.jpg", "more", "--estimator", "network_of_tests:fails") == 0
    printed = capsys.readouterr().out
    assert "a.jpg: the estimator failed: RuntimeError: out of luck" in printed
    assert "left out: a.png: the estimator answered with NaN" in printed and "2 persons in 1 of 3" in printed
    assert run("a.png", "--estimator", "network_of_tests:fails") == 2
    assert "nobody could be predicted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dark.png"], "no person was found in any picture"),
        (["missing.png"], "there is no such picture or folder in missing.png"),
        (["a.png", "--estimator", "hrm_small"], "Did you mean 'hmr_small'"),
        (["a.png", "--estimator", "network_of_tests:reads"], "--keypoints movenet_thunder"),
        (["a.png", "--estimator", "network_of_tests:unknown"], "unknown skeleton 'mine7'"),
        (["a.png", "--min_score", "2"], "min_score must be from 0 to 1"),
        (["a.png", "--out", "broken.jpg"], "the results need a folder"),
    ],
)
def test_wrong_input_is_one_line(folder, capsys, words, expected):
    assert run(*(words if "--estimator" in words else [*words, "--estimator", "hmr_small"])) == 2
    message = capsys.readouterr().err
    assert expected in message and "Traceback" not in message


def test_without_weights_the_error_says_what_to_type(folder, capsys, monkeypatch):
    monkeypatch.setenv("POSESYN_CACHE", str(folder / "cache"))
    assert cli.main(["predict", "a.png"]) == 2
    assert "posesyn assets fetch blazepose`" in capsys.readouterr().err
    assert cli.main(["predict", "a.png", "--estimator", "hmr_small"]) == 2
    assert "posesyn assets fetch blazepose_lite`" in capsys.readouterr().err


def test_no_pictures_is_a_missing_option(capsys):
    with pytest.raises(SystemExit):
        cli.main(["predict", "--out", "x"])
    assert "required: --images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("assets fetch blazepose", "assets fetch --name blazepose"),
        ("extract --estimator blazepose --out x", "extract --estimator.name blazepose --out x"),
        ("extract --estimator my_module:make", "extract --estimator.name my_module:make"),
        ("run --estimator {name:hmr}", "run --estimator {name:hmr}"),
        ("predict --images x --out=y", "predict --images x --out=y"),
        ("predict --help", "predict --help"),
        ("predict --out=y a b --seed 1 -- c", 'predict --images ["a","b","c"] --out=y --seed 1'),
    ],
)
def test_words_are_spelt_out_as_options(given, expected):
    assert [word.replace(" ", "") for word in cli._spelt_out(given.split())] == expected.split()


def test_settings_in_a_file_stay_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text(json.dumps({"name": "hmr_small"}))
    assert cli._spelt_out(["run", "--estimator", "mine"]) == ["run", "--estimator", "mine"]


@pytest.mark.integration
def test_photographs_of_several_people(shared, tmp_path, capsys):
    if not is_fetched(ASSETS["blazepose_lite"]):
        pytest.skip("the weights are not here: posesyn assets fetch blazepose_lite")
    folder = shared / "data/images/coco"
    pictures = [str(folder / f"{name}.jpg") for name in ("000000000785", "COCO_val2014_000000000328")]
    assert cli.main(["predict", *pictures, "--estimator", "blazepose_lite", "--out", str(tmp_path)]) == 0
    assert "4 persons in 2 of 2 pictures, found by blazepose_lite" in capsys.readouterr().out
