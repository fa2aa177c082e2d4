import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.estimators.hmr import HMR, SMALL_SPEC, AverageNeck, JointNeck, expected_places


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
