"""Lifters: official files, wrong files, bad input, and their use as estimators on persons and single images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import posesyn
from posesyn import skeletons
from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.lifters.estimator import LifterEstimator
from posesyn.estimators.lifters.keypoints import (
    FOCAL,
    image_intrinsics,
    lift_keypoints,
    normalised,
    person_view,
    place_before_camera,
    sixteen_keypoints,
)
from posesyn.estimators.lifters.lifter import LIFTERS, dropped, load_lifter, make_lifter
from posesyn.interfaces import TrainableEstimator
from posesyn.settings.lifters import CameraRig
from posesyn.storage.checkpoints import save_weights
from posesyn.types import JointTruth, Person

NAMES = tuple(LIFTERS)


def files(lifter, folder):
    weights = lifter.state_dict()
    for name, content in {
        "ckpt_best.pth.tar": {"state_dict": weights, "epoch": 3},
        "ckpt_best_dhp_p1.pth.tar": {"model_pos": weights, "epoch": 3},
        "bare.pth": weights,
        "parallel.pth": {f"module.{key}": value for key, value in weights.items()},
    }.items():
        torch.save(content, folder / name)
        yield folder / name


@pytest.mark.parametrize("name", NAMES)
def test_official_files_load(tmp_path, name):
    torch.manual_seed(1)
    lifter = make_lifter(name).eval()
    points = torch.randn(4, 16, 2) * 0.3
    wanted = lifter(points)
    for path in files(lifter, tmp_path):
        for loaded in (LIFTERS[name].from_official(path), load_lifter(path)):
            assert not loaded.training and type(loaded) is LIFTERS[name]
            torch.testing.assert_close(loaded(points), wanted)
    lifter.save(tmp_path / "own.safetensors")
    torch.testing.assert_close(load_lifter(tmp_path / "own.safetensors")(points), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_of_another_lifter(tmp_path, name):
    other = NAMES[NAMES.index(name) - 1]
    torch.save({"state_dict": make_lifter(other).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="another lifter"):
        LIFTERS[name].from_official(tmp_path / "other.pth")


def test_file_without_a_lifter(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="no known lifter"):
        load_lifter(tmp_path / "x.pth")


@pytest.mark.parametrize("name", NAMES)
def test_wrong_joints_and_a_batch_of_one(name):
    lifter = make_lifter(name).eval()
    for joints in (14, 17):
        with pytest.raises(InputError, match="16"):
            lifter(torch.zeros(2, joints, 2))
    # The official ST-GCN squeezes a batch of one into three wrong rows.
    points = torch.randn(3, 16, 2)
    torch.testing.assert_close(lifter(points[:1]), lifter(points)[:1], rtol=1e-4, atol=1e-5)


def pose() -> np.ndarray:
    rng = np.random.default_rng(0)
    centred = rng.normal(0, 0.3, (16, 3))
    return centred - centred[0]


def test_place_before_camera_is_exact_for_exact_keypoints():
    camera = image_intrinsics(640, 480).astype(float)
    joints, place = pose(), np.array([0.4, -0.2, 4.0])
    seen = (joints + place) @ camera.T
    np.testing.assert_allclose(place_before_camera(joints, seen[:, :2] / seen[:, 2:], camera), place, atol=1e-5)


def test_normalised_is_the_published_rule():
    points = np.array([[0.0, 0.0], [639.0, 479.0], [100.0, 37.0]])
    # PoseAug counts pixels from the corner of the image, posesyn from the centre of the first one.
    wanted = (points + 0.5) / 640 * 2 - (1, 480 / 640)
    np.testing.assert_allclose(normalised(points, image_intrinsics(640, 480)), wanted, atol=1e-6)


def test_stand_ins_for_joints_that_coco_lacks():
    names = skeletons.get("coco17").joints
    points = np.random.default_rng(0).uniform(50, 400, (17, 2))
    found = sixteen_keypoints(points, np.ones(17, bool), "coco17", "test")
    hips = [index for index, name in enumerate(names) if "hip" in name]
    shoulders = [index for index, name in enumerate(names) if "shoulder" in name]
    np.testing.assert_allclose(found[0], points[hips].mean(0))
    np.testing.assert_allclose(found[8], points[shoulders].mean(0))
    np.testing.assert_allclose(found[7], (found[0] + found[8]) / 2)
    with pytest.raises(InputError, match="too few"):
        sixteen_keypoints(points, np.arange(17) < 2, "coco17", "test")
    points[5] = np.nan
    with pytest.raises(InputError, match="finite"):
        sixteen_keypoints(points, np.ones(17, bool), "coco17", "test")


def test_one_call_to_a_pose_and_its_picture(tmp_path):
    points = np.random.default_rng(0).uniform(50, 400, (17, 2))
    lifted = lift_keypoints(make_lifter("mlp", width=32), points, (640, 480))
    assert lifted.joints_cam.shape == (16, 3) and (lifted.joints_cam[:, 2] > 0).all()
    assert lifted.picture(tmp_path / "pose.png")[:4] == b"\x89PNG" and (tmp_path / "pose.png").is_file()
    with pytest.raises(InputError, match="J=17"):
        lift_keypoints(make_lifter("mlp", width=32), points[:14], (640, 480))


class Blank:
    def load(self) -> np.ndarray:
        return np.zeros((480, 640, 3), np.uint8)


def persons(count: int = 3) -> list[Person]:
    rng = np.random.default_rng(1)
    return [
        Person(f"p{k}", Blank(), np.array([50, 50, 400, 400], np.float32), rng.uniform(60, 390, (17, 2)),
               np.ones(17, bool), "coco17") for k in range(count)
    ]  # fmt: skip


class Corner:
    """A detector that finds every joint at the same places."""

    skeleton = "coco17"

    def detect(self, images, boxes):
        return np.tile(persons(1)[0].keypoints_px, (len(images), 1, 1)), np.ones((len(images), 17))


def test_estimator_predicts_in_the_full_image(rng):
    estimator = LifterEstimator(make_lifter("mlp", width=32), batch_size=2)
    assert isinstance(estimator, TrainableEstimator)
    batch = estimator.predict(persons())
    assert batch.skeleton == "poseaug16" and batch.person_ids == ("p0", "p1", "p2")
    seen = np.einsum("bij,bnj->bni", batch.intrinsics, batch.joints_cam)
    np.testing.assert_allclose(seen[..., :2] / seen[..., 2:], batch.keypoints_px, rtol=1e-4, atol=1e-2)
    found = LifterEstimator(estimator.lifter, Corner()).predict(persons(2)).joints_cam
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], batch.joints_cam[0], atol=1e-5)


def test_the_camera_of_a_data_set_is_used():
    estimator = LifterEstimator(make_lifter("mlp", width=32))
    matrix = np.array([[900.0, 0, 300], [0, 910, 250], [0, 0, 1]])
    truth = JointTruth(np.ones((16, 3)), np.ones(16, bool), "poseaug16", matrix)
    plain, *known = (
        persons(1)[0],
        replace(persons(1)[0], joints=truth),
        replace(persons(1)[0], intrinsics=matrix),
    )
    found = estimator.predict([plain, *known])
    np.testing.assert_array_equal(found.intrinsics[1:], np.tile(matrix, (2, 1, 1)).astype(np.float32))
    assert found.intrinsics[0, 0, 0] == pytest.approx(FOCAL * 320)
    np.testing.assert_array_equal(found.joints_cam[1], found.joints_cam[2])
    assert np.abs(found.joints_cam[0] - found.joints_cam[1]).max() > 1e-3


def test_keypoints_of_low_score_are_hidden():
    class Unsure(Corner):
        def detect(self, images, boxes):
            points, scores = super().detect(images, boxes)
            scores[:, 5:] = 0.2
            return points, scores

    lifter = make_lifter("mlp", width=32)
    assert np.isfinite(LifterEstimator(lifter, Unsure()).predict(persons(1)).joints_cam).all()
    assert np.isnan(LifterEstimator(lifter, Unsure(), min_score=0.3).predict(persons(1)).joints_cam).all()


def test_options_of_a_loaded_lifter(tmp_path):
    make_lifter("stgcn", width=8).save(tmp_path / "a.safetensors")
    assert load_lifter(tmp_path / "a.safetensors").options() == {"dropout": -1, "width": 8}
    assert load_lifter(tmp_path / "a.safetensors", dropout=0).options() == {"dropout": 0, "width": 8}
    with pytest.raises(InputError, match="no such options"):
        load_lifter(tmp_path / "a.safetensors", depth=3)
    with pytest.raises(InputError, match="no such options"):
        make_lifter("mlp", heads=2)


@pytest.mark.parametrize("name", NAMES)
def test_lifters_load_as_estimators_by_name(tmp_path, name):
    lifter = make_lifter(name, width=32, **({} if name == "stgcn" else {"stages": 1}))
    torch.save({"model_pos": lifter.state_dict()}, tmp_path / "official.pth")
    lifter.save(tmp_path / "own.safetensors")
    wanted = LifterEstimator(lifter).predict(persons()).joints_cam
    # A fine-tuned estimator, as `fine_tune` saves it.
    save_weights(tmp_path / "tuned.safetensors", LifterEstimator(lifter).state_dict(), {"estimator": "lifter"})
    for file in ("official.pth", "own.safetensors", "tuned.safetensors"):
        loaded = posesyn.load_estimator(name, tmp_path / file)
        assert loaded.spec.name == f"lifter_{name}" and not loaded.training
        np.testing.assert_allclose(loaded.predict(persons()).joints_cam, wanted, atol=1e-4)
    other = NAMES[NAMES.index(name) - 1]
    with pytest.raises(CheckpointError, match="another lifter"):
        posesyn.load_estimator(other, tmp_path / "own.safetensors")
    with pytest.raises(InputError, match="needs a checkpoint"):
        posesyn.load_estimator(name)


def test_persons_with_too_few_keypoints_are_skipped_not_fatal():
    some = persons(3)
    hidden = replace(some[1], visible=np.arange(17) < 4)
    estimator = LifterEstimator(make_lifter("mlp", width=32))
    found = estimator.predict([some[0], hidden, some[2]])
    assert np.isfinite(found.joints_cam[[0, 2]]).all() and np.isnan(found.joints_cam[1]).all()
    np.testing.assert_allclose(found.joints_cam[[0, 2]], estimator.predict([some[0], some[2]]).joints_cam, atol=1e-5)


def test_person_view_is_a_turned_and_zoomed_camera():
    rng = np.random.default_rng(3)
    centred = rng.normal(0, 0.3, (16, 3))
    rays = []
    for place in ((0, 0, 5.0), (2.0, 0.7, 5.0), (0.1, -0.2, 30.0)):
        joints = centred + place
        rays.append(joints[:, :2] / joints[:, 2:])
    flat, rotation = person_view(torch.from_numpy(np.stack(rays)))
    assert flat.mean(1).abs().max() < 0.03
    np.testing.assert_allclose((flat - flat.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt(), 0.2, rtol=1e-6)
    np.testing.assert_allclose(rotation @ rotation.mT, np.tile(np.eye(3), (3, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(torch.linalg.det(rotation), 1, atol=1e-9)
    # The camera's right stays horizontal and its view axis meets the person.
    np.testing.assert_allclose(rotation[:, 0, 1], 0, atol=1e-12)
    axis = rotation[1, 2] / rotation[1, 2, 2]
    np.testing.assert_allclose(axis[:2], (0.4, 0.14), atol=0.05)
    # Poses that lie the same in two views are told to be turned by what lies between these.
    turned = centred @ rotation[1].numpy() + (2.0, 0.7, 5.0)
    again, _ = person_view(torch.from_numpy(turned[None, :, :2] / turned[None, :, 2:]))
    straight = centred + np.array([0, 0, np.linalg.norm((2.0, 0.7, 5.0))])
    wanted, _ = person_view(torch.from_numpy(straight[None, :, :2] / straight[None, :, 2:]))
    np.testing.assert_allclose(again, wanted, atol=0.01)


def test_training_losses_match_the_prediction(labelled_batch):
    batch, truth, estimator = labelled_batch
    by_hand = []
    for camera, keypoints, joints in zip(batch["intrinsics"], batch["keypoints_px"], truth):
        person = Person("p", Blank(), np.array([0, 0, 200, 200], np.float32), keypoints.numpy(), np.ones(45, bool),
                        "smpl45", meta={})  # fmt: skip
        given = sixteen_keypoints(person.keypoints_px, person.visible, "smpl45", "test")
        made = lift_keypoints(estimator.lifter, given, (640, 480), "poseaug16", intrinsics=camera.numpy())
        by_hand.append(np.square(made.joints_cam - made.joints_cam[:1] - joints).mean())
    loss = estimator.training_losses(batch)["joints"]
    assert float(loss.detach()) == pytest.approx(np.mean(by_hand), rel=2e-3)
    loss.backward()
    assert all(parameter.grad is not None for parameter in estimator.lifter.parameters())
    batch["has_labels"][:] = False
    assert float(estimator.training_losses(batch)["joints"].detach()) == 0


@pytest.fixture
def labelled_batch(rng):
    body = rng.normal(0, 0.25, (4, 45, 3)) + np.array([0.3, 0.2, 4.0])
    camera = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])
    pixels = body @ camera.T
    batch = {
        "keypoints_px": torch.from_numpy(pixels[..., :2] / pixels[..., 2:]).float(),
        "visible": torch.ones(4, 45, dtype=torch.bool),
        "has_labels": torch.ones(4, dtype=torch.bool),
        "joints": torch.from_numpy(body - body[:, :1]).float(),
        "intrinsics": torch.from_numpy(camera).float().expand(4, 3, 3),
    }
    truth = skeletons.convert(body, "smpl45", "poseaug16")[0]
    torch.manual_seed(0)
    return batch, truth - truth[:, :1], LifterEstimator(make_lifter("mlp", width=32)).eval()


def test_unknown_view():
    with pytest.raises(InputError, match="person"):
        LifterEstimator(make_lifter("mlp", width=32), view="crop")
    with pytest.raises(InputError, match="person"):
        lift_keypoints(make_lifter("mlp", width=32), persons(1)[0].keypoints_px, (640, 480), view="crop")


def test_dropout_from_bytes_has_the_right_share_and_mean():
    torch.manual_seed(0)
    values = dropped(torch.ones(1000, 1001), 0.25, True)
    assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=2e-3)
    assert values.mean().item() == pytest.approx(1.0, abs=3e-3)
    assert dropped(values, 0.25, False) is values


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"joints": lambda p: p[:, :14]}, "14 joints"),
        ({"joints": lambda p: np.where(np.arange(16)[:, None] == 3, np.nan, p)}, "NaN"),
        ({"joints": lambda p: p * 1000}, "millimetres"),
        ({"joints": lambda p: p[:0]}, "no poses"),
        ({"joints": lambda p: p - (0, 0, 20)}, "behind the camera"),
    ),
)
def test_bad_pairs(change, message):
    standing = np.zeros((16, 3))
    standing[:, 1] = [0, 0, 0.45, 0.9, 0, 0.45, 0.9, -0.25, -0.5, -0.7, -0.5, -0.3, 0, -0.5, -0.3, 0]
    joints = change["joints"](np.tile(standing + np.array([0, 0, 5]), (2, 1, 1)))
    with pytest.raises(InputError, match=message):
        PosePairs(joints, np.zeros((len(joints), joints.shape[1], 2)), np.tile([2.0] * 2 + [0.0] * 7, (len(joints), 1)))


def test_bad_rig():
    with pytest.raises(InputError, match="distances"):
        CameraRig(distances=(0.0, 2.0))
