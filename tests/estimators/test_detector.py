import numpy as np
import pytest

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators import EstimatorKeypointDetector
from posesyn.interfaces import KeypointDetector
from posesyn.types import ArrayImage, Person


def test_keypoints_are_those_of_the_estimator(small, rng):
    images = rng.integers(0, 256, (3, 80, 100, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 60, 75], [30, 10, 90, 79], [0, 0, 99, 79]], np.float32)
    detector = EstimatorKeypointDetector(small)
    assert isinstance(detector.skeleton, str) and callable(KeypointDetector.detect)
    keypoints, scores = detector.detect(images, boxes)
    assert keypoints.shape == (3, 17, 2)
    assert scores.shape == (3, 17)
    empty = np.zeros((45, 2)), np.zeros(45, bool)
    persons = [Person(str(i), ArrayImage(images[i]), boxes[i], *empty, "smpl45") for i in range(3)]
    expected, _ = skeletons.convert(small.predict(persons).keypoints_px, "smpl45", "coco17")
    np.testing.assert_allclose(keypoints, expected, atol=1e-3)
    inside = ((keypoints >= -0.5) & (keypoints <= (99.5, 79.5))).all(-1)
    assert np.array_equal(scores > 0, inside)


def test_joints_the_estimator_lacks_score_zero(small, rng):
    images = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    _, scores = EstimatorKeypointDetector(small, "mpii16").detect(images, np.array([[0, 0, 64, 64]]))
    present = skeletons.mapping("smpl45", "mpii16") >= 0
    assert (scores[0, ~present] == 0).all()


def test_no_frames(small):
    keypoints, scores = EstimatorKeypointDetector(small).detect(np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 4)))
    assert keypoints.shape == (0, 17, 2)
    assert scores.shape == (0, 17)


def test_bad_input(small):
    detector = EstimatorKeypointDetector(small)
    with pytest.raises(InputError, match="one box per image"):
        detector.detect(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 4)))
    with pytest.raises(InputError, match="unknown skeleton"):
        EstimatorKeypointDetector(small, "coco18")
