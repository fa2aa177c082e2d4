"""Persons in pictures: any function finds them, bad pictures are named, keypoints stand in and say so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

import posesyn as ps
from posesyn.detectors.persons import FINDERS, person_finder
from posesyn.errors import FileError, InputError
from posesyn.storage.assets import ASSETS
from posesyn.storage.fetch import is_fetched
from posesyn.storage.reports import load_report

BLACK = np.zeros((60, 80, 3), np.uint8)
BOXES = np.array([[40, 5, 70, 55], [5, 5, 30, 55.0]])


def pair(image):
    """Two persons, the right one first."""
    return BOXES, np.array([0.9, 0.6])


@pytest.fixture(scope="module")
def blazepose():
    name = next((name for name in FINDERS if is_fetched(ASSETS[name])), None)
    if name is None:
        pytest.skip("the weights are not here: posesyn assets fetch blazepose_lite")
    return ps.load_estimator(name, device="cpu")


def middles(images, boxes):
    """17 keypoints along the diagonal of the box, the first eight seen."""
    shares = np.linspace(0, 1, 17)[None, :, None]
    points = boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])
    return points, np.tile(np.where(np.arange(17) < 8, 0.8, 0.1), (len(boxes), 1))


def test_persons_have_a_box_and_no_annotation():
    persons = ps.find_persons(BLACK, pair)
    assert [one.person_id for one in persons] == ["image 0#1", "image 0#2"]
    first = persons[0]
    assert (first.box_xyxy == BOXES[0]).all() and not first.box_is_tight and not first.visible.any()
    assert first.detection_score == 0.9 and first.keypoints_by is None and first.detected_by == "pair"
    assert first.image_id == persons[1].image_id == "image 0" and first.image_width_height == (80, 60)
    assert persons.pictures == 1 and persons.skipped == () and "2 persons in 1 pictures" in repr(persons)
    # They can be predicted as they are.
    assert np.isfinite(ps.load_estimator("hmr_small").predict(persons).joints_cam).all()


def test_functions_and_objects_find_persons():
    class Finder:
        name = "mine"

        def detect_persons(self, image):
            return BOXES[:1], [0.5]

    assert ps.find_persons(BLACK, Finder())[0].detected_by == "mine"
    (sure,) = ps.find_persons(BLACK, lambda image: BOXES[:1])
    assert sure.detection_score == 1.0
    assert [one.detection_score for one in ps.find_persons(BLACK, pair, min_score=0.7)] == [0.9]
    with pytest.raises(InputError, match="no person was found"):
        ps.find_persons(BLACK, pair, min_score=0.95)


def test_why_a_picture_has_nobody_is_said(recwarn):
    answers = iter([BOXES[:1], np.array([[np.nan, 0, 1, 1]]), np.array([[900.0, 900, 950, 950]]), np.zeros((0, 4))])
    found = ps.find_persons([BLACK] * 4, lambda image: next(answers))
    reasons = [reason for _, reason in found.skipped]
    assert len(found) == 1 and "must be finite" in reasons[0]
    assert reasons[1:] == ["the boxes found lie outside it or are empty", "nobody was found in it"]
    half = iter([0.9, 0.3])
    found = ps.find_persons([BLACK] * 2, lambda image: (BOXES[:1], [next(half)]), min_score=0.5)
    assert found.skipped[0][1] == "nobody was found in it as surely as 0.5, at best 0.30"
    with pytest.raises(InputError, match="must be finite"):
        ps.find_persons(BLACK, lambda image: np.array([[np.nan, 0, 1, 1]]), on_bad="error")
    for wrong in ({"min_score": 7}, {"min_keypoint": -3}):
        with pytest.raises(InputError, match="must be from 0 to 1"):
            ps.find_persons(BLACK, pair, **wrong)


def test_bad_pictures_are_named_and_the_rest_goes_on(tmp_path):
    bright = np.full((60, 80, 3), 255, np.uint8)
    for name, pixels in (("a.png", bright), ("b.png", BLACK), ("d.png", bright)):
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(bright[..., 0]).save(tmp_path / "grey.png")
    (tmp_path / "c.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "e.jpg").write_bytes(b"")
    with pytest.warns(
        UserWarning, match=r"3 of 6 pictures left out: b\.png: nobody.*; c\.jpg: it cannot be read"
    ) as told:
        persons = ps.find_persons(tmp_path, lambda image: BOXES[:1] if image.mean() > 9 else [])
    assert len(told) == 1 and told[0].filename == __file__
    assert [one.image_id for one in persons] == ["a.png", "d.png", "grey.png"]
    assert [name for name, _ in persons.skipped] == ["b.png", "c.jpg", "e.jpg"]
    with pytest.raises(FileError, match=r"c\.jpg"):
        ps.find_persons(tmp_path, lambda image: BOXES[:1], on_bad="error")
    with pytest.raises(InputError, match=r"no person was found in any picture.*6 pictures: a\.png: nobody.*and 1 more"):
        ps.find_persons(tmp_path, lambda image: [])


def test_boxes_beside_the_picture_are_nobody():
    outside = np.array([[200, 5, 230, 55], [5, 5, 5, 55], [5, 5, 30, 55.0]])
    assert [one.box_xyxy[2] for one in ps.find_persons(BLACK, lambda image: outside)] == [30]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.zeros((2, 3)), r"wrong shapes.*\(2, 3\)"),
        ((BOXES, np.ones(3)), r"wrong shapes.*\(2, 4\) and \(3,\)"),
        ((BOXES, np.array([0.5, 1.5])), "scores from 0 to 1"),
        (BOXES * np.nan, "must be finite"),
        ("persons", "does not return arrays"),
    ],
)
def test_an_answer_that_is_none_is_refused(answer, words):
    with pytest.raises(InputError, match=words) as error:
        ps.find_persons(BLACK, lambda image: answer)
    assert "image 0" in str(error.value)


def test_what_finds_no_persons_is_refused_with_the_way_out():
    for wrong in (ps.load_estimator("hmr_small"), ps.detectors.MoveNet("lightning"), 7):
        with pytest.raises(InputError, match=r"does not find persons.*blazepose_lite.*`keypoints`"):
            ps.find_persons(BLACK, wrong)
    with pytest.raises(InputError, match="Did you mean"):
        ps.find_persons(BLACK, "blazpose")
    with pytest.raises(InputError, match="on_bad is unknown"):
        ps.find_persons(BLACK, pair, on_bad="warn")


def test_without_weights_the_error_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path))
    with pytest.raises(FileError, match="posesyn assets fetch blazepose`"):
        ps.find_persons(BLACK)
    with pytest.raises(FileError, match="posesyn assets fetch blazepose_lite`"):
        ps.find_persons(BLACK, None)
    with pytest.raises(FileError, match="posesyn assets fetch movenet_thunder`"):
        ps.find_persons(BLACK, pair, keypoints="movenet_thunder")


def test_a_function_of_a_file_finds_persons_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_finder.py").write_text(
        "class Finder:\n    def detect_persons(self, image):\n        return [[5, 5, 30, 55]], [0.7]\n"
        "def make(checkpoint):\n    return Finder()\n"
    )
    monkeypatch.chdir(tmp_path)
    find, name = person_finder("my_finder:make")
    assert name == "Finder" and find(BLACK) == ([[5, 5, 30, 55]], [0.7])


def test_keypoints_stand_in_for_the_truth_and_the_person_says_so(tmp_path):
    detector = ps.detectors.CallableDetector(middles, name="diagonal")
    persons = ps.find_persons([BLACK, BLACK], pair, keypoints=detector)
    assert [int(one.visible.sum()) for one in persons] == [8] * 4 and persons[0].keypoints_by == "diagonal"
    np.testing.assert_allclose(persons[0].keypoints_px[16], BOXES[0, 2:])
    assert int(ps.find_persons(BLACK, pair, keypoints=detector, min_keypoint=0.05)[0].visible.sum()) == 17
    found = ps.ErrorExtractor(ps.load_estimator("hmr_small"), min_joints=4).extract(persons, progress=False)
    found.save(tmp_path)
    again = load_report(tmp_path).scored[0].person
    assert (again.keypoints_by, again.detected_by) == ("diagonal", "pair") and again.detection_score in (0.9, 0.6)


def test_a_detector_that_takes_one_person_for_two_boxes_gives_them_to_one():
    front, behind = np.array([20, 5, 60, 55.0]), np.array([30, 5, 58, 40.0])

    def always_front(images, boxes):
        return middles(images, np.tile(front, (len(boxes), 1)))

    for boxes in ([front, behind], [behind, front]):
        persons = ps.find_persons(
            BLACK, lambda image, boxes=boxes: np.stack(boxes), keypoints=ps.detectors.CallableDetector(always_front)
        )
        assert [bool(one.visible.any()) for one in persons] == [bool((box == front).all()) for box in boxes]


def test_extraction_without_keypoints_says_what_is_missing():
    with pytest.raises(InputError, match=r"no person could be scored.*0 joints are visible.*keypoints="):
        ps.ErrorExtractor(ps.load_estimator("hmr_small")).extract(ps.find_persons(BLACK, pair), progress=False)


def test_pictures_left_out_are_in_the_extraction_s_report():
    detector = ps.detectors.CallableDetector(middles)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        persons = ps.find_persons(
            [BLACK, BLACK + 255], lambda image: BOXES if image.mean() > 9 else [], keypoints=detector
        )
    found = ps.ErrorExtractor(ps.load_estimator("hmr_small"), min_joints=4).extract(persons, progress=False)
    assert found.skipped == (("image 0", "nobody was found in it"),)


# -- the published network on photographs -------------------------------------------------------------------------


def overlap(first, second) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = np.clip(high - low, 0, None).prod()
    return float(shared / ((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared))


def test_several_persons_of_one_photograph_are_found(shared, blazepose):
    """Three men on a bench, and a standing man before people who sit: the boxes were seen by eye."""
    folder = shared / "data/images/coco"
    bench = ps.find_persons(folder / "COCO_val2014_000000000328.jpg", blazepose)
    seen = ([60, 80, 260, 450], [215, 110, 400, 465], [330, 60, 590, 490])
    assert len(bench) == 3 and all(overlap(one.box_xyxy, np.array(box)) > 0.5 for one, box in zip(bench, seen))
    room = ps.find_persons(folder / "COCO_val2014_000000000241.jpg", blazepose)
    assert len(room) == 3 and all(one.detection_score > 0.55 for one in room)


@pytest.mark.parametrize("change", ["as it is", "grey", "sideways", "upside down"])
def test_a_person_is_found_however_the_picture_lies(shared, blazepose, change):
    image = ps.storage.ImageFile(shared / "data/images/coco/000000000785.jpg").load()
    if change == "grey":
        image = image.mean(2).astype(np.uint8)
    turns = {"sideways": 1, "upside down": 2}.get(change, 0)
    image = np.ascontiguousarray(np.rot90(image, turns))
    (skier,) = ps.find_persons(image, blazepose)
    x0, y0, x1, y1 = 275, 40, 500, 395  # seen by eye in the picture as it is, of 640 x 425
    seen = {0: (x0, y0, x1, y1), 1: (y0, 639 - x1, y1, 639 - x0), 2: (639 - x1, 424 - y1, 639 - x0, 424 - y0)}
    assert overlap(skier.box_xyxy, np.array(seen[turns], float)) > 0.6
    nose = blazepose.predict([skier]).keypoints_px[0, 0]
    where = {0: (366, 80), 1: (80, 639 - 366), 2: (639 - 366, 424 - 80)}[turns]
    assert np.linalg.norm(nose - where) < 25


def test_who_stands_before_another_one_is_not_predicted_twice(shared, blazepose):
    """Five skiers; one skis in front of another, whom the detector does not see once it looks at the two alone."""
    persons = ps.find_persons(shared / "data/images/coco/000000197388.jpg", blazepose)
    middle = blazepose.predict(persons).keypoints_px.mean(1)
    apart = np.linalg.norm(middle[:, None] - middle[None], axis=-1)[np.triu_indices(len(persons), 1)]
    assert len(persons) == 5 and apart.min() > 20


def test_pictures_without_people_show_nobody(shared, blazepose):
    files = sorted((shared / "data/backgrounds").glob("*.jpg"))[1:13:2]
    with pytest.raises(InputError, match=r"no person was found in any picture.*6 pictures"):
        ps.find_persons(files, blazepose)
