import numpy as np
import torch

from posesyn.estimators.layers import IterativeRegressor
from posesyn.geometry.rotations import rot6d_to_matrix


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
