import copy

import numpy as np
import pytest
import torch

from posesyn.data.batches import collate, training_sample
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.hmr2.network import HMR2, SmplDecoder, VisionTransformer
from posesyn.geometry.rotations import rot6d_to_matrix
from posesyn.interfaces import TrainableEstimator
from posesyn.types import Motion


@pytest.fixture(scope="module")
def shallow(body):
    """One block of 32: as wide as published, a second on one core."""
    torch.manual_seed(0)
    return HMR2(depth=1, body=body).eval()


@pytest.mark.integration
def test_official_file_gives_the_published_numbers_and_faults_are_named(official, tmp_path, body):
    weights = official.weights("hmr2")
    extra = {
        "smpl.v_template": torch.zeros(6890, 3),
        "discriminator.D_conv1.weight": torch.zeros(32, 9, 1, 1),
        "initialized": torch.tensor(True),
    }
    layout = {"epoch": 35, "global_step": 1_000_000, "pytorch-lightning_version": "1.8.1", "loops": {}}
    path = tmp_path / "epoch=35-step=1000000.ckpt"
    torch.save({**layout, "state_dict": {**weights, **extra}}, path)
    model = HMR2.from_official(path, body=body)
    assert len(model.backbone.blocks) == 2
    with torch.no_grad():
        official.compare("hmr2", model(official.image("hmr2", model.spec.mean, model.spec.std)))
    assert all(parameter.requires_grad for parameter in model.parameters())
    name = "backbone.blocks.1.attn.qkv.weight"
    for fault in ("missing", "renamed", "shape"):
        faulty = dict(weights)
        value = faulty.pop(name)
        if fault != "missing":
            faulty[name + "_old" if fault == "renamed" else name] = value if fault == "renamed" else value[:4]
        torch.save({**layout, "state_dict": faulty}, path)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            HMR2.from_official(path, body=body)


def test_the_published_size_has_the_published_keys():
    with torch.device("meta"):
        backbone, head = VisionTransformer(), SmplDecoder()
    assert len(backbone.state_dict()) == 389
    assert len(head.state_dict()) == 114
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(630.91e6, rel=1e-4)
    assert backbone.blocks[31].drop_path1.drop_prob == pytest.approx(0.55)


def test_starts_upright_in_the_contiguous_layout():
    pose = rot6d_to_matrix(SmplDecoder(context_dim=8, depth=1).init_body_pose.view(24, 6), layout="contiguous")
    assert torch.equal(pose[0], torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    assert torch.equal(pose[1:], torch.eye(3).expand(23, 3, 3))


def test_the_outer_columns_are_not_seen(shallow):
    images = torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    other = images.clone()
    other[..., :32] = other[..., -32:] = 5
    with torch.no_grad():
        first, second, alone = shallow(images), shallow(other), shallow(images[1:2])
    assert torch.equal(first["betas"], second["betas"])
    # A batch of three is no special case.
    np.testing.assert_allclose(first["pose_rotmat"][1], alone["pose_rotmat"][0], atol=1e-5)
    assert first["feature"].shape == (3, 1280, 16, 12)


def test_predicts_in_the_full_image(shallow, persons):
    assert isinstance(shallow, TrainableEstimator)
    found = shallow.predict(persons)
    rays = found.joints_cam / found.joints_cam[..., 2:]
    pixels = np.einsum("bij,bkj->bki", found.intrinsics, rays)[..., :2]
    np.testing.assert_allclose(pixels, found.keypoints_px, atol=1e-2)
    width, height = 160, 120
    np.testing.assert_allclose(found.intrinsics[0, 0, 0], 5000 / 256 * max(width, height))


def test_losses_reach_everything(shallow, labelled, persons):
    model = copy.deepcopy(shallow).train()
    batch = collate([training_sample(person, model.spec) for person in [*labelled[:2], persons[0]]])
    losses = model.training_losses(batch)
    assert set(losses) == {"keypoints_2d", "keypoints_3d", "global_orient", "body_pose", "betas"}
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_a_discriminator_is_trained_along_when_there_is_mocap(shallow, labelled, rng):
    model = copy.deepcopy(shallow)
    motion = Motion("m", rng.normal(0, 0.3, (20, 24, 3)).astype(np.float32), np.zeros((20, 3)), np.zeros(10), fps=20.0)
    model.set_mocap([motion])
    batch = collate([training_sample(person, model.spec) for person in labelled[:2]])
    losses = model.training_losses(batch)
    gradient = torch.autograd.grad(losses["adversarial"], list(model.discriminator.parameters()), allow_unused=True)
    assert all(value is None for value in gradient)  # it moves the network only
    losses["discriminator"].backward()
    assert all(p.grad is not None for p in model.discriminator.parameters())
    assert all(p.grad is None for p in model.smpl_head.parameters())
    groups = model.published_optimizers()["optimizer"].param_groups
    assert [group["name"] for group in groups] == ["backbone", "smpl_head", "discriminator"]
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(1e-5, 1e-4)}
    with pytest.raises(InputError, match="at least one motion"):
        model.set_mocap([])
