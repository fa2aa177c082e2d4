import numpy as np
import torch
from torch.nn import functional

from posesyn.estimators.layers import (
    expected_uvd,
    gaussian_heatmaps,
    sample_maps,
    sample_volume,
    softargmax3d,
)


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
