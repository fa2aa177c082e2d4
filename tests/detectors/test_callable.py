from __future__ import annotations

import numpy as np
import pytest

from posesyn.detectors import CallableDetector
from posesyn.errors import InputError

IMAGES = np.zeros((3, 20, 30, 3), np.uint8)
BOXES = np.array([[0, 0, 10, 10], [5, 5, 25, 15], [1, 2, 3, 4]])


def corners(images, boxes):
    return np.repeat(boxes[:, None, :2], 17, axis=1), np.full((len(images), 17), 0.25)


def test_a_function_is_a_detector():
    detector = CallableDetector(corners)
    keypoints, scores = detector.detect(IMAGES, BOXES)
    np.testing.assert_array_equal(keypoints[:, 3], BOXES[:, :2])
    assert (scores == 0.25).all() and keypoints.dtype == scores.dtype == np.float32
    assert repr(detector) == "CallableDetector(name='corners', skeleton='coco17')"
    assert (detector.name, detector.family, detector.skeleton) == ("corners", None, "coco17")
    named = CallableDetector(lambda images, boxes: corners(images, boxes)[0], name="mine", family="theirs")
    assert (named.detect(IMAGES, BOXES)[1] == 1).all() and (named.name, named.family) == ("mine", "theirs")
    assert CallableDetector(corners).detect(IMAGES[:0], BOXES[:0])[0].shape == (0, 17, 2)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros((3, 16, 2)), r"expected keypoints \(3, 17, 2\)"),
        ((np.zeros((3, 17, 2)), np.zeros(3)), r"scores \(3, 17\)"),
        ((np.zeros((3, 17, 2)), np.full((3, 17), 7.0)), "from 0 to 1 in detector 'wrong': got 7 to 7"),
        ((np.zeros((3, 17, 2)), np.full((3, 17), np.nan)), "from 0 to 1"),
        ("nothing", "does not return arrays"),
        (None, "must say|arrays"),
    ],
)
def test_wrong_answers_are_named(answer, message):
    with pytest.raises(InputError, match=message):
        CallableDetector(lambda images, boxes: answer, name="wrong").detect(IMAGES, BOXES)


def test_bad_arguments():
    with pytest.raises(InputError, match="needs a function"):
        CallableDetector("movenet")
    with pytest.raises(InputError, match="unknown skeleton"):
        CallableDetector(corners, "coco18")
    with pytest.raises(InputError, match="one box per image"):
        CallableDetector(corners).detect(IMAGES, BOXES[:2])
    with pytest.raises(InputError, match="frame 1"):
        CallableDetector(corners).detect(IMAGES, np.array([[0, 0, 9, 9], [90, 0, 90, 0], [0, 0, 9, 9]]))
