import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from posesyn.estimators import layers
from posesyn.estimators.layers import (
    IterativeRegressor,
    expected_uvd,
    folded_forward,
    gaussian_heatmaps,
    is_foldable,
    sample_maps,
    sample_volume,
    softargmax3d,
)
from posesyn.geometry.rotations import rot6d_to_matrix


def trunk(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **options).eval().to(memory_format=torch.channels_last)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_the_network_as_written(name, one_pass, monkeypatch):
    if not one_pass:
        monkeypatch.setattr(layers, "_ONE_PASS", None)
    model = trunk(name, num_classes=0, global_pool="")
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert is_foldable(model)
        wanted = model(images)
        np.testing.assert_allclose(folded_forward(model, images), wanted, atol=1e-4, rtol=1e-4)


def test_new_weights_count_at_once():
    model = trunk("resnet18", num_classes=0, global_pool="")
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        before = folded_forward(model, images)
    model.layer4[1].bn2.bias.data += 1
    with torch.inference_mode():
        assert not torch.equal(folded_forward(model, images), before)


def test_only_where_nothing_is_lost():
    model = trunk("resnet18", features_only=True, out_indices=(4,))
    assert not is_foldable(model)  # gradients are on
    with torch.no_grad():
        assert is_foldable(model)
        assert not is_foldable(model.train())
        assert not is_foldable(trunk("seresnet18" if timm.is_model("seresnet18") else "resnetblur18"))
        assert not is_foldable(trunk("regnetx_002"))


def test_heatmaps_equal_a_loop():
    places = torch.tensor([[[3.2, 10.0], [0.0, 63.0]]])
    maps = gaussian_heatmaps(places, torch.tensor([[[1.0], [0.0]]]))
    for y in (0, 9, 10, 40):
        for x in (0, 3, 4, 63):
            wanted = np.exp(-((x - 3.2) ** 2 + (y - 10.0) ** 2) / (2 * 2.5**2))
            np.testing.assert_allclose(maps[0, 0, y, x], wanted, rtol=1e-4, atol=1e-12)
    assert not maps[0, 1].any()


def test_softargmax_equals_the_weighted_mean_of_all_cells():
    logits = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64) * 3
    expected, share = softargmax3d(logits)
    weights = np.exp(logits.numpy())
    weights /= weights.sum((2, 3, 4), keepdims=True)
    z, y, x = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    wanted = np.stack([(weights * axis).sum((2, 3, 4)) for axis in (x, y, z)], -1)
    np.testing.assert_allclose(expected, wanted, atol=1e-12)
    np.testing.assert_allclose(share, weights, atol=1e-12)


def test_sampling_equals_grid_sample():
    volume, places = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 3, 3) * torch.tensor([5.0, 4.0, 3.0])
    grid = places / torch.tensor([5.0, 4.0, 3.0]) * 2 - 1
    wanted = functional.grid_sample(volume.view(6, 1, 4, 5, 6), grid.view(6, 1, 1, 1, 3), align_corners=True)
    np.testing.assert_allclose(sample_volume(volume, places), wanted.view(2, 3, 1), atol=1e-6)
    maps, places = torch.rand(2, 7, 5, 6), torch.rand(2, 9, 2) * torch.tensor([5.0, 4.0])
    grid = places / torch.tensor([5.0, 4.0]) * 2 - 1
    wanted = functional.grid_sample(maps, grid[:, None], align_corners=True)[:, :, 0].transpose(1, 2)
    np.testing.assert_allclose(sample_maps(maps, places), wanted, atol=1e-6)


def test_uvd_equals_the_softmax_written_out_and_takes_gradients():
    torch.manual_seed(0)
    scores = (torch.randn(2, 3 * 4, 5, 6, dtype=torch.float64) * 4).requires_grad_()
    uvd, peak = expected_uvd(scores.flatten(2).transpose(1, 2), (5, 6), 4)
    share = scores.view(2, 3, -1).softmax(-1).view(2, 3, 4, 5, 6)
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (4, 5, 6)), indexing="ij")
    wanted = torch.stack([(share * axis).sum((2, 3, 4)) / n - 0.5 for axis, n in ((x, 6), (y, 5), (z, 4))], -1)
    torch.testing.assert_close(uvd, wanted)
    torch.testing.assert_close(peak[..., 0], share.flatten(2).amax(-1))
    direction = torch.randn_like(uvd)
    got = torch.autograd.grad((uvd * direction).sum(), scores, retain_graph=True)[0]
    torch.testing.assert_close(got, torch.autograd.grad((wanted * direction).sum(), scores)[0])


def test_large_scores_do_not_overflow():
    scores = torch.full((1, 4, 3, 3), -2000.0)
    scores[0, 2, 1, 0] = 3000.0
    uvd, peak = expected_uvd(scores.flatten(2).transpose(1, 2), (3, 3), 4)
    np.testing.assert_allclose(uvd[0, 0], [0 / 3 - 0.5, 1 / 3 - 0.5, 2 / 4 - 0.5], atol=1e-6)
    assert peak == 1


def test_equals_the_loop_written_out_in_float64():
    torch.manual_seed(1)
    head = IterativeRegressor(7, hidden=5).double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.3)
    features = torch.randn(3, 7, dtype=torch.float64)
    weights = {name: value.detach().numpy() for name, value in head.named_parameters()}
    estimate = [np.repeat(x.numpy(), 3, 0) for x in (head.init_pose, head.init_shape, head.init_cam)]
    for _ in range(3):
        x = np.concatenate([features.numpy(), *estimate], 1)
        x = x @ weights["fc1.weight"].T + weights["fc1.bias"]
        x = x @ weights["fc2.weight"].T + weights["fc2.bias"]
        names = ("decpose", "decshape", "deccam")
        estimate = [e + x @ weights[f"{n}.weight"].T + weights[f"{n}.bias"] for n, e in zip(names, estimate)]
    for got, wanted in zip(head(features), estimate):
        np.testing.assert_allclose(got.detach().numpy(), wanted, atol=1e-12)


def test_layer_sizes_are_those_of_spin():
    head = IterativeRegressor(2048)
    assert head.fc1.weight.shape == (1024, 2205)
    assert head.fc2.weight.shape == (1024, 1024)
    assert head.drop1.p == head.drop2.p == 0.5


def test_starts_from_an_upright_rest_pose():
    pose = rot6d_to_matrix(IterativeRegressor(4).init_pose.view(24, 6))
    assert torch.equal(pose[0], torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    assert torch.equal(pose[1:], torch.eye(3).expand(23, 3, 3))
