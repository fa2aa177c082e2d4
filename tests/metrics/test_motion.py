"""Oracles: ../shared/conformance/metrics, ../shared/data/metrics (VIBE's definition) and plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from posesyn import metrics
from posesyn.errors import InputError


def test_conformance(shared):
    v = np.load(shared / "conformance" / "metrics" / "vectors.npz")
    pred, gt = v["pred"], v["gt"]
    close = {"atol": 1e-4, "rtol": 1e-4}
    np.testing.assert_allclose(metrics.acceleration_error(pred, gt, reduce="none"), v["accel_error"], **close)
    visible = metrics.acceleration_error(pred, gt, v["frame_visible"], reduce="none")
    np.testing.assert_allclose(visible, v["accel_error_visible"], **close)
    np.testing.assert_allclose(metrics.acceleration(pred, reduce="none"), v["accel_pred"], **close)
    np.testing.assert_allclose(metrics.velocity_error(pred, gt), v["velocity_error"][0], **close)


def test_mocap(shared):
    data = json.loads((shared / "data" / "metrics" / "pose3d_vectors.json").read_text())["accel"]
    pred, gt, vis = np.array(data["pred"]), np.array(data["gt"]), np.array(data["vis"])
    got = metrics.acceleration_error(pred, gt, reduce="none") / 1000
    np.testing.assert_allclose(got, data["expected_per_frame"], rtol=1e-6)
    assert metrics.acceleration_error(pred, gt) / 1000 == pytest.approx(data["expected_mean"])
    assert metrics.acceleration_error(pred, gt, vis) / 1000 == pytest.approx(data["expected_mean_vis"])
    assert metrics.acceleration_error(pred, gt, fps=data["fps"]) == pytest.approx(data["expected_mean_m_s2"])


def test_mask_removes_every_window_that_touches_the_frame(rng):
    pred, gt = rng.normal(size=(2, 9, 4, 3))
    visible = np.ones(9, bool)
    visible[4] = False
    spoiled = pred.copy()
    spoiled[4] = np.nan
    full = metrics.acceleration_error(pred, gt, reduce="none")
    np.testing.assert_allclose(metrics.acceleration_error(spoiled, gt, visible, reduce="none"), full[[0, 1, 5, 6]])
    steps = metrics.velocity_error(pred, gt, reduce="none")
    np.testing.assert_allclose(metrics.velocity_error(spoiled, gt, visible, reduce="none"), steps[[0, 1, 2, 5, 6, 7]])


def test_against_loops(rng):
    x = rng.normal(size=(8, 4, 3))
    second = [np.linalg.norm(x[t - 1] - 2 * x[t] + x[t + 1], axis=-1).mean() for t in range(1, 7)]
    assert metrics.acceleration(x, fps=30) == pytest.approx(np.mean(second) * 900)
    third = [np.linalg.norm(x[t + 3] - 3 * x[t + 2] + 3 * x[t + 1] - x[t], axis=-1).mean() for t in range(5)]
    assert metrics.jitter(x, fps=30) == pytest.approx(np.mean(third) * 30**3 / 10)
    as_torch = metrics.acceleration(torch.from_numpy(x).float(), fps=30)
    assert as_torch.dtype == torch.float32 and as_torch.item() == pytest.approx(np.mean(second) * 900, rel=1e-5)


def test_constant_speed_has_no_acceleration():
    line = np.arange(10.0)[:, None, None] * np.ones((10, 2, 3))
    assert metrics.acceleration_error(line, 3 * line) == pytest.approx(0, abs=1e-9)
    assert metrics.velocity_error(line, 3 * line, fps=20) == pytest.approx(2 * np.sqrt(3) * 20)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: metrics.acceleration_error(x[:2], x[:2]),
        lambda x: metrics.acceleration_error(x[None], x[None]),
        lambda x: metrics.acceleration_error(x, x, np.ones(4)),
        lambda x: metrics.acceleration_error(x, x, np.array([1, 1, 0, 1, 1])),
        lambda x: metrics.acceleration_error(x, x, fps=0),
        lambda x: metrics.acceleration_error(x, x, reduce="joint"),
        lambda x: metrics.acceleration_error(x * np.nan, x),
        lambda x: metrics.jitter(x[:3], 30),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError):
        call(np.zeros((5, 4, 3)))
