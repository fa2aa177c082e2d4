import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from posesyn.data.batches import collate, training_sample
from posesyn.errors import CheckpointError, FileError, InputError
from posesyn.estimators import load_estimator
from posesyn.estimators.hmr import HMR, SMALL_SPEC, AverageNeck, JointNeck, expected_places
from posesyn.interfaces import TrainableEstimator
from posesyn.storage.checkpoints import save_weights
from posesyn.storage.images import ImageFile
from posesyn.types import ArrayImage, Person


@pytest.fixture(scope="module")
def official_file(official, tmp_path_factory):
    content = {"optimizer": {}, "epoch": 1, "dataset_perm": [2, 1], "total_step_count": 3}
    path = tmp_path_factory.mktemp("official") / "model_checkpoint.pt"
    torch.save({"model": official.weights("hmr_spin"), **content}, path)
    return path


@pytest.mark.integration
def test_official_spin_checkpoint_gives_the_published_numbers(official, official_file, body):
    model = HMR.from_official(official_file, body=body)
    image = official.image("hmr_spin", model.spec.mean, model.spec.std)
    with torch.no_grad():
        official.compare("hmr_spin", model(image))
    official.compare("hmr_spin", model(image))  # with gradients nothing is folded
    # load_checkpoint tells the two layouts apart by itself.
    again = HMR(body=body).load_checkpoint(official_file)
    assert torch.equal(again.regressor.fc1.weight, model.regressor.fc1.weight)


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["missing", "renamed", "shape"])
def test_faults_of_official_files_are_named(official_file, tmp_path, body, fault):
    content = torch.load(official_file, weights_only=True)
    for name in ("layer3.2.conv1.weight", "decpose.bias"):
        weights = dict(content["model"])
        value = weights.pop(name)
        if fault != "missing":
            weights[name + ("_old" if fault == "renamed" else "")] = value if fault == "renamed" else value[:4]
        torch.save({**content, "model": weights}, tmp_path / "faulty.pt")
        with pytest.raises(CheckpointError, match=rf" {re.escape(name)}\b"):
            HMR.from_official(tmp_path / "faulty.pt", body=body)


def test_is_a_trainable_estimator(small):
    assert isinstance(small, TrainableEstimator)


def test_predicts_each_person_in_the_order_given(small, persons):
    together = small.predict(persons)
    assert together.person_ids == tuple(person.person_id for person in persons)
    assert together.skeleton == "smpl45"
    for i, person in enumerate(persons):
        alone = small.predict([person])
        np.testing.assert_allclose(alone.joints_cam[0], together.joints_cam[i], atol=1e-4, rtol=1e-5)


def test_chunks_do_not_change_the_result(small, persons):
    chunked = copy.deepcopy(small)
    chunked.batch_size = 2
    np.testing.assert_allclose(chunked.predict(persons).pose_rotmat, small.predict(persons).pose_rotmat, atol=1e-5)


def test_joints_project_to_the_keypoints_and_land_in_the_crop_as_the_network_sees_them(small, persons):
    found = small.predict(persons)
    rays = found.joints_cam / found.joints_cam[..., 2:]
    pixels = np.einsum("bij,bkj->bki", found.intrinsics, rays)[..., :2]
    np.testing.assert_allclose(pixels, found.keypoints_px, atol=1e-2)
    # The weak-perspective camera of the crop, carried to the full image by the crop's affine map, agrees.
    sample = collate([training_sample(person, small.spec) for person in persons])
    with torch.no_grad():
        output = small(sample["images"])
        joints = small.body(output["pose_rotmat"], output["betas"]).joints
    scale, shift = output["cam"][:, None, :1], output["cam"][:, None, 1:]
    size = small.spec.input_size[0]
    crop = (scale * (joints[..., :2] + shift) * size / 2 + (size - 1) / 2).numpy()
    affine = sample["affine"].numpy()
    expected = np.einsum("bij,bkj->bki", affine[..., :2], found.keypoints_px) + affine[:, None, :, 2]
    # Orthographic here, a far pinhole there: below a tenth of a crop pixel.
    assert np.abs(crop - expected).max() < 0.3


def test_predict_restores_the_training_mode(small, persons):
    model = copy.deepcopy(small).train()
    model.predict(persons[:1])
    assert model.training
    assert model.backbone.training


def test_losses_are_finite_and_reach_every_parameter(small, persons):
    model = copy.deepcopy(small).train()
    losses = model.training_losses(collate([training_sample(person, model.spec) for person in persons]))
    terms = (
        "keypoints_2d",
        "keypoints_3d",
        "keypoints_local",
        "pose",
        "orientation",
        "betas",
        "scale",
        "places",
        "heat",
    )
    assert set(losses) == set(terms)
    assert losses["pose"] == 0
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_a_few_steps_lower_the_loss(small, persons):
    torch.manual_seed(0)
    model = copy.deepcopy(small).train()
    batch = collate([training_sample(person, model.spec) for person in persons])
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    values = []
    for _ in range(12):
        loss = sum(model.training_losses(batch).values())
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(values[-3:]) < values[0]


def test_the_body_is_neither_in_the_weights_nor_trained(small):
    assert not any("body" in name for name in small.state_dict())
    assert not any("body" in name for name, _ in small.named_parameters())
    moved = copy.deepcopy(small).double()
    assert moved.body.v_template.dtype == torch.float64
    assert small.body.v_template.dtype == torch.float32


def test_saved_weights_load_again(small, tmp_path, body, persons):
    half = {k: v.half() if v.is_floating_point() else v for k, v in small.state_dict().items()}
    save_weights(tmp_path / "half.safetensors", half)
    again = HMR.small(body=body).load_checkpoint(tmp_path / "half.safetensors").eval()
    assert again.regressor.fc1.weight.dtype == torch.float32
    moved = again.predict(persons).joints_cam - small.predict(persons).joints_cam
    root_relative = moved - moved[:, :1]
    assert np.abs(root_relative).max() < 0.01


def test_a_checkpoint_of_another_model_is_refused(small, tmp_path, body):
    other = {name: value for name, value in small.state_dict().items() if "decpose" not in name}
    save_weights(tmp_path / "other.safetensors", {**other, "discriminator.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"missing: regressor\.decpose.*unexpected: discriminator"):
        HMR.small(body=body).load_checkpoint(tmp_path / "other.safetensors")
    with pytest.raises(FileError):
        HMR.small(body=body).load_checkpoint(tmp_path / "absent.safetensors")


def test_bad_input(small, persons):
    with pytest.raises(InputError, match="at least one person"):
        small.predict([])
    with pytest.raises(InputError, match="wrong shape"):
        small(torch.zeros(1, 3, 224, 224))


def test_three_persons_are_no_special_case(small, persons):
    # torch.cross without dim crosses over a batch of three (3DCrowdNet's code did).
    three, five = small.predict(persons[:3]), small.predict(persons)
    np.testing.assert_allclose(three.pose_rotmat, five.pose_rotmat[:3], atol=1e-5)


def test_a_sharp_peak_is_its_cell():
    heat, depth = torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 4, 6)
    heat[0, 0, 3, 1] = heat[0, 1, 0, 5] = 200
    depth[0, 0, 3, 1], depth[0, 1, 0, 5] = 0.5, -0.25
    places = expected_places(heat, depth)[0]
    # Cell centres: column 1 of 6 is at (1.5 / 6) * 2 - 1, row 3 of 4 at (3.5 / 4) * 2 - 1.
    np.testing.assert_allclose(places, [[-0.5, 0.75, 0.5], [5 / 6, -0.75, -0.25]], atol=1e-6)


def test_equals_the_weighted_mean_over_all_cells():
    heat, depth = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    got = expected_places(heat, depth)
    for b in range(2):
        for j in range(3):
            share = np.exp(heat[b, j].double().numpy())
            share /= share.sum()
            centres = (np.arange(5) + 0.5) / 5 * 2 - 1
            expected = [
                (share.sum(0) * centres).sum(),
                (share.sum(1) * centres).sum(),
                (share * depth[b, j].numpy()).sum(),
            ]
            np.testing.assert_allclose(got[b, j], expected, atol=1e-5)


def test_a_shifted_picture_shifts_the_places():
    torch.manual_seed(0)
    neck = JointNeck((4, 6), width=8, joints=2).eval()
    maps = [torch.zeros(1, 4, 12, 12), torch.zeros(1, 6, 6, 6)]
    maps[0][0, :, 4:6, 4:6] = 3
    maps[1][0, :, 2, 2] = 3
    neck.maps.weight.data *= 20
    before = neck(maps)[1]["heat"]
    after = neck([torch.roll(maps[0], 2, -1), torch.roll(maps[1], 1, -1)])[1]["heat"]
    # Zero padding is felt at the border only.
    np.testing.assert_allclose(after[..., 2:-2, 4:-2].detach(), before[..., 2:-2, 2:-4].detach(), atol=1e-5)


def test_average_neck():
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    features, found = AverageNeck((3, 5))(maps)
    assert torch.allclose(features, maps[1].mean((2, 3)))
    assert found == {}


def test_unknown_neck():
    with pytest.raises(InputError, match="unknown neck"):
        HMR(SMALL_SPEC, "regnetx_002", neck="transformer")


def moved_by_a_shift(estimator, persons, step=0.21):
    """(P,) mean distance in mm between the joints of a crop and of one ``step`` of its pixels further right."""
    spec, moved = estimator.spec, []
    for person in persons:
        side = (person.box_xyxy[2:] - person.box_xyxy[:2]).max() * spec.box_scale
        dx = step * side / spec.input_size[1]
        moved.append(replace(person, box_xyxy=person.box_xyxy + np.array([dx, 0, dx, 0], np.float32)))
    first, second = (np.asarray(estimator.predict(some).joints_cam, np.float64) for some in (persons, moved))
    return 1000 * np.linalg.norm((first - first[:, :1]) - (second - second[:, :1]), axis=-1).mean(1)


def test_antialiasing_steadies_the_shipped_network_on_photographs(shared):
    folder = shared / "data" / "images" / "multiview_balance"
    content = json.loads((folder / "annotations.json").read_text())["frames"]
    persons = []
    for path in sorted((folder / "frames").glob("*0.jpg")):
        camera, frame = path.stem.rsplit("_", 1)
        points = np.array(content[frame]["keypoints2d"][camera])
        points = points[points[:, 2] > 0.3, :2]
        box = np.concatenate((points.min(0), points.max(0)))
        persons.append(Person(path.stem, ImageFile(path, "raw"), box, np.zeros((17, 2)), np.zeros(17, bool), "coco17"))
    estimator = load_estimator("hmr_small")
    assert estimator.spec.antialias == "average"
    steady = moved_by_a_shift(estimator, persons).mean()
    estimator.spec = replace(estimator.spec, antialias=None)
    assert steady < 0.8 * moved_by_a_shift(estimator, persons).mean()


def test_antialiasing_steadies_the_shipped_network_on_noisy_pictures(rng):
    """Fine noise, as of a sensor or of gravel, that a crop of a large picture must not show."""
    persons = []
    for index in range(8):
        image = rng.integers(0, 256, (700, 500, 3), dtype=np.uint8)
        box = np.array([100 + 7 * index, 80, 400, 600])
        persons.append(Person(f"{index}", ArrayImage(image), box, np.zeros((17, 2)), np.zeros(17, bool), "coco17"))
    estimator = load_estimator("hmr_small")
    steady = moved_by_a_shift(estimator, persons).mean()
    estimator.spec = replace(estimator.spec, antialias=None)
    assert steady < 0.75 * moved_by_a_shift(estimator, persons).mean()
