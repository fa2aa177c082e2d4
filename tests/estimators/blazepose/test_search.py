"""Which detection is the person of a box, and when the box itself is looked at in its place."""

from __future__ import annotations

import numpy as np
import pytest

from posesyn.estimators.blazepose.estimator import BlazePose
from posesyn.estimators.blazepose.regions import Detection
from posesyn.estimators.blazepose.search import box_answers, first_region, searched_part
from posesyn.types import ArrayImage, Person

BOX = np.array([100.0, 50, 200, 250])
MIDDLE = (150.0, 150.0)


def detection(score: float, hips=MIDDLE, rim=(150.0, 50.0)) -> Detection:
    return Detection(score, np.zeros(4), np.array([hips, rim, hips, rim], float))


def test_the_searched_part_is_twice_the_box_around_its_middle():
    low, high = searched_part(BOX).reshape(2, 2)
    np.testing.assert_allclose((low + high) / 2, MIDDLE)
    np.testing.assert_allclose(high - low, 2 * (BOX[2:] - BOX[:2]))


def test_a_sure_detection_in_the_middle_wins_over_a_surer_one_aside():
    region, score = first_region(BOX, [detection(0.9, (110, 60)), detection(0.6)])
    assert (region.x, region.y, score) == (*MIDDLE, 0.6)


def test_among_unsure_ones_the_surest_is_taken_and_outside_the_box_none():
    region, score = first_region(BOX, [detection(0.99, (300, 150)), detection(0.3, (110, 60)), detection(0.2)])
    assert (region.x, region.y, score) == (110, 60, 0.3)
    assert first_region(BOX, [detection(0.99, (300, 150))]) is None


@pytest.mark.parametrize(("score", "sided"), [(0.6, False), (0.4, True)])
def test_a_sure_detection_stays_and_an_unsure_one_goes_where_fit_and_presence_disagree(score, sided):
    assert box_answers(score, (0.5, 0.5), (0.6, 0.6)) and not box_answers(score, (0.6, 0.6), (0.5, 0.5))
    for boxed in ((0.6, 0.4), (0.4, 0.6), (0.5, 0.5)):
        assert box_answers(score, (0.5, 0.5), boxed) == sided
    # Somebody else, who is seen better.
    assert box_answers(score, (0.1, 0.9), (0.2, 0.5)) and not box_answers(score, (0.2, 0.9), (0.1, 0.5))


class Scripted(BlazePose):
    """A detector and landmarks that say what a test wants. Detections of this test are head down."""

    def __init__(self, found: Detection, presence: dict[bool, float], *, small: bool = False) -> None:
        super().__init__("lite")
        self.found, self.chances, self.small, self.looks = found, presence, small, []

    def _anchors(self, image, box_xyxy):
        chance = np.full(2254, 1e-9)
        chance[0] = self.found.score
        boxes = np.zeros((2254, 6, 2))
        boxes[0] = [self.found.points[0], (20, 20), *self.found.points]
        return np.log(chance / (1 - chance)), boxes + 0.5, np.eye(3)[:2]

    def _look(self, images, regions):
        upright = [region.angle == 0 for region in regions]
        self.looks += upright
        tall, small = np.array([(77.0, 25), (179, 231)]), np.array([(120.0, 120), (136, 136)])
        head_down = small if self.small else tall + np.array([(16, 16), (-16, -16)])
        points = np.stack([np.resize(tall if one else head_down, (33, 2)) for one in upright])
        turned = np.array([[(128.0, 128), (128, 26)]] * len(regions))  # the same region again
        chance = np.array([self.chances[one] for one in upright])
        world = np.zeros((len(regions), 33, 3)) + np.arange(33)[:, None] * (0.01, -0.02, 0.005)
        return {"world": world, "keypoints_px": points, "visibility": np.ones((len(regions), 33)),
                "presence": chance, "region_px": turned}  # fmt: skip


def answer(estimator: BlazePose) -> np.ndarray:
    picture = ArrayImage(np.zeros((300, 300, 3), np.uint8))
    person = Person("p", picture, BOX, np.full((17, 2), 150.0), np.ones(17), "coco17", box_is_tight=True)
    return estimator.predict([person]).keypoints_px[0]


@pytest.mark.parametrize(
    ("score", "presence", "small", "box_seen", "box_taken"),
    [
        (0.9, {False: 0.9, True: 0.99}, False, False, False),  # sure, and it fits
        (0.4, {False: 0.5, True: 0.99}, False, True, True),  # unsure: the box is seen better
        (0.6, {False: 0.9, True: 0.5}, False, True, False),  # rather sure, and the network sees less in the box
        (0.4, {False: 0.9, True: 0.5}, False, True, True),  # unsure, and only one of both speaks for it
        (0.05, {False: 0.9, True: 0.5}, False, True, True),  # no detection
        (0.9, {False: 0.5, True: 0.99}, True, True, True),  # sure of somebody who does not fill the box
    ],
)
def test_the_box_answers_where_the_detection_is_doubtful_and_it_is_seen_better(
    score, presence, small, box_seen, box_taken
):
    estimator = Scripted(detection(score, MIDDLE, (150.0, 250)), presence, small=small).eval()
    found = answer(estimator)
    assert any(estimator.looks) == box_seen
    assert sum(estimator.looks) == 2 * box_seen  # never twice the same
    assert (found[0, 1] < found[1, 1]) == box_taken  # the crop's upper point is the lower one of a person head down
