from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from posesyn import load_body
from posesyn.body.pose_fitting import PoseFitter
from posesyn.body.pose_library import (
    FLIP,
    PARENTS,
    POINTS,
    PoseLibrary,
    body_points,
    facing_forward,
    mirror,
    shipped_library,
)
from posesyn.body.pose_refinement import Fitted, FittingSettings, Refinement, State
from posesyn.errors import CheckpointError, FileError, InputError
from posesyn.geometry.procrustes import similarity_align
from posesyn.storage.checkpoints import save_weights
from posesyn.synthesis.motion.steering.steering import CAM_TO_WORLD, split_view, turned
from tests.factories import make_seen

QUICK = FittingSettings(starts=6, hypotheses=4, iterations=8)


make_scored = partial(make_seen, distance=3.0)


def camera(yaw, elevation):
    cosine, sine = np.cos(elevation), np.sin(elevation)
    tilt = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return tilt @ np.diag(CAM_TO_WORLD) @ turned(np.eye(3), yaw).T


def aligned_error(poses, truth):
    poses, truth = torch.as_tensor(poses), torch.as_tensor(truth).double()
    return (similarity_align(poses, truth.expand(poses.shape)) - truth).norm(dim=-1).mean(-1).numpy()


@pytest.fixture(scope="module")
def fitter():
    return PoseFitter(settings=QUICK)


@pytest.fixture
def poses():
    """A few of the library's poses, 27 points."""
    return shipped_library().points[[20, 300, 700, 1200]].double().numpy()


def test_the_library_is_upright_forward_and_mirrored():
    library = shipped_library()
    half = len(library.points) // 2
    torch.testing.assert_close(mirror(library.points[:half]), library.points[half:])
    assert float(library.points[:, 0].abs().max()) == 0
    torch.testing.assert_close(facing_forward(library.points), library.points, atol=3e-3, rtol=0)
    assert tuple(FLIP[i] for i in FLIP) == tuple(range(len(POINTS)))
    # upright more often than not, and faces in front of heads
    assert (library.points[:, 15, 1] > 0).float().mean() > 0.9
    lengths = (library.points[:, 4] - library.points[:, 1]).norm(dim=-1)
    assert float(lengths.std()) < 2e-3  # bones keep their length


def test_body_points_are_the_joints_of_the_body(rng):
    body = load_body("anny", size="small")
    pose = rng.normal(0, 0.3, (3, 24, 3)).astype(np.float32)
    points = body_points(body, pose, chunk=2)
    from posesyn.geometry.rotations import rotvec_to_matrix

    with torch.no_grad():
        joints = body.joints_only(rotvec_to_matrix(torch.from_numpy(pose)), torch.zeros(1, 10))
    torch.testing.assert_close(points[:, :22], joints[:, :22], atol=1e-4, rtol=0)


def test_a_library_is_read_back(tmp_path, rng):
    library = PoseLibrary(torch.randn(3, 27, 3), torch.randn(2, 27, 3))
    library.save(tmp_path / "a.safetensors", "test")
    read = PoseLibrary.load(tmp_path / "a.safetensors", mirrored=False)
    torch.testing.assert_close(read.points, library.points, atol=2e-3, rtol=1e-3)
    assert len(PoseLibrary.load(tmp_path / "a.safetensors").points) == 6
    with pytest.raises(FileError, match="no such pose library"):
        PoseLibrary.load(tmp_path / "b.safetensors")
    save_weights(tmp_path / "c.safetensors", {"points": torch.zeros(1)}, {"format": "else"})
    with pytest.raises(CheckpointError, match="not a pose library"):
        PoseLibrary.load(tmp_path / "c.safetensors")
    save_weights(tmp_path / "d.safetensors", {"points": torch.zeros(2, 5, 3)}, {"format": "posesyn-pose-library-1"})
    with pytest.raises(CheckpointError, match="wrong shape"):
        PoseLibrary.load(tmp_path / "d.safetensors")


@pytest.mark.parametrize("skeleton", ["coco17", "mpii16", "smpl45"])
def test_a_wrong_pose_is_lifted_to_the_true_one(fitter, poses, skeleton):
    """The estimator confuses the person with another; the keypoints, seen from the side and above, are right."""
    before, best, nearest = [], [], []
    for row, pose in enumerate(poses):
        wrong = poses[(row + 1) % len(poses)]
        scored = make_scored(pose, wrong, skeleton=skeleton, view=camera(0.6, 0.3), noise=1.0, seed=row)
        fitted = fitter.fit(scored)
        before.append(aligned_error(wrong[None, :22], pose[:22])[0])
        errors = aligned_error(fitted.points[:, :22], pose[:22])
        best.append(errors[0])
        nearest.append(errors.min())
        assert fitted.reprojection[0] < 0.03
        assert (np.diff(fitted.cost) >= 0).all()
    assert np.mean(best) < 0.5 * np.mean(before)
    assert np.mean(nearest) < 0.06


def test_bones_keep_their_lengths(fitter, poses):
    fitted = fitter.fit(make_scored(poses[1], poses[2], noise=1.0))
    children = range(1, 22)
    for points in fitted.points:
        own = [np.linalg.norm(points[c] - points[PARENTS[c]]) for c in children]
        usual = [np.linalg.norm(poses[1][c] - poses[1][PARENTS[c]]) for c in children]
        assert np.abs(np.subtract(own, usual)).max() < 0.05


def test_the_picture_decides_the_view(fitter, poses):
    scored = make_scored(poses[0], poses[0], view=camera(-0.9, 0.4))
    fitted = fitter.fit(scored)
    yaw, tilt, elevation = split_view(fitted.views[0])
    seen = turned(fitted.points[0], yaw) * CAM_TO_WORLD @ tilt.T
    np.testing.assert_allclose(seen, fitted.points[0] @ fitted.views[0].T, atol=1e-9)
    assert abs(elevation - 0.4) < 0.25
    np.testing.assert_allclose(split_view(camera(1.1, 0.3))[0], 1.1)
    np.testing.assert_allclose(split_view(camera(1.1, 0.3))[2], 0.3)
    np.testing.assert_allclose(split_view(camera(1.1, 0.0))[1], np.eye(3), atol=1e-12)


def test_derivatives_agree_with_finite_differences(fitter, poses):
    scored = make_scored(poses[0], poses[1], view=camera(0.5, 0.2), hide=(0, 9))
    evidence = fitter.evidence(scored)
    examples, views = fitter.search(evidence)
    fit = Refinement(fitter.library, fitter.settings, evidence, examples[:2], fitter.views[views[:2]])
    generator = torch.Generator().manual_seed(0)
    state = fit.moved(fit.start, 0.05 * torch.randn(2, fit.width + 7, dtype=torch.float64, generator=generator))

    # The robust weights are held fixed in each step, so they are taken out of both sides.
    soft = replace(fitter.settings, prediction_reach=1e6)
    fit.settings, fit.evidence = soft, evidence._replace(noise=evidence.noise * 1e3)
    slopes, step = fit.residuals(state)[1], 1e-6
    for unknown in range(fit.width + 7):
        move = torch.zeros(2, fit.width + 7, dtype=torch.float64)
        move[:, unknown] = step
        ahead, behind = (fit.residuals(fit.moved(state, sign * move), slopes=False)[0] for sign in (1, -1))
        numeric = -(ahead - behind) / (2 * step)
        torch.testing.assert_close(slopes[:, :, unknown], numeric, atol=2e-4, rtol=1e-4)


def test_refinement_never_gets_worse_and_masks_what_is_hidden(fitter, poses):
    scored = make_scored(poses[2], poses[3], noise=2.0, hide=(9, 10))
    wild = scored.person.keypoints_px.copy()
    wild[[9, 10]] = 9000.0
    other = replace(scored, person=replace(scored.person, keypoints_px=wild))
    one, two = fitter.fit(scored), fitter.fit(other)
    np.testing.assert_array_equal(one.points, two.points)
    evidence = fitter.evidence(scored)
    examples, views = fitter.search(evidence)
    start = Refinement(fitter.library, fitter.settings, evidence, examples, fitter.views[views])
    assert one.cost.min() < float(start.residuals(start.start)[2].min())


def test_one_gross_mistake_of_the_annotator_is_survived(fitter, poses):
    clean = make_scored(poses[1], poses[1])
    moved = clean.person.keypoints_px.copy()
    moved[10] += (150, -120)
    wrong = replace(clean, person=replace(clean.person, keypoints_px=moved))
    error = aligned_error(fitter.fit(wrong).points[:, :22], poses[1][:22]).min()
    assert error < 0.09


def test_draws_spread_in_depth_and_still_reproject(fitter, poses):
    scored = make_scored(poses[1], poses[2], noise=1.0)
    fitted = fitter.fit(scored)
    single = Fitted(*(value[:1] for value in fitted))
    rng = np.random.default_rng(0)
    drawn = [single.draw(rng, 3.0, 1.0) for _ in range(60)]
    seen = np.stack([points @ view.T for _, points, view in drawn])
    wrists = seen[:, 20:22]
    assert wrists[..., 2].std(0).mean() > 1.5 * wrists[..., :2].std(0).mean()
    still = [single.draw(rng, 3.0, 0.0)[1] for _ in range(2)]
    np.testing.assert_array_equal(still[0], fitted.points[0])
    cold = [fitted.draw(rng, 1e-6, 0.0)[0] for _ in range(5)]
    assert set(cold) == {0}


def test_too_few_joints_cannot_be_lifted(fitter, poses):
    assert fitter.fit(make_scored(poses[0], poses[0], hide=range(5, 13))) is None
    assert fitter.fit(make_scored(poses[0], poses[0], hide=range(5, 11))) is not None
    point = make_scored(poses[0], poses[0])
    flat = replace(point, person=replace(point.person, box_xyxy=np.zeros(4)))
    assert fitter.fit(flat) is None


def test_predictions_with_nan_are_refused(fitter, poses):
    scored = make_scored(poses[0], poses[0])
    broken = scored.prediction.joints_cam.copy()
    broken[0, 5] = np.nan
    with pytest.raises(InputError, match="NaN"):
        fitter.fit(replace(scored, prediction=replace(scored.prediction, joints_cam=broken)))


def test_steps_turn_the_view_and_bound_the_distance(fitter, poses):
    evidence = fitter.evidence(make_scored(poses[0], poses[0]))
    fit = Refinement(fitter.library, fitter.settings, evidence, torch.tensor([3]), fitter.views[:1])
    step = torch.zeros(1, fit.width + 7, dtype=torch.float64)
    step[0, fit.width + 1], step[0, -1] = 0.3, 100.0
    moved = fit.moved(fit.start, step)
    assert isinstance(moved, State)
    angle = torch.arccos(((moved.views[0] @ fit.start.views[0].T).trace() - 1) / 2)
    assert float(angle) == pytest.approx(0.3)
    assert float(moved.rest[0, 3]) <= 1.2
