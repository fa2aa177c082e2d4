import copy

import numpy as np
import pytest
import torch

from posesyn.data.batches import collate, training_sample
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.hybrik.network import HybrIK
from posesyn.geometry.cameras import apply_affine
from posesyn.interfaces import TrainableEstimator


@pytest.fixture(scope="module")
def hybrik(body):
    torch.manual_seed(0)
    return HybrIK("resnet18", body=body).eval()


@pytest.fixture(scope="module")
def official_file(official, tmp_path_factory):
    weights = official.weights("hybrik")
    content = {**weights, "smpl.v_template": torch.zeros(6890, 3), "smpl.parents": torch.zeros(29, dtype=torch.int64)}
    path = tmp_path_factory.mktemp("official") / "hybrik_res34.pth"
    torch.save(content, path)
    return path, content


@pytest.mark.integration
def test_official_file_gives_the_published_numbers(official, official_file, body):
    model = HybrIK.from_official(official_file[0], body=body)
    vectors = official.vectors("hybrik")
    image = official.image("hybrik", model.spec.mean, model.spec.std)
    arguments = image, torch.from_numpy(vectors["boxes"]), torch.from_numpy(vectors["image_centre"])
    with torch.no_grad():
        official.compare("hybrik", model(*arguments))
        free = model(image)
    official.compare("hybrik", model(*arguments))  # with gradients nothing is folded
    np.testing.assert_allclose(free["skeleton"], vectors["skeleton_no_box"], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(free["root"], vectors["root_no_box"], atol=1e-4, rtol=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["missing", "renamed", "shape"])
def test_faults_are_named(official_file, tmp_path, body, fault):
    name = "preact.layer3.2.conv1.weight"
    content = dict(official_file[1])
    value = content.pop(name)
    if fault != "missing":
        content[name + ("_old" if fault == "renamed" else "")] = value if fault == "renamed" else value[:, :5]
    torch.save(content, tmp_path / "faulty.pth")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        HybrIK.from_official(tmp_path / "faulty.pth", body=body)


def test_the_backbone_is_that_of_the_file(hybrik, tmp_path, body):
    torch.save(hybrik.state_dict(), tmp_path / "small.pth")
    loaded = HybrIK.from_official(tmp_path / "small.pth", body=body)
    assert loaded.fc1.in_features == 512
    assert len(loaded.preact.layer3) == 2
    torch.save({"preact.stage2.0.weight": torch.zeros(1)}, tmp_path / "hrnet.pth")
    with pytest.raises(CheckpointError, match=r"has an HRNet.*ResNet-34"):
        HybrIK.from_official(tmp_path / "hrnet.pth", body=body)


def test_three_persons_are_no_special_case(hybrik):
    images = torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = hybrik(images), hybrik(images[1:2])
    np.testing.assert_allclose(together["pose_rotmat"][1], alone["pose_rotmat"][0], atol=1e-3)
    np.testing.assert_allclose(together["uvd"][1], alone["uvd"][0], atol=1e-5)


def test_predicts_the_pelvis_where_the_volume_has_it(hybrik, persons):
    assert isinstance(hybrik, TrainableEstimator)
    found = hybrik.predict(persons)
    sample = collate([training_sample(person, hybrik.spec) for person in persons])
    with torch.no_grad():
        uvd = hybrik(sample["images"])["uvd"].numpy()
    pelvis = (uvd[:, 0, :2] + 0.5) * 256
    for row in range(len(persons)):
        got = apply_affine(sample["affine"][row].numpy(), found.keypoints_px[row, 0])
        np.testing.assert_allclose(got, pelvis[row], atol=0.02)
    np.testing.assert_allclose(found.intrinsics[:, 0, 0], sample["box_sizes"] * 1000 / 256, rtol=1e-5)
    assert (found.transl_cam[:, 2] > 0).all()


def test_losses_reach_everything(hybrik, labelled, persons):
    model = copy.deepcopy(hybrik).train()
    batch = collate([training_sample(person, model.spec) for person in [*labelled[:2], persons[0]]])
    losses = model.training_losses(batch)
    assert set(losses) == {"uvd", "betas", "pose", "twist", "joints_3d", "camera"}
    assert losses["joints_3d"] == 0
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_the_published_recipe(hybrik):
    made = hybrik.published_optimizers()
    assert [group["name"] for group in made["optimizer"].param_groups] == ["preact", "head"]
    assert {group["lr"] for group in made["optimizer"].param_groups} == {1e-3}
    assert sorted(made["lr_scheduler"]["scheduler"].milestones) == [90, 120]


def test_bad_input(hybrik, body):
    images = torch.rand(1, 3, 256, 256)
    with pytest.raises(InputError, match="go together"):
        hybrik(images, torch.zeros(1, 4))
    with pytest.raises(InputError, match="images have the wrong shape"):
        hybrik(images[..., :192])
    with pytest.raises(InputError, match="unknown uvd_loss"):
        HybrIK("resnet18", uvd_loss="l2", body=body)
