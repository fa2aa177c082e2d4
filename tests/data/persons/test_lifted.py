"""Lifted 2D truth: labels that agree with the picture and with the body, and a trust that means something."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.body.pose_fitting import PoseFitter, limb_joints, open_distance
from posesyn.body.pose_library import ROWS, shipped_library
from posesyn.body.pose_refinement import Fitted, FittingSettings
from posesyn.data.batches import training_sample
from posesyn.data.crop_augmentation import CropAugmentation
from posesyn.data.persons.lifted import (
    BodyLabeller,
    LiftedPersons,
    check_liftable,
    label_arrays,
    lift,
    trust_of,
)
from posesyn.errors import FileError, InputError
from posesyn.interfaces import EstimatorSpec
from posesyn.metrics import pa_mpjpe
from posesyn.types import BodyLabels, PoseBatch, joint_truth
from tests.factories import make_labelled, make_seen

QUICK = FittingSettings(starts=6, hypotheses=4, iterations=8)
SPEC = EstimatorSpec("test", input_size=(16, 16))


@pytest.fixture(scope="module")
def labeller(body):
    return BodyLabeller(PoseFitter(settings=QUICK), body)


@pytest.fixture(scope="module")
def poses():
    return shipped_library().points[[20, 300, 700, 1200]].double().numpy()


class Recalls:
    """An estimator that answers with what is known of each person."""

    def __init__(self, scored, skeleton="smpl45"):
        self.spec = EstimatorSpec("recalls", skeleton=skeleton)
        self.known = {one.person.person_id: one.prediction for one in scored}

    def predict(self, persons):
        names = tuple(person.person_id for person in persons)
        if "damaged" in names:
            raise FileError("could not read an image", where="damaged.jpg")
        stacked = {
            name: np.concatenate([getattr(self.known[one], name) for one in names])
            for name in ("joints_cam", "keypoints_px")
        }
        return PoseBatch(names, "smpl45", **stacked)


def seen(poses, row, **options):
    return make_seen(poses[row], poses[(row + 1) % len(poses)], name=f"p{row}", noise=1.0, seed=row, **options)


@pytest.mark.parametrize("row", range(4))
def test_labels_agree_with_the_picture_the_body_and_the_true_pose(labeller, body, poses, row):
    scored = seen(poses, row)
    labels = labeller.labels(scored)
    with torch.no_grad():
        posed = body(*(torch.from_numpy(x)[None] for x in (labels.pose_rotmat, labels.betas, labels.transl_cam)))
    np.testing.assert_allclose(posed.joints[0].numpy(), labels.joints_cam, atol=1e-5)
    points = labels.joints_cam @ labels.intrinsics.T
    pixels, known = skeletons.convert(points[:, :2] / points[:, 2:], "smpl45", scored.person.skeleton)
    # 1.7 m are about 210 px here.
    assert np.linalg.norm(pixels - scored.person.keypoints_px, axis=-1)[known & scored.person.visible].mean() < 6
    error = pa_mpjpe(labels.joints_cam[None, :22].astype(float), poses[row][None, :22], reduce="none")[0]
    wrong = pa_mpjpe(poses[(row + 1) % 4][None, :22], poses[row][None, :22], reduce="none")[0]
    assert error < 0.6 * wrong and 0 < labels.trust < 1


def test_the_camera_of_a_fit_projects_its_points(labeller, poses):
    scored = seen(poses, 0)
    fitted = labeller.fitter.fit(scored)
    for points, view, (focal, x, y, depth), off in zip(
        fitted.points, fitted.views, fitted.cameras, fitted.reprojection
    ):
        posed = points @ view.T
        pixels = np.array([x, y]) + focal * posed[:, :2] / (depth + posed[:, 2:])
        full = np.zeros((45, 2))
        full[list(ROWS)] = pixels
        shown, _ = skeletons.convert(full, "smpl45", "coco17")
        size = (scored.person.box_xyxy[2:] - scored.person.box_xyxy[:2]).max()
        apart = np.linalg.norm(shown - scored.person.keypoints_px, axis=-1).mean() / size
        assert apart == pytest.approx(off, abs=0.01)


def test_trust_falls_with_disagreement_and_with_what_no_body_explains(labeller, poses):
    scored = seen(poses, 1)
    fitted = labeller.fitter.fit(scored)
    alone = Fitted(*(value[:1] for value in fitted))
    assert open_distance(alone, 5.0) == 0
    assert trust_of(alone) == pytest.approx(np.exp(-((fitted.reprojection[0] / 0.06) ** 2)))
    # Two poses that explain it alike: half of the distance between them counts.
    both = Fitted(*(np.repeat(value[:1], 2, axis=0) for value in fitted))
    both.points[1] *= 1.5
    apart = np.linalg.norm(both.points[1, :22] - both.points[0, :22], axis=-1).mean() / 2
    assert open_distance(both, 5.0) == pytest.approx(apart)
    assert trust_of(both) == pytest.approx(trust_of(alone) * np.exp(-((apart / 0.08) ** 2)))
    unlikely = both._replace(cost=both.cost + np.array([0.0, 50.0]))
    assert trust_of(both) < trust_of(unlikely) < trust_of(alone)
    moved = scored.person.keypoints_px.copy()
    moved[[9, 16]] = moved[[16, 9]]  # a wrist for an ankle
    mistaken = replace(scored, person=replace(scored.person, keypoints_px=moved))
    assert trust_of(labeller.fitter.fit(mistaken)) < 0.7 * trust_of(fitted)
    exact = alone._replace(reprojection=np.zeros(1))
    assert trust_of(exact) < 1  # what is fitted never counts as truth


def test_who_cannot_be_lifted_is_counted_and_the_rest_goes_on(labeller, body, poses, monkeypatch):
    good, few = seen(poses, 0), seen(poses, 1, hide=range(5, 13))
    truth = make_labelled(body, "truth")
    damaged = replace(good.person, person_id="damaged")
    broken = seen(poses, 2)
    answer = broken.prediction.joints_cam.copy()
    answer[0, 3] = np.nan
    estimator = Recalls([good, few, replace(broken, prediction=replace(broken.prediction, joints_cam=answer))])
    persons = [good.person, few.person, truth, damaged, broken.person]
    found = lift(persons, estimator, labeller)
    assert isinstance(found[0], BodyLabels) and set(found) == {0, 1, 3, 4}
    assert "fewer than 6 joints" in found[1] and "could not read" in found[3] and "NaN" in found[4]
    lifted = LiftedPersons(persons, label_arrays(found, persons, 0))
    assert [name for name, _ in lifted.missed] == ["p1", "damaged", "p2"]
    assert lifted[0].labels.trust == pytest.approx(found[0].trust) and lifted.trust.shape == (1,)
    assert lifted[1] is few.person and lifted[2] is truth and lifted[-3] is truth
    assert [person.person_id for person in lifted[:2]] == ["p0", "p1"] and "1 lifted, 3 not" in repr(lifted)
    again = pickle.loads(pickle.dumps(lifted))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again[0].labels.joints_cam, lifted[0].labels.joints_cam)
    with pytest.raises(IndexError):
        lifted[5]
    with pytest.raises(InputError, match="another data set"):
        LiftedPersons(persons[1:], label_arrays(found, persons, 0))


def test_skeletons_without_limbs_are_refused_before_anything_is_computed(poses, body, monkeypatch):
    scored = seen(poses, 0)
    assert limb_joints("mpii16") == 12
    check_liftable([scored.person], Recalls([scored]))
    with pytest.raises(InputError, match="3D labels for everybody"):
        check_liftable([make_labelled(body, "truth")], Recalls([]))
    known = skeletons.mapping

    def without_limbs(source, target, **options):
        rows = known(source, target, **options).copy()
        if "coco17" in (source, target):
            rows[:] = -1
        return rows

    monkeypatch.setattr(skeletons, "mapping", without_limbs)
    with pytest.raises(InputError, match=r"cannot be lifted.*coco17"):
        check_liftable([scored.person], Recalls([scored]))
    with pytest.raises(InputError, match="estimator's skeleton has too few joints"):
        check_liftable([scored.person], Recalls([scored], skeleton="coco17"))


def test_a_label_is_used_in_the_share_of_its_trust_and_moves_no_other_draw(body):
    sure = make_labelled(body)
    half = replace(sure, labels=replace(sure.labels, trust=0.3))
    augment = CropAugmentation()

    def sample(person, number):
        return training_sample(person, SPEC, augment, np.random.default_rng(number))

    used = [bool(sample(half, number)["has_labels"]) for number in range(300)]
    assert 0.22 < np.mean(used) < 0.38  # three standard deviations
    assert all(sample(sure, number)["has_labels"] for number in range(9))
    for number in (used.index(True), used.index(False)):
        one, other = sample(half, number), sample(sure, number)
        np.testing.assert_array_equal(one["images"], other["images"])
        assert np.array_equal(one["joints"], other["joints"]) == used[number]
    assert training_sample(half, SPEC)["has_labels"]


def test_what_is_trusted_in_part_is_no_truth(body):
    person = make_labelled(body)
    assert joint_truth(person) is not None
    assert joint_truth(replace(person, labels=replace(person.labels, trust=0.9))) is None
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(InputError, match="a share"):
            replace(person.labels, trust=wrong)
