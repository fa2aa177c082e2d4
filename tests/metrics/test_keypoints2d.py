"""Oracles: OKS matrices of ../shared/data/metrics and pycocotools; plain loops for PCK."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from posesyn import metrics
from posesyn.errors import InputError


def test_oks_example(shared):
    data = json.loads((shared / "data" / "metrics" / "coco_oks_example.json").read_text())
    for image, expected in data["expected_oks"].items():
        truths = [a for a in data["annotations"]["annotations"] if a["image_id"] == int(image)]
        found = sorted((p for p in data["predictions"] if p["image_id"] == int(image)), key=lambda p: -p["score"])[:20]
        gt = np.array([a["keypoints"] for a in truths]).reshape(-1, 17, 3)
        pred = np.array([p["keypoints"] for p in found]).reshape(-1, 17, 3)
        area = np.array([a["area"] for a in truths])
        got = metrics.oks(pred[:, None, :, :2], gt[None, :, :, :2], gt[None, :, :, 2], area)
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_oks_sigmas_are_cocos():
    from pycocotools.cocoeval import Params

    np.testing.assert_allclose(metrics.OKS_SIGMAS["coco17"], Params("keypoints").kpt_oks_sigmas)
    assert len(metrics.OKS_SIGMAS["crowdpose14"]) == 14


def test_oks_against_a_loop(rng):
    pred, gt = rng.uniform(0, 100, (2, 3, 14, 2))
    visible, area = rng.random((3, 14)) > 0.3, rng.uniform(500, 5000, 3)
    sigmas = metrics.OKS_SIGMAS["crowdpose14"]
    got = metrics.oks(torch.from_numpy(pred), torch.from_numpy(gt), torch.from_numpy(visible), area, "crowdpose14")
    for b in range(3):
        terms = [
            np.exp(-np.square(pred[b, j] - gt[b, j]).sum() / (2 * area[b] * (2 * sigmas[j]) ** 2))
            for j in range(14)
            if visible[b, j]
        ]
        assert got[b].item() == pytest.approx(np.mean(terms))
    assert metrics.oks(gt, gt, None, 100.0, sigmas).tolist() == [1, 1, 1]


def test_pck2d(rng):
    gt = rng.uniform(0, 100, (4, 17, 2))
    pred = gt + rng.normal(size=gt.shape) * 5
    norm, visible = rng.uniform(50, 150, 4), rng.random((4, 17)) > 0.3
    hits = np.linalg.norm(pred - gt, axis=-1) <= 0.05 * norm[:, None]
    assert metrics.pck2d(pred, gt, norm, visible) == pytest.approx(100 * hits[visible].mean())
    np.testing.assert_allclose(
        metrics.pck2d(pred, gt, norm, visible, reduce="none"), [100 * h[v].mean() for h, v in zip(hits, visible)]
    )
    whole = gt.round()
    assert metrics.pck2d(whole + np.array([3, 4]), whole, 50.0, threshold=0.1) == 100  # equal counts in 2D


def test_pckh_lsp_head_size():
    gt = np.zeros((2, 14, 2))
    gt[:, 13] = [0, 10]  # head top; the neck (12) stays at 0: head size 10
    pred = gt + np.array([6.0, 0])
    assert metrics.pckh(pred, gt, threshold=0.6) == 100
    assert metrics.pckh(pred, gt, threshold=0.59) == 0
    assert metrics.pckh(pred, gt, head_size=5.0) == 0
    visible = np.ones((2, 14), bool)
    visible[1, 13] = False
    pred[1] += 100
    assert metrics.pckh(pred, gt, visible) == 100  # the second pose has no head size and leaves the mean
    with pytest.raises(InputError):
        metrics.pckh(pred, gt, visible, reduce="none")
    size, usable = metrics.head_size(gt, visible)
    assert size[0] == 10 and usable.tolist() == [True, False]


def test_pckh_jhmdb_head_size():
    gt = np.zeros((15, 2))
    gt[2] = [0, 10]  # face centre above the neck (0): head size 20
    assert metrics.pckh(gt + np.array([12.0, 0]), gt, skeleton="jhmdb15") == 100
    assert metrics.pckh(gt + np.array([12.1, 0]), gt, skeleton="jhmdb15") == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda x: metrics.oks(x, x, None, 0.0),
        lambda x: metrics.oks(x, x, None, np.ones(3)),
        lambda x: metrics.oks(x, x, None, 1.0, "mpii16"),
        lambda x: metrics.oks(x, x, None, 1.0, [0.1] * 16),
        lambda x: metrics.oks(x, x, np.zeros((2, 17)), 1.0),
        lambda x: metrics.oks(x, x[:, :16], None, 1.0),
        lambda x: metrics.oks(x[..., :1], x[..., :1], None, 1.0),
        lambda x: metrics.pck2d(x, x, np.ones(3)),
        lambda x: metrics.pck2d(x, x, -1.0),
        lambda x: metrics.pck2d(x * np.nan, x, 1.0),
        lambda x: metrics.pckh(x, x),
        lambda x: metrics.pckh(x, x, skeleton="coco17"),
        lambda x: metrics.pckh(x[:, :14], x[:, :14]),  # all points equal: no head size
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError):
        call(np.ones((2, 17, 2)))
