"""Oracles: ../shared/conformance/metrics, ../shared/data/metrics (other implementations) and plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from posesyn import metrics
from posesyn.errors import InputError


@pytest.fixture(scope="module")
def vectors(shared):
    stored = np.load(shared / "conformance" / "metrics" / "vectors.npz")
    return {key: stored[key] for key in stored}


@pytest.fixture(scope="module")
def tolerance(shared):
    spec = json.loads((shared / "conformance" / "metrics" / "spec.json").read_text())
    suggested = spec["suggested_tolerance"]
    return {"atol": suggested["absolute"], "rtol": suggested["relative"]}


@pytest.fixture(scope="module")
def mocap(shared):
    data = json.loads((shared / "data" / "metrics" / "pose3d_vectors.json").read_text())
    for key in ("gt", "pred"):
        data[key] = np.array(data[key]) / 1000
    data["mask"] = np.array(data["mask"], bool)
    return data


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_conformance_errors(vectors, tolerance, kind):
    pred, gt, visible = (kind(vectors[key]) for key in ("pred", "gt", "visible"))
    got = {
        "mpjpe": metrics.mpjpe(pred, gt),
        "mpjpe_visible": metrics.mpjpe(pred, gt, visible),
        "mpjpe_per_pose": metrics.mpjpe(pred, gt, reduce="none"),
        "pa_mpjpe": metrics.pa_mpjpe(pred, gt),
        "pa_mpjpe_per_pose": metrics.pa_mpjpe(pred, gt, reduce="none"),
        "pa_mpjpe_visible": metrics.pa_mpjpe(pred, gt, visible, align_on="all"),
        "scale_mpjpe": metrics.n_mpjpe(pred, gt),
    }
    for key, value in got.items():
        np.testing.assert_allclose(np.atleast_1d(value), vectors[key], err_msg=key, **tolerance)
        assert isinstance(value, torch.Tensor) == isinstance(pred, torch.Tensor)


@pytest.mark.parametrize("alignment", ["none", "scale", "procrustes"])
@pytest.mark.parametrize("masked", [False, True])
def test_conformance_pck_and_auc(vectors, tolerance, alignment, masked):
    arguments = (vectors["pred"], vectors["gt"], vectors["visible"] if masked else None)
    suffix = ("visible_" if masked else "") + alignment
    options = {"alignment": alignment, "align_on": "all"}
    np.testing.assert_allclose(metrics.pck3d(*arguments, **options), vectors[f"pck150_{suffix}"][0], **tolerance)
    np.testing.assert_allclose(metrics.auc3d(*arguments, **options), vectors[f"auc_{suffix}"][0], **tolerance)


@pytest.mark.parametrize("root", [None, 0])
@pytest.mark.parametrize("alignment", ["none", "scale", "procrustes", "none/masked"])
def test_mocap_table(mocap, root, alignment):
    expected = mocap["expected"][f"{'raw' if root is None else 'root_aligned'}/{alignment}"]
    visible = mocap["mask"] if "masked" in alignment else None
    alignment = alignment.split("/")[0]
    pred, gt = mocap["pred"], mocap["gt"]
    if alignment == "procrustes":
        error = metrics.pa_mpjpe(pred, gt, visible)
    else:
        error = (metrics.mpjpe if alignment == "none" else metrics.n_mpjpe)(pred, gt, visible, root)
    assert error == pytest.approx(expected["mpjpe"], abs=1e-3)
    pck = metrics.pck3d(pred, gt, visible, root, alignment=alignment)
    assert pck == pytest.approx(expected["pck150"], abs=1e-4)
    assert metrics.auc3d(pred, gt, visible, root, alignment=alignment) == pytest.approx(expected["auc"], abs=1e-4)


def test_mocap_per_sample(mocap):
    np.testing.assert_allclose(
        metrics.mpjpe(mocap["pred"], mocap["gt"], reduce="none"), mocap["expected_mpjpe_per_sample"], atol=1e-3
    )
    pa = metrics.pa_mpjpe(mocap["pred"], mocap["gt"], reduce="none")
    np.testing.assert_allclose(pa, mocap["expected_pa_mpjpe_per_sample"], atol=1e-3)
    kinds = np.array(mocap["kind"])
    assert (pa[kinds == "mirror"] > 150).all() and (pa[kinds == "similarity"] < 25).all()
    assert (pa[kinds == "identical"] < 1e-6).all()


def test_torch_float32_equals_numpy(mocap):
    pred, gt = (torch.from_numpy(mocap[key]).float() for key in ("pred", "gt"))
    for function in (metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe):
        value = function(pred, gt)
        assert value.dtype == torch.float32 and value.ndim == 0
        assert value.item() == pytest.approx(function(mocap["pred"], mocap["gt"]), rel=1e-5)


def test_reductions_and_batch_dimensions(rng):
    pred, gt = rng.normal(size=(2, 2, 3, 5, 3))
    visible = rng.random((2, 3, 5)) > 0.4
    visible[..., 0], visible[0, 0] = True, True
    distance = np.linalg.norm(pred - gt, axis=-1) * 1000
    assert metrics.mpjpe(pred, gt, visible) == pytest.approx(distance[visible].mean())
    per_pose = metrics.mpjpe(pred, gt, visible, reduce="none")
    per_joint = metrics.mpjpe(pred, gt, visible, reduce="joint")
    assert per_pose.shape == (2, 3) and per_joint.shape == (5,)
    for i in np.ndindex(2, 3):
        assert per_pose[i] == pytest.approx(distance[i][visible[i]].mean())
    for j in range(5):
        assert per_joint[j] == pytest.approx(distance[..., j][visible[..., j]].mean())
    np.testing.assert_allclose(metrics.mpjpe(pred[0, 0], gt[0, 0], reduce="joint"), distance[0, 0])
    assert metrics.mpjpe(pred[0, 0], gt[0, 0], reduce="none").shape == ()


def test_roots(rng):
    pred, gt = rng.normal(size=(2, 4, 14, 3))
    hips = [2, 3]
    expected = metrics.mpjpe(pred - pred[:, hips].mean(1, keepdims=True), gt - gt[:, hips].mean(1, keepdims=True))
    assert metrics.mpjpe(pred, gt, root=hips) == pytest.approx(expected)
    assert metrics.mpjpe(pred + 7, gt, root=2) == pytest.approx(metrics.mpjpe(pred, gt, root=2))


def test_invisible_joints_may_hold_anything(rng):
    pred, gt = rng.normal(size=(2, 4, 14, 3))
    visible = np.ones((4, 14), bool)
    visible[1, 5:7] = False
    kept = [0, 1, 2, 3, 4, *range(7, 14)]
    spoiled = pred.copy()
    spoiled[1, 5], spoiled[1, 6] = np.nan, 1e6
    for function in (metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe):
        value = function(spoiled, gt, visible, reduce="none")
        np.testing.assert_allclose(value[1], function(pred[1][kept], gt[1][kept]))
    with pytest.raises(InputError, match="invisible"):
        metrics.pa_mpjpe(spoiled, gt, visible, align_on="all")


def test_poses_without_a_visible_joint(rng):
    pred, gt = rng.normal(size=(2, 3, 14, 3))
    visible = np.ones((3, 14), bool)
    visible[1] = False
    for function in (metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe, metrics.pck3d, metrics.auc3d):
        assert function(pred, gt, visible) == pytest.approx(function(pred[[0, 2]], gt[[0, 2]]))
        with pytest.raises(InputError, match=r"\[1\]"):
            function(pred, gt, visible, reduce="none")
        with pytest.raises(InputError):
            function(pred, gt, np.zeros((3, 14)))


def test_degenerate_predictions_are_not_perfect(rng):
    gt = rng.normal(size=(17, 3))
    collapsed = np.zeros((17, 3))
    spread = np.linalg.norm(gt - gt.mean(0), axis=-1).mean() * 1000
    assert metrics.pa_mpjpe(collapsed, gt) == pytest.approx(spread)
    assert metrics.n_mpjpe(collapsed, gt) == pytest.approx(np.linalg.norm(gt, axis=-1).mean() * 1000)
    line = np.linspace(-1, 1, 17)[:, None] * np.array([1.0, 0, 0])
    assert 0 < metrics.pa_mpjpe(line, gt) < spread


def test_thresholds_are_strict():
    gt = np.zeros((3, 1, 3))
    pred = gt.copy()
    pred[:, 0, 0] = [0.149, 0.125, 0.2]
    assert metrics.pck3d(pred, gt) == pytest.approx(200 / 3)
    # 0.125 m is exactly 125 mm in binary: not below the threshold 125.
    assert metrics.auc3d(pred[1], gt[1]) == pytest.approx(100 * 5 / 31)
    assert metrics.auc3d(gt, gt) == pytest.approx(100 * 30 / 31)
    assert metrics.auc3d(pred[2], gt[2]) == 0
    assert metrics.pck3d(pred, gt, threshold=126) == pytest.approx(100 / 3)


def test_auc_is_the_mean_of_pck(rng):
    gt = rng.normal(size=(5, 14, 3))
    pred = gt + rng.normal(size=gt.shape) * 0.06
    curve = [metrics.pck3d(pred, gt, threshold=t) for t in metrics.AUC_THRESHOLDS]
    assert metrics.auc3d(pred, gt) == pytest.approx(np.mean(curve))


def test_pve(rng):
    pred, gt = rng.normal(size=(2, 3, 50, 3))
    roots = rng.normal(size=(2, 3, 3))
    assert metrics.pve(pred, gt) == pytest.approx(metrics.mpjpe(pred, gt))
    expected = np.linalg.norm((pred - roots[0][:, None]) - (gt - roots[1][:, None]), axis=-1).mean(-1) * 1000
    np.testing.assert_allclose(metrics.pve(pred, gt, roots[0], roots[1], reduce="none"), expected)
    with pytest.raises(InputError):
        metrics.pve(pred, gt, roots[0])
    with pytest.raises(InputError):
        metrics.pve(pred, gt, roots[0][:2], roots[1][:2])


def test_mean_of_groups():
    assert metrics.mean_of_groups(np.array([1.0, 3.0, 10.0]), ["walk", "walk", "sit"]) == pytest.approx(6)
    with pytest.raises(InputError):
        metrics.mean_of_groups(np.zeros(0), [])


def test_gradients_flow(rng):
    pred = torch.from_numpy(rng.normal(size=(2, 4, 3))).requires_grad_()
    gt = torch.from_numpy(rng.normal(size=(2, 4, 3)))
    assert torch.autograd.gradcheck(lambda p: metrics.mpjpe(p, gt, root=0) / 1000, pred)


@pytest.mark.parametrize(
    "function", [metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe, metrics.pck3d, metrics.auc3d, metrics.pve]
)
@pytest.mark.parametrize(
    "pred, gt",
    [
        (np.zeros((17, 3)), np.zeros((16, 3))),
        (np.zeros((17, 2)), np.zeros((17, 2))),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 17, 3)), np.zeros((0, 17, 3))),
        (np.full((17, 3), np.nan), np.zeros((17, 3))),
        (np.zeros((17, 3)), np.full((17, 3), np.inf)),
    ],
)
def test_bad_points(function, pred, gt):
    with pytest.raises(InputError):
        function(pred, gt)


@pytest.mark.parametrize(
    "options",
    [
        {"visible": np.ones(16)},
        {"visible": np.ones((2, 17))},
        {"root": 17},
        {"root": -1},
        {"root": []},
        {"reduce": "sum"},
    ],
)
def test_bad_options(options):
    with pytest.raises(InputError):
        metrics.mpjpe(np.zeros((17, 3)), np.zeros((17, 3)), **options)


def test_unknown_alignment():
    with pytest.raises(InputError):
        metrics.pck3d(np.zeros((17, 3)), np.zeros((17, 3)), alignment="rigid")
    with pytest.raises(InputError):
        metrics.pa_mpjpe(np.ones((17, 3)), np.ones((17, 3)), align_on="some")


def test_conformance_over_time(shared):
    v = np.load(shared / "conformance" / "metrics" / "vectors.npz")
    pred, gt = v["pred"], v["gt"]
    close = {"atol": 1e-4, "rtol": 1e-4}
    np.testing.assert_allclose(metrics.acceleration_error(pred, gt, reduce="none"), v["accel_error"], **close)
    visible = metrics.acceleration_error(pred, gt, v["frame_visible"], reduce="none")
    np.testing.assert_allclose(visible, v["accel_error_visible"], **close)
    np.testing.assert_allclose(metrics.acceleration(pred, reduce="none"), v["accel_pred"], **close)
    np.testing.assert_allclose(metrics.velocity_error(pred, gt), v["velocity_error"][0], **close)


def test_mocap_over_time(shared):
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
