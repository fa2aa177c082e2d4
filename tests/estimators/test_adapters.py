from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from posesyn import skeletons
from posesyn.data.batches import collate, training_sample
from posesyn.data.crops import crop_persons
from posesyn.errors import InputError
from posesyn.estimators import CallableEstimator, EstimatorKeypointDetector
from posesyn.interfaces import EstimatorSpec, KeypointDetector, TargetEstimator, TrainableEstimator
from posesyn.training.estimators.module import PoseEstimatorModule
from posesyn.types import ArrayImage, Person

SPEC = EstimatorSpec("foreign", input_size=(64, 48), box_aspect=0.75, skeleton="coco17")


# The foreign network of the README, in 14 lines.
class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 8 * 6, 17 * 5))

    def forward(self, images):
        out = self.layers(images).view(-1, 17, 5)
        return {"joints": out[..., :3], "keypoints_px": 24 + 20 * out[..., 3:]}


def tiny_losses(output, batch):
    keypoints, seen = skeletons.convert(batch["keypoints_px"], "smpl45", "coco17", visible=batch["visible"])
    return {"keypoints": ((output["keypoints_px"] - keypoints).abs() * seen[..., None]).mean()}


def errors_2d(estimator, persons):
    """What ErrorExtractor does, in short: predict, convert to the annotation's joints, compare in pixels."""
    found = estimator.predict(persons)
    errors = []
    for row, person in enumerate(persons):
        keypoints, present = skeletons.convert(found.keypoints_px[row], found.skeleton, person.skeleton)
        used = present & person.visible
        errors.append(np.linalg.norm(keypoints - person.keypoints_px, axis=-1)[used].mean())
    return np.array(errors)


def test_a_foreign_network_is_ranked_and_trained(persons):
    torch.manual_seed(0)
    estimator = CallableEstimator(Tiny(), SPEC, losses=tiny_losses)
    assert isinstance(estimator, TrainableEstimator)
    before = errors_2d(estimator, persons)
    assert before.shape == (5,)
    assert np.isfinite(before).all()
    module = PoseEstimatorModule(estimator, learning_rate=1e-2)
    batch = collate([training_sample(person, estimator.spec) for person in persons])
    optimizer = module.configure_optimizers()
    for _ in range(100):
        loss = sum(estimator.training_losses(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert errors_2d(estimator, persons).mean() < 0.7 * before.mean()


def test_without_losses_it_is_an_estimator_but_not_trainable():
    estimator = CallableEstimator(Tiny(), SPEC)
    assert isinstance(estimator, TargetEstimator)
    assert not isinstance(estimator, TrainableEstimator)


def test_crop_pixels_return_to_the_full_image(persons):
    marks = np.random.default_rng(3).uniform(0, 60, (17, 2)).astype(np.float32)

    def fn(images):
        assert images.shape[1:] == (3, 64, 48)
        return np.zeros((len(images), 17, 3)), np.tile(marks, (len(images), 1, 1))

    found = CallableEstimator(fn, SPEC, batch_size=2).predict(persons)
    affines = crop_persons(persons, SPEC).affines
    back = np.einsum("bij,bkj->bki", affines[..., :2], found.keypoints_px) + affines[:, None, :, 2]
    np.testing.assert_allclose(back, np.tile(marks, (5, 1, 1)), atol=1e-3)


@pytest.mark.parametrize("form", ["cam", "transl_cam"])
def test_cameras_agree_with_the_crop(persons, form):
    spec = EstimatorSpec("foreign", input_size=(64, 64), skeleton="coco17")
    joints = np.random.default_rng(0).normal(0, 0.4, (17, 3)).astype(np.float32)
    joints[:, 2] *= 0.1
    scale, tx, ty = 0.8, 0.1, -0.2
    translation = [tx, ty, 2 * spec.focal_length / (64 * scale)]

    def fn(images):
        value = [scale, tx, ty] if form == "cam" else translation
        return {"joints": np.tile(joints, (len(images), 1, 1)), form: np.tile(value, (len(images), 1))}

    found = CallableEstimator(fn, spec).predict(persons)
    affines = crop_persons(persons, spec).affines
    crop = np.einsum("bij,bkj->bki", affines[..., :2], found.keypoints_px) + affines[:, None, :, 2]
    expected = scale * (joints[:, :2] + (tx, ty)) * 32 + 31.5
    np.testing.assert_allclose(crop, np.tile(expected, (5, 1, 1)), atol=0.05)
    relative = found.joints_cam - found.joints_cam[:, :1]
    np.testing.assert_allclose(relative, np.tile(joints - joints[:1], (5, 1, 1)), atol=1e-4)


def test_smpl_outputs_are_passed_on(persons):
    def fn(images):
        pose = torch.eye(3).expand(len(images), 24, 3, 3)
        points = torch.zeros(len(images), 17, 2)
        return {"joints": torch.zeros(len(images), 17, 3), "keypoints_px": points, "pose_rotmat": pose}

    found = CallableEstimator(fn, SPEC).predict(persons)
    assert found.pose_rotmat.shape == (5, 24, 3, 3)
    assert found.betas is None


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda n: torch.zeros(n, 17, 3), "does not return"),
        (lambda n: {"joints": torch.zeros(n, 17, 3)}, "one of keypoints_px, cam, transl_cam"),
        (lambda n: (torch.zeros(n, 16, 3), torch.zeros(n, 16, 2)), r"'joints' of the wrong shape"),
        (lambda n: {"joints": torch.zeros(n, 17, 3), "cam": torch.zeros(n, 4)}, r"'cam' of the wrong shape"),
    ],
)
def test_bad_outputs_are_named(persons, output, message):
    with pytest.raises(InputError, match=message):
        CallableEstimator(lambda images: output(len(images)), SPEC).predict(persons)


def test_bad_arguments(persons):
    with pytest.raises(InputError, match="needs a function"):
        CallableEstimator("resnet", SPEC)
    with pytest.raises(InputError, match="images only"):
        CallableEstimator(Tiny(), EstimatorSpec("crowd", keypoints_skeleton="coco17"))
    with pytest.raises(InputError, match="at least one person"):
        CallableEstimator(Tiny(), SPEC).predict([])


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


def test_scores_are_the_estimators_where_it_has_some(small, rng):
    images = rng.integers(0, 256, (2, 80, 100, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 60, 75], [30, 10, 90, 79]], np.float32)
    sure = rng.random((2, 45)).astype(np.float32)

    class Sure:
        spec = small.spec

        def predict(self, persons):
            return replace(small.predict(persons), scores=sure)

    _, plain = EstimatorKeypointDetector(small).detect(images, boxes)
    _, scores = EstimatorKeypointDetector(Sure()).detect(images, boxes)
    rows = skeletons.mapping("smpl45", "coco17")
    np.testing.assert_array_equal(scores, np.where(plain > 0, sure[:, rows], 0))
    _, scores = EstimatorKeypointDetector(Sure(), "mpii16").detect(images, boxes)
    assert (scores[:, skeletons.mapping("smpl45", "mpii16") < 0] == 0).all()


def test_a_detector_has_the_name_and_the_family_of_its_estimator(small):
    assert EstimatorKeypointDetector(small).name == EstimatorKeypointDetector(small).family == small.spec.name
    other = CallableEstimator(Tiny(), replace(SPEC, family="relatives"))
    assert EstimatorKeypointDetector(other).family == "relatives"


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
