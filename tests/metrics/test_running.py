"""The classes must equal the pure function on all data at once, whatever the batches."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from posesyn import metrics
from posesyn.errors import InputError

JOINT_METRICS = [
    (metrics.MPJPE(root=0), lambda p, t, v: metrics.mpjpe(p, t, v, 0)),
    (metrics.MPJPE(), metrics.mpjpe),
    (metrics.NMPJPE(root=[2, 3]), lambda p, t, v: metrics.n_mpjpe(p, t, v, [2, 3])),
    (metrics.PAMPJPE(), metrics.pa_mpjpe),
    (metrics.PCK3D(root=0), lambda p, t, v: metrics.pck3d(p, t, v, 0)),
    (metrics.PCK3D(alignment="procrustes"), lambda p, t, v: metrics.pck3d(p, t, v, alignment="procrustes")),
    (metrics.AUC3D(root=0, alignment="scale"), lambda p, t, v: metrics.auc3d(p, t, v, 0, alignment="scale")),
]


@pytest.fixture
def poses(rng):
    target = torch.from_numpy(rng.normal(size=(23, 14, 3)))
    pred = target + torch.from_numpy(rng.normal(size=target.shape)) * 0.1
    visible = torch.from_numpy(rng.random((23, 14)) > 0.4)
    visible[10:15] = False  # a whole batch without a visible joint
    return pred, target, visible


@pytest.mark.parametrize("metric, function", JOINT_METRICS)
@pytest.mark.parametrize("masked", [False, True])
def test_batching_does_not_matter(poses, metric, function, masked):
    pred, target, visible = poses
    metric.reset()
    for start in range(0, 23, 5):  # the last batch has 3
        rows = slice(start, start + 5)
        metric.update(pred[rows], target[rows], *([visible[rows]] if masked else []))
    expected = function(pred, target, visible if masked else None)
    assert metric.compute().item() == pytest.approx(expected.item())


def test_numpy_input(poses):
    pred, target, visible = (part.numpy() for part in poses)
    metric = metrics.PAMPJPE()
    metric.update(pred, target, visible)
    assert metric.compute().item() == pytest.approx(metrics.pa_mpjpe(pred, target, visible))


def test_pve(rng):
    pred, target = torch.from_numpy(rng.normal(size=(2, 7, 30, 3)))
    roots = pred[:, 0], target[:, 0]
    metric = metrics.PVE()
    metric.update(pred[:5], target[:5], roots[0][:5], roots[1][:5])
    metric.update(pred[5:], target[5:], roots[0][5:], roots[1][5:])
    assert metric.compute().item() == pytest.approx(metrics.pve(pred, target, *roots).item())


@pytest.mark.parametrize(
    "metric, function",
    [
        (metrics.AccelerationError(fps=30), metrics.acceleration_error),
        (metrics.VelocityError(fps=30), metrics.velocity_error),
    ],
)
def test_sequences(rng, metric, function):
    parts = []
    for frames in (12, 5, 3):
        pred, target = torch.from_numpy(rng.normal(size=(2, frames, 14, 3)))
        visible = torch.arange(frames) != 1
        metric.update(pred, target, visible)
        parts.append(function(pred, target, visible, fps=30, reduce="none"))
    assert metric.compute().item() == pytest.approx(torch.cat(parts).mean().item())


def test_2d(rng):
    target = torch.from_numpy(rng.uniform(0, 100, (9, 14, 2)))
    pred = target + torch.from_numpy(rng.normal(size=target.shape)) * 5
    visible, norm = torch.from_numpy(rng.random((9, 14)) > 0.3), torch.from_numpy(rng.uniform(50, 100, 9))
    visible[8, 13] = False
    pck, pckh, oks = metrics.PCK2D(), metrics.PCKh(), metrics.OKS("crowdpose14")
    for rows in (slice(0, 5), slice(5, 8), slice(8, 9)):
        pck.update(pred[rows], target[rows], norm[rows], visible[rows])
        pckh.update(pred[rows], target[rows], visible[rows])
        oks.update(pred[rows], target[rows], visible[rows], norm[rows] ** 2)
    assert pck.compute().item() == pytest.approx(metrics.pck2d(pred, target, norm, visible).item())
    assert pckh.compute().item() == pytest.approx(metrics.pckh(pred, target, visible).item())
    expected = metrics.oks(pred, target, visible, norm**2, "crowdpose14").mean()
    assert oks.compute().item() == pytest.approx(expected.item())
    given = metrics.PCKh()
    given.update(pred, target, visible, head_size=norm)
    assert given.compute().item() == pytest.approx(metrics.pckh(pred, target, visible, head_size=norm).item())


def test_nothing_seen():
    with pytest.raises(InputError, match="MPJPE"), pytest.warns(UserWarning):
        metrics.MPJPE().compute()


def test_survives_pickling_and_forward(poses):
    pred, target, _ = poses
    metric = pickle.loads(pickle.dumps(metrics.MPJPE(root=0)))  # noqa: S301 - our own bytes
    assert metric(pred, target).item() == pytest.approx(metrics.mpjpe(pred, target, root=0).item())
    assert np.isfinite(metric.compute().item())
