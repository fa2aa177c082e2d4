"""Who is picked: by what is wrong in depth, at random, half and half; and the sum over joints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posesyn.body.pose_fitting import PoseFitter, distance_mm
from posesyn.body.pose_library import shipped_library
from posesyn.errors import InputError
from posesyn.metrics.pose2d_error import joint_weights, pose_error
from posesyn.settings.stages import ExtractionSettings
from posesyn.settings.synthesis import FittingSettings
from posesyn.storage.reports import load_report
from posesyn.synthesis.extraction.extractor import ErrorExtractor
from posesyn.synthesis.extraction.scoring import Ranking
from posesyn.types import ArrayImage
from tests.factories import make_seen

QUICK = FittingSettings(starts=4, hypotheses=3, iterations=5)
PIXELS = np.zeros((400, 400, 3), np.uint8)


def seen(truth: int, wrong: int, name: str = "a"):
    """A person in one pose of the library, whom an estimator takes to be in another."""
    points = shipped_library().points.double().numpy()
    return make_seen(points[truth], points[wrong], name)


class Told:
    """Answers with what it is told of each person."""

    def __init__(self, items):
        self.answers = {item.person.person_id: item.prediction for item in items}
        self.spec = type("Spec", (), {"name": "told"})()
        self.spec.skeleton = items[0].prediction.skeleton

    def predict(self, persons):
        answers = [self.answers[person.person_id] for person in persons]
        return replace(
            answers[0],
            person_ids=tuple(person.person_id for person in persons),
            **{
                name: np.concatenate([getattr(one, name) for one in answers]) for name in ("joints_cam", "keypoints_px")
            },
        )


def test_the_distance_is_small_for_the_right_pose_and_large_for_a_wrong_one():
    fitter = PoseFitter(settings=QUICK)

    def distance(item):
        return distance_mm(item, fitter.fit(item), QUICK.temperature)

    right, wrong = seen(10, 10), seen(10, 400)
    assert distance(right) < 40 < distance(wrong)
    # A prediction that is turned and scaled as a whole is not wrong in pose.
    turn = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]], np.float32)
    turned = replace(right, prediction=replace(right.prediction, joints_cam=1.3 * right.prediction.joints_cam @ turn.T))
    assert distance(turned) < distance(wrong)


def test_ranking_by_the_lifted_truth_finds_what_the_picture_hides(tmp_path):
    """The last person is right in 2D and wrong in depth: its joints lie mirrored behind the image plane."""
    items = [seen(number, number, f"p{number}") for number in (10, 200, 300)]
    hidden = seen(450, 450, "hidden")
    flat = np.array(hidden.prediction.joints_cam)
    flat[..., 2] = 2 * flat[:, :1, 2] - flat[..., 2]
    items.append(replace(hidden, prediction=replace(hidden.prediction, joints_cam=flat)))
    persons = [replace(item.person, image=ArrayImage(PIXELS, item.person.person_id)) for item in items]
    report = ErrorExtractor(Told(items), num_challenging=1, num_non_challenging=1, rank_by="lifted").extract(
        persons, progress=False, out=tmp_path
    )
    assert report.challenging[0].person.person_id == "hidden"
    assert [item.lifted_mm for item in report.scored] == sorted((i.lifted_mm for i in report.scored), reverse=True)
    again = load_report(tmp_path, persons)
    assert again.challenging[0].lifted_mm == pytest.approx(report.challenging[0].lifted_mm)
    assert "lifted_mm" in report.to_pandas()
    resumed = ErrorExtractor(Told(items), num_challenging=1, num_non_challenging=1, rank_by="lifted").extract(
        persons, progress=False, out=tmp_path
    )
    assert [item.lifted_mm for item in resumed.scored] == [item.lifted_mm for item in report.scored]


def test_persons_who_cannot_be_lifted_are_told():
    item = seen(10, 10)
    visible = np.zeros(17, bool)
    visible[:9] = True  # face, shoulders, elbows
    person = replace(item.person, image=ArrayImage(PIXELS, "a"), visible=visible)
    other = replace(seen(10, 10, "b").person, image=ArrayImage(PIXELS, "b"))
    told = Told([item, replace(seen(10, 10, "b"), person=other)])
    report = ErrorExtractor(told, num_challenging=1, num_non_challenging=0, rank_by="lifted").extract(
        [person, other], progress=False
    )
    assert [item.person.person_id for item in report.scored] == ["b"]
    assert "limbs" in report.skipped[0][1]


def picked(selection: str, count: int = 400, hard: int = 40, keep: str = "all", order=None, seed: int = 0):
    one = seen(10, 10)
    items = [
        replace(one, person=replace(one.person, person_id=f"p{row:04d}"), error=(row * 37 % count) / count)
        for row in range(count)
    ]
    settings = ExtractionSettings(hard, 20, selection=selection, keep=keep, selection_seed=seed)
    ranking = Ranking(settings)
    for row in np.arange(count) if order is None else order:
        ranking.add([items[row]])
    _, challenging, easy = ranking.finish()
    assert not {i.person.person_id for i in challenging} & {i.person.person_id for i in easy}
    return [item.person.person_id for item in challenging], [item.error for item in challenging]


def test_random_persons_are_anybody_and_the_same_again():
    names, errors = picked("random")
    assert len(set(names)) == 40 and 0.3 < np.mean(errors) < 0.7
    assert picked("random", keep="selected")[0] == names
    assert picked("random", order=np.random.default_rng(1).permutation(400), keep="selected")[0] == names
    assert picked("random", seed=1)[0] != names


def test_mixed_is_half_by_rank_and_half_at_random():
    by_rank, _ = picked("rank")
    names, errors = picked("mixed")
    assert names[:20] == by_rank[:20] and len(set(names)) == 40
    assert np.mean(errors[20:]) < 0.7 < np.mean(errors[:20])
    assert picked("mixed", order=np.arange(400)[::-1], keep="selected")[0] == names
    # Few persons are divided as always.
    assert len(picked("mixed", count=30)[0]) == 20


def test_the_sum_ranks_as_the_papers_and_equals_the_mean_of_a_whole_person(rng):
    truth, weights = rng.uniform(0, 100, (17, 2)), joint_weights("coco17")
    predicted = truth + rng.normal(0, 5, (17, 2))
    whole, few = np.ones(17, bool), np.arange(17) < 13
    by_hand = []
    for used in (whole, few):
        root = (predicted[11:13].mean(0), truth[11:13].mean(0)) if used[[11, 12]].all() else None
        apart = np.abs((predicted - root[0]) - (truth - root[1])).sum(-1) / 50
        by_hand.append((weights * apart)[used].sum())
    found = [pose_error(predicted, truth, used, "coco17", 50, weights, "sum")[0] for used in (whole, few)]
    np.testing.assert_allclose(found, np.array(by_hand) / weights.sum())
    assert found[0] == pytest.approx(pose_error(predicted, truth, whole, "coco17", 50, weights)[0])
    assert found[1] < pose_error(predicted, truth, few, "coco17", 50, weights)[0]


def test_a_misspelt_choice_is_refused():
    with pytest.raises(InputError, match="rank_by"):
        ExtractionSettings(rank_by="lift")
