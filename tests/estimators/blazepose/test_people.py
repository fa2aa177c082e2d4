"""Where the detector is asked and what becomes of its answers, with detectors made of formulas."""

from __future__ import annotations

import numpy as np
import pytest

from posesyn.errors import InputError
from posesyn.estimators.adapters import EstimatorKeypointDetector
from posesyn.estimators.blazepose.people import candidates, fits_box, parts, people
from posesyn.estimators.blazepose.regions import Detection
from posesyn.interfaces import EstimatorSpec

IMAGE = np.zeros((400, 600, 3), np.uint8)


def body(box) -> np.ndarray:
    """Landmarks whose box, grown by a tenth of its longer side, is ``box``."""
    x0, y0, x1, y1 = box
    margin = max(x1 - x0, y1 - y0) / 12
    return np.array([[x0 + margin, y0 + margin], [x1 - margin, y1 - margin]])


@pytest.mark.parametrize(("width", "height"), [(600, 400), (400, 600), (500, 500), (1000, 90)])
def test_parts_cover_the_picture_and_overlap_by_half(width, height):
    levels = parts(width, height, 2)
    assert (levels[0][0] == [-0.5, -0.5, width - 0.5, height - 0.5]).all() and len(levels[0]) == 1
    for level, boxes in enumerate(levels[1:], 1):
        side = max(width, height) / 2**level
        covered = np.zeros((height, width), int)
        for x0, y0, x1, y1 in boxes:
            assert x1 - x0 == pytest.approx(side) and y1 - y0 == pytest.approx(side)
            covered[max(0, round(y0 + 0.5)) : round(y1 + 0.5), max(0, round(x0 + 0.5)) : round(x1 + 0.5)] += 1
        assert covered.min() >= 1
        # Whoever is half as large as a part is whole in one of them.
        starts = np.unique([box[0] for box in boxes])
        assert (np.diff(starts) <= side / 2 + 1e-6).all()


def test_who_is_too_small_for_the_whole_picture_is_found_in_a_part():
    """The pretended detector sees persons that fill a fifth of what it looks at; one, 70 px large, is at (450, 90)."""
    asked = []

    def detect(image, box):
        asked.append((image.shape, box))
        scale = 600 / image.shape[1]
        seen = ((box.reshape(2, 2) + 0.5) * scale - 0.5).ravel()
        inside = seen[0] < 450 < seen[2] and seen[1] < 90 < seen[3]
        if not inside or 0.2 * (seen[2] - seen[0]) > 70:
            return []
        points = (np.array([[450, 90], [450, 55], [0, 0], [0, 0.0]]) + 0.5) / scale - 0.5
        return [Detection(0.8, np.zeros(4), points)]

    assert candidates(IMAGE, detect, depth=0) == []
    ((score, region),) = candidates(IMAGE, detect, depth=1)
    assert score == 0.8 and (region.x, region.y) == pytest.approx((450, 90), abs=1e-9)
    assert region.side == pytest.approx(2 * 1.25 * 35)
    # Seen in two parts and taken once; the whole picture was shrunk before it was sampled, the parts were not.
    assert asked[0][0] == (299, 448, 3) and asked[-1][0] == IMAGE.shape


def test_one_person_is_one_whatever_saw_it():
    boxes = [[100, 50, 200, 350], [105, 55, 205, 340], [300, 50, 400, 350]]
    found, scores = people(IMAGE, [body(box) for box in boxes], np.array([0.7, 0.9, 0.8]), 0.5)
    np.testing.assert_allclose(found, [boxes[1], boxes[2]], atol=1e-4)
    np.testing.assert_allclose(scores, [0.9, 0.8])


@pytest.mark.parametrize(("score", "kept"), [(0.85, 1), (0.95, 2)])
def test_a_hand_is_no_person_unless_it_is_very_sure(score, kept):
    person, hand = [100, 50, 250, 350], [110, 150, 160, 220]
    assert len(people(IMAGE, [body(person), body(hand)], np.array([0.99, score]), 0.5)[0]) == kept


def test_people_stay_in_the_picture_and_who_is_outside_is_dropped():
    found, scores = people(IMAGE, [body([500, 100, 700, 380]), body([700, 10, 800, 90])], np.array([0.9, 0.9]), 0.5)
    np.testing.assert_allclose(found, [[500, 100, 599.5, 380]], atol=1e-4)
    assert people(IMAGE, [], np.zeros(0), 0.5)[0].shape == (0, 4) and scores.shape == (1,)


def test_landmarks_fit_a_box():
    box = np.array([100, 50, 250, 350.0])
    assert fits_box(body(box), box, IMAGE) == pytest.approx(1)
    assert fits_box(body([400, 50, 550, 350]), box, IMAGE) == 0
    # What lies outside the picture counts for neither.
    assert fits_box(body([500, 0, 700, 300]), np.array([500, 0, 900, 300]), IMAGE) == pytest.approx(1, abs=0.01)


def test_bad_input(random_lite):
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="persons are looked for in pictures"):
            random_lite.detect_persons(wrong)
    with pytest.raises(InputError, match="depth"):
        random_lite.detect_persons(IMAGE, depth=-1)


def test_random_weights_give_boxes_and_scores(random_lite):
    """Such a detector sees people everywhere: no more than a few dozen are looked at."""
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    boxes, scores = random_lite.detect_persons(image, depth=0)
    assert boxes.ndim == 2 and boxes.shape == (len(scores), 4) and boxes.dtype == scores.dtype == np.float32


def test_the_detector_around_an_estimator_finds_persons_if_the_estimator_does(random_lite):
    assert EstimatorKeypointDetector(random_lite).detect_persons == random_lite.detect_persons

    class Other:
        spec = EstimatorSpec("other")

        def predict(self, persons):
            raise NotImplementedError

    assert not hasattr(EstimatorKeypointDetector(Other()), "detect_persons")
