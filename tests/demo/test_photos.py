"""The demo on photographs: what is missing is named at once, and the page says whose keypoints stand in."""

from __future__ import annotations

import numpy as np
import pytest

import posesyn as ps
from posesyn.cli import main as cli
from posesyn.demo import photos
from posesyn.demo.photos import PhotoSettings, run_photo_demo
from posesyn.errors import FileError, InputError
from posesyn.skeletons import skeleton, tables
from posesyn.storage.assets import ASSETS
from posesyn.storage.fetch import is_fetched

TINY = PhotoSettings(hardest=1, motions=1, shown=3, frames=3, image_size=64)


@pytest.fixture
def pictures(tmp_path, rng):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        ps.storage.files.write_bytes(folder / name, _png(rng.integers(60, 255, (96, 128, 3), dtype=np.uint8)))
    ps.storage.files.write_bytes(folder / "dark.png", _png(np.zeros((96, 128, 3), np.uint8)))
    return folder


def _png(pixels) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def stand_ins(monkeypatch):
    """Two persons in every bright picture, a standing figure's keypoints: no network but the examined one."""
    figure = np.array(
        [[50, 8], [53, 6], [47, 6], [56, 8], [44, 8], [62, 22], [38, 22], [66, 36], [34, 36], [68, 50], [32, 50],
         [57, 52], [43, 52], [58, 72], [42, 72], [59, 94], [41, 94.0]]
    ) / 100  # fmt: skip

    def find(image):
        boxes = np.array([[4, 4, 60, 92], [64, 4, 120, 92.0]])
        return (boxes, np.array([0.9, 0.8])) if image.mean() > 9 else []

    def keypoints(images, boxes):
        points = boxes[:, None, :2] + figure * (boxes[:, None, 2:] - boxes[:, None, :2])
        return points, np.full((len(boxes), 17), 0.9)

    judge = ps.detectors.CallableDetector(keypoints, name="figure", family="figure")
    monkeypatch.setattr(photos, "_check_fetched", lambda: "figure")
    monkeypatch.setattr(photos, "load_detector", lambda name, device: judge)
    monkeypatch.setattr(photos, "person_finder", lambda detector, estimator, device: (find, "two"))


@pytest.mark.integration
def test_a_page_with_persons_and_motions(pictures, stand_ins, tmp_path):
    result = run_photo_demo(
        pictures, tmp_path / "o", 0, ps.load_estimator("hmr_small", device="cpu"), False, TINY, "cpu"
    )
    assert len(result.persons) == 4 and len(result.found) == 4 and len(result.motions) == 1
    page = result.report.read_text()
    assert "keypoints that figure found stand in for the 2D truth" in page and "two networks disagree" in page
    assert "2D joints found by figure" in page and "annotated 2D joints" not in page
    assert "left out: dark.png: nobody was found in it" in page and result.notes[0] in page
    assert page.count("data:image/webp") == 1 and "<script" not in page
    assert len(list((tmp_path / "o/motions").glob("*.npz"))) == 1
    assert ps.ErrorReport.load(tmp_path / "o/extraction").scored[0].person.keypoints_by == "figure"


@pytest.mark.integration
def test_an_estimator_that_cannot_be_lifted_gets_a_page_without_motions(pictures, stand_ins, tmp_path, monkeypatch):
    """Without shoulders and elbows there is an error, but no pose that the motion prior could start from."""
    names = "nose left_eye right_eye left_ear right_ear left_wrist right_wrist left_hip right_hip left_knee right_knee"
    monkeypatch.setitem(tables.JOINTS, "armless13", f"{names} left_ankle right_ankle")
    monkeypatch.setitem(skeleton.SKELETONS, "armless13", skeleton._build("armless13"))

    class Armless:
        spec = ps.EstimatorSpec("armless", skeleton="armless13")

        def predict(self, persons):
            boxes = np.stack([one.box_xyxy for one in persons])
            points = np.linspace(boxes[:, :2], boxes[:, 2:], 13, axis=1)
            joints = np.concatenate((points / 50, np.full((len(persons), 13, 1), 3.0)), axis=2)
            return ps.PoseBatch(tuple(one.person_id for one in persons), "armless13", joints, points)

    result = run_photo_demo(pictures, tmp_path / "o", 0, Armless(), False, TINY, "cpu")
    assert len(result.found) == 4 and not result.motions
    note = "no motions: the estimator's skeleton lacks joints that the motion prior needs"
    assert any(one.startswith(note) and "left_elbow" in one for one in result.notes)
    assert "lacks joints that the motion prior needs" in result.report.read_text()


def test_the_judge_is_of_another_family(pictures, stand_ins, tmp_path):
    class Same:
        spec = ps.EstimatorSpec("mine", family="figure")

        def predict(self, persons):
            raise NotImplementedError

    with pytest.raises(InputError, match=r"one network \(figure\) in the demo on photographs"):
        run_photo_demo(pictures, tmp_path / "o", 0, Same(), False, TINY, "cpu")


def test_all_that_is_missing_is_named_at_once(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileError, match="fetch blazepose_lite` and `posesyn assets fetch movenet_thunder`"):
        run_photo_demo(pictures, tmp_path / "o")
    assert cli.main(["demo", "--photos", str(pictures), "--out", str(tmp_path / "o")]) == 2
    assert "posesyn assets fetch movenet_thunder" in capsys.readouterr().err and not (tmp_path / "o").exists()


@pytest.mark.integration
def test_photographs(shared, tmp_path, capsys):
    for name in ("blazepose_lite", "movenet_thunder"):
        if not is_fetched(ASSETS[name]):
            pytest.skip(f"the weights are not here: posesyn assets fetch {name}")
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("000000000785.jpg", "000000197388.jpg", "COCO_val2014_000000000328.jpg"):
        (folder / name).symlink_to(shared / "data/images/coco" / name)
    assert cli.main(["demo", "--photos", str(folder), "--out", str(tmp_path / "o"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "9 persons in 3 pictures" in printed and "keypoints of movenet_thunder stand in" in printed
    assert (tmp_path / "o/report.html").stat().st_size > 100_000
