import numpy as np
import pytest
import torch
from torch import nn

from posesyn.errors import InputError
from posesyn.estimators.hmr import expected_places
from posesyn.estimators.losses import (
    HMR2_RECIPE,
    HMR_RECIPE,
    HYBRIK_RECIPE,
    SCORED_JOINTS,
    LossWeights,
    TrainingRecipe,
    heat_entropy,
    masked_mean,
    smpl_losses,
    trainable,
)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    prediction = {
        "pose_rotmat": draw(4, 24, 3, 3),
        "betas": draw(4, 10),
        "cam": draw(4, 3).abs(),
        "joints": draw(4, 45, 3),
        "keypoints_norm": draw(4, 45, 2),
    }
    batch = {
        "pose_rotmat": draw(4, 24, 3, 3),
        "betas": draw(4, 10),
        "joints": draw(4, 45, 3),
        "keypoints_norm": draw(4, 45, 2),
        "joints_norm": draw(4, 45, 2),
        "visible": torch.rand(4, 45, generator=generator) < 0.6,
        "has_labels": torch.tensor([True, False, True, False]),
    }
    return prediction, batch


def test_equals_a_loop_over_persons(pair):
    prediction, batch = pair
    p, b = ({name: value.double().numpy() for name, value in part.items()} for part in pair)
    keypoints, joints, local, pose, betas = 0.0, [], [], [], []
    for i in range(4):
        for j in range(SCORED_JOINTS):
            if b["visible"][i, j]:
                keypoints += ((p["keypoints_norm"][i, j] - b["keypoints_norm"][i, j]) ** 2).sum()
        if b["has_labels"][i]:
            first, second = (x[i] - (x[i, 1] + x[i, 2]) / 2 for x in (p["joints"], b["joints"]))
            joints.append(((first - second)[:SCORED_JOINTS] ** 2).mean())
            first, second = (
                np.array([x["pose_rotmat"][i, 0].T @ (j - x["joints"][i, 0]) for j in x["joints"][i]]) for x in (p, b)
            )
            local.append(((first - second)[:SCORED_JOINTS] ** 2).mean())
            pose.append(((p["pose_rotmat"][i] - b["pose_rotmat"][i]) ** 2).mean())
            betas.append(((p["betas"][i] - b["betas"][i]) ** 2).mean())
    wanted = {
        "keypoints_2d": 60 * 5 * keypoints / (4 * SCORED_JOINTS * 2),
        "keypoints_3d": 60 * 5 * np.mean(joints),
        "pose": 60 * np.mean(pose),
        "betas": 60 * 0.001 * np.mean(betas),
        "scale": 60 * np.mean(np.exp(-10 * p["cam"][:, 0]) ** 2),
    }
    got = smpl_losses(prediction, batch)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(got[name]) == pytest.approx(value, rel=1e-5), name

    root = [((p["pose_rotmat"][i, 0] - b["pose_rotmat"][i, 0]) ** 2).mean() for i in range(4) if b["has_labels"][i]]
    ours = smpl_losses(prediction, batch, LossWeights(keypoints_3d=0.0, keypoints_local=3.0, orientation=2.0))
    assert ours.keys() == wanted.keys() - {"keypoints_3d"} | {"keypoints_local", "orientation"}
    assert float(ours["keypoints_local"]) == pytest.approx(60 * 3 * np.mean(local), rel=1e-5)
    assert float(ours["orientation"]) == pytest.approx(60 * 2 * np.mean(root), rel=1e-5)


def test_persons_without_labels_give_2d_losses_only(pair):
    prediction, batch = pair
    batch["has_labels"] = torch.zeros(4, dtype=torch.bool)
    for name in ("joints", "pose_rotmat", "betas"):
        prediction[name].requires_grad_()
        batch[name][:] = 1e6  # must not leak through the mask
    losses = smpl_losses(prediction, batch)
    assert losses["keypoints_3d"] == losses["pose"] == losses["betas"] == 0
    assert losses["keypoints_2d"] > 0
    sum(losses.values()).backward()
    for name in ("joints", "pose_rotmat", "betas"):
        assert torch.equal(prediction[name].grad, torch.zeros_like(prediction[name]))


def test_invisible_and_finger_joints_do_not_count(pair):
    prediction, batch = pair
    before = smpl_losses(prediction, batch)
    batch["keypoints_norm"] = torch.where(batch["visible"][..., None], batch["keypoints_norm"], 1e3)
    batch["keypoints_norm"][:, SCORED_JOINTS:] = 7
    batch["joints"][:, SCORED_JOINTS:] = 7
    after = smpl_losses(prediction, batch)
    assert {k: float(v) for k, v in before.items()} == {k: float(v) for k, v in after.items()}


def test_places_equal_a_loop_over_joints(pair):
    prediction, batch = pair
    prediction["places"] = torch.randn(4, SCORED_JOINTS, 3, generator=torch.Generator().manual_seed(1))
    prediction["heat"] = torch.zeros(4, SCORED_JOINTS, 3, 3)
    flat, depth = [], []
    for i in range(4):
        for j in range(SCORED_JOINTS):
            place = prediction["places"][i, j].tolist()
            if batch["has_labels"][i]:
                flat += [abs(a - b) for a, b in zip(place, batch["joints_norm"][i, j].tolist())]
                depth.append(abs(place[2] - float(batch["joints"][i, j, 2])))
            elif batch["visible"][i, j]:
                flat += [abs(a - b) for a, b in zip(place, batch["keypoints_norm"][i, j].tolist())]
    losses = smpl_losses(prediction, batch)
    assert float(losses["heat"]) == pytest.approx(60 * 0.1 * np.log(9), rel=1e-5)
    assert float(losses["places"]) == pytest.approx(60 * (np.mean(flat) + np.mean(depth)), rel=1e-5)


def test_heat_entropy_is_least_where_the_expectation_is_the_place():
    places = torch.tensor([[[0.31, -0.42], [-0.8, 0.77]]])
    heat = torch.zeros(1, 2, 6, 6, requires_grad=True)
    optimizer = torch.optim.Adam([heat], 0.3)
    for _ in range(300):
        loss = heat_entropy(heat, places).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = expected_places(heat.detach(), torch.zeros(1, 2, 6, 6))[..., :2]
    np.testing.assert_allclose(found, places, atol=5e-3)


def test_heat_entropy_at_a_cell_centre_is_minus_its_log_share():
    heat = torch.randn(1, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    centre = torch.tensor([[[(3 + 0.5) / 5 * 2 - 1, (1 + 0.5) / 4 * 2 - 1]]])
    expected = -heat.flatten().log_softmax(0).view(4, 5)[1, 3]
    assert float(heat_entropy(heat, centre)) == pytest.approx(float(expected), abs=1e-4)
    beyond = heat_entropy(heat, torch.tensor([[[1.0, 1.0]]]))
    assert float(beyond) == pytest.approx(float(-heat.flatten().log_softmax(0)[-1]), abs=1e-4)


def test_weights_scale_their_terms(pair):
    one, two = (smpl_losses(*pair, LossWeights(pose=w)) for w in (1.0, 2.0))
    assert float(two["pose"]) == pytest.approx(2 * float(one["pose"]))


def test_masked_mean():
    values = torch.tensor([[1.0, 3.0], [100.0, 100.0]])
    assert masked_mean(values, torch.tensor([True, False])) == 2
    assert masked_mean(values, torch.tensor([False, False])) == 0


def test_a_batch_without_labels_keys_is_refused(pair):
    prediction, batch = pair
    del batch["visible"]
    with pytest.raises(InputError, match="no visible"):
        smpl_losses(prediction, batch)


def test_rates_fall_at_the_milestones():
    layer = nn.Linear(1, 1)
    made = TrainingRecipe("adam", 1.0, 8, epochs=4, milestones=(1, 3)).build([{"params": list(layer.parameters())}])
    rates = []
    for _ in range(4):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01])
    assert made["lr_scheduler"]["interval"] == "epoch"


def test_published_settings():
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}]
    hmr, hmr2 = (recipe.build(groups)["optimizer"] for recipe in (HMR_RECIPE, HMR2_RECIPE))
    assert type(hmr) is torch.optim.Adam
    assert hmr.defaults["lr"] == 5e-5
    assert type(hmr2) is torch.optim.AdamW
    assert (hmr2.defaults["lr"], hmr2.defaults["weight_decay"]) == (1e-5, 1e-4)
    assert HYBRIK_RECIPE.build(groups, learning_rate=2e-4)["optimizer"].defaults["lr"] == 2e-4


def test_groups_hold_every_trainable_parameter_once():
    network = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2), "prior": nn.Linear(2, 2)})
    network["prior"].requires_grad_(False)
    groups = trainable(network.named_parameters(), ["backbone."])
    assert [(group["name"], len(group["params"])) for group in groups] == [("backbone", 2), ("head", 2)]
    network.requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameters"):
        trainable(network.named_parameters(), ["backbone."])
