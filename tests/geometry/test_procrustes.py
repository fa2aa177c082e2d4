"""Oracles: a float64 loop with SciPy's rotation fit, and brute-force optimisation for the weighted case."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from posesyn.errors import InputError
from posesyn.geometry.procrustes import similarity_align, similarity_transform


def _by_scipy(source, target, weights):
    """Rotation by SciPy's Kabsch, then the scale by least squares."""
    w = weights / weights.sum()
    x, y = source - w @ source, target - w @ target
    rotation = Rotation.align_vectors(y, x, weights=w)[0].as_matrix()
    turned = x @ rotation.T
    scale = (w[:, None] * turned * y).sum() / (w[:, None] * x * x).sum()
    return scale * turned + w @ target


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_scipy(rng, batch, weighted):
    source, target = rng.normal(size=(2, *batch, 17, 3))
    weights = rng.random((*batch, 17)) if weighted else np.ones((*batch, 17))
    weights[..., 3] *= 0.0 if weighted else 1.0
    tensors = [torch.from_numpy(a) for a in (source, target, weights)]
    aligned = similarity_align(*tensors if weighted else tensors[:2])
    for index in np.ndindex(*batch):
        expected = _by_scipy(source[index], target[index], weights[index])
        np.testing.assert_allclose(aligned[index], expected, atol=1e-9)
    scale, rotation, translation = similarity_transform(*tensors if weighted else tensors[:2])
    by_transform = scale[..., None, None] * tensors[0] @ rotation.transpose(-1, -2) + translation[..., None, :]
    np.testing.assert_allclose(by_transform, aligned, atol=1e-9)
    np.testing.assert_allclose(torch.linalg.det(rotation), 1, atol=1e-9)


def test_exact_similarity_is_found(rng):
    source = torch.from_numpy(rng.normal(size=(3, 17, 3)))
    rotation = torch.from_numpy(Rotation.random(3, random_state=0).as_matrix())
    target = 2.5 * source @ rotation.transpose(-1, -2) + torch.tensor([1.0, 2.0, 3.0])
    scale, found, translation = similarity_transform(source, target)
    np.testing.assert_allclose(scale, 2.5)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(translation, np.tile([1.0, 2.0, 3.0], (3, 1)), atol=1e-12)


def test_no_better_proper_similarity_of_a_mirrored_pose(rng):
    source = rng.normal(size=(17, 3))
    target = source * [-1, 1, 1]
    aligned = similarity_align(torch.from_numpy(source), torch.from_numpy(target)).numpy()
    ours = np.square(aligned - target).sum()
    assert ours > 1.0

    def loss(v):
        moved = np.exp(v[6]) * Rotation.from_rotvec(v[:3]).apply(source) + v[3:6]
        return np.square(moved - target).sum()

    best = min(minimize(loss, rng.normal(size=7)).fun for _ in range(8))
    assert ours == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_sets_stay_finite(rng, dtype):
    line = torch.linspace(0, 1, 17, dtype=dtype)[:, None] * torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    point = torch.full((17, 3), 0.3, dtype=dtype)
    full = torch.from_numpy(rng.normal(size=(17, 3))).to(dtype)
    for source in (line, point, torch.zeros_like(point), full):
        for target in (line, point, torch.zeros_like(point), full):
            aligned = similarity_align(source, target)
            assert torch.isfinite(aligned).all() and aligned.dtype == dtype
    # A collapsed source keeps the error of the translation-only fit; it is not called perfect.
    error = (similarity_align(point, full) - full).norm(dim=-1).mean()
    np.testing.assert_allclose(error, (full - full.mean(0)).norm(dim=-1).mean(), rtol=1e-5)
    scale, rotation, _ = similarity_transform(point, full)
    assert scale == 1 and torch.allclose(torch.linalg.det(rotation), torch.ones((), dtype=dtype))
    np.testing.assert_allclose(similarity_align(line, 3 * line + 1), 3 * line + 1, atol=1e-5)


def test_float32_far_from_the_origin_keeps_its_accuracy(rng):
    source = torch.from_numpy(rng.normal(size=(17, 3)) + 50).float()
    np.testing.assert_allclose(similarity_align(source, 2 * source), 2 * source, rtol=1e-6)


def test_zero_weight_points_do_not_matter(rng):
    source, target = torch.from_numpy(rng.normal(size=(2, 4, 17, 3)))
    weights = torch.ones(4, 17)
    weights[:, 5:8] = 0
    moved = source.clone()
    moved[:, 5:8] = 1e3
    kept = [0, 1, 2, 3, 4, *range(8, 17)]
    np.testing.assert_allclose(
        similarity_align(source, target, weights)[:, kept], similarity_align(moved, target, weights)[:, kept], atol=1e-9
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_nan_raises(bad, which):
    points = [torch.rand(2, 17, 3), torch.rand(2, 17, 3)]
    points[which][1, 4, 2] = bad
    with pytest.raises(InputError, match="NaN"):
        similarity_align(*points)


def test_bad_input():
    with pytest.raises(InputError):
        similarity_align(torch.rand(17, 3), torch.rand(16, 3))
    with pytest.raises(InputError):
        similarity_align(torch.rand(17, 2), torch.rand(17, 2))
    for weights in (torch.zeros(17), -torch.ones(17), torch.ones(16), torch.full((17,), float("nan"))):
        with pytest.raises(InputError, match="weights"):
            similarity_align(torch.rand(17, 3), torch.rand(17, 3), weights)
