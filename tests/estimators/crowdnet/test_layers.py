import copy

import numpy as np
import torch
from torch import nn

from posesyn.estimators.crowdnet.layers import JointGraphConv, normalised_adjacency


def test_adjacency_written_out():
    pairs = {1: 2, 3: 4, 5: 6, 9: 10, 11: 12, 13: 14}
    bones = [(0, 1), (1, 3), (3, 5), (0, 2), (2, 4), (4, 6), (0, 7), (7, 8), (7, 9), (9, 11), (11, 13), (7, 10)]
    wanted = np.eye(15)
    for a, b in [*bones, (10, 12), (12, 14), *pairs.items()]:
        wanted[a, b] = wanted[b, a] = 1
    degree = np.diag(wanted.sum(1) ** -0.5)
    np.testing.assert_allclose(normalised_adjacency(), degree @ wanted @ degree, atol=1e-6)


def test_equals_a_layer_of_its_own_for_each_joint():
    torch.manual_seed(0)
    layer = JointGraphConv(normalised_adjacency(), 7, 5)
    state = layer.state_dict()
    assert len(state) == 15 * 7
    own = [nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5)) for _ in range(15)]
    for joint, module in enumerate(own):
        module.load_state_dict({name: state[f"fcbn_list.{joint}.{name}"] for name in module.state_dict()})
    features = torch.randn(6, 15, 7)
    for training in (True, True, False):  # the running statistics of training count in eval mode
        layer.train(training)
        for module in own:
            module.train(training)
        stacked = torch.stack([module(features[:, joint]) for joint, module in enumerate(own)], dim=1)
        wanted = torch.relu(normalised_adjacency() @ stacked)
        np.testing.assert_allclose(layer(features).detach(), wanted.detach(), atol=1e-5)


def test_the_published_layout_is_read_and_written():
    torch.manual_seed(0)
    layer = JointGraphConv(normalised_adjacency(), 4, 3)
    state = {name: torch.randn_like(v) if v.is_floating_point() else v + 3 for name, v in layer.state_dict().items()}
    other = nn.Sequential(copy.deepcopy(layer))
    other.load_state_dict({f"0.{name}": value for name, value in state.items()})
    assert all(torch.equal(value, state[name.removeprefix("0.")]) for name, value in other.state_dict().items())
    assert other[0].norm.num_batches_tracked == 3
    missing = {f"0.{name}": value for name, value in state.items() if name != "fcbn_list.4.0.weight"}
    assert other.load_state_dict(missing, strict=False).missing_keys == ["0.weight"]
