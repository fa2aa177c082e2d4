from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.metrics.pose2d_error import joint_weights
from posesyn.synthesis.motion.placement import reproject
from posesyn.types import ArrayImage, Person


def make_person(joints_cam, scale=180.0, shift=(320.0, 240.0), skeleton="mpii16", hide=()):
    points, present = skeletons.convert(joints_cam, "humanml3d22", skeleton)
    keypoints = points[:, :2] * scale + shift
    visible = present.copy()
    visible[list(hide)] = False
    keypoints[~visible] = np.nan
    low, high = keypoints[visible].min(0), keypoints[visible].max(0)
    return Person(
        "p", ArrayImage(np.zeros((4, 4, 3), np.uint8)), np.concatenate([low, high]), keypoints, visible, skeleton
    )


@pytest.fixture
def motion(standing, rng):
    return standing * [1, -1, -1] + 0.15 * rng.normal(size=(30, 22, 3))


def test_finds_the_frame_that_was_projected(motion, rng):
    others = [motion[::-1] + 0.1 * rng.normal(size=motion.shape) for _ in range(3)]
    person = make_person(motion[17], hide=(0, 5))
    fits = reproject([others[0], motion, others[1]], person)
    assert fits[1].frame == 17
    assert fits[1].error < 1e-5
    assert fits[1].scale == pytest.approx(180, rel=1e-4)
    np.testing.assert_allclose(fits[1].shift_px, (320, 240), atol=0.01)
    assert min(fits[0].error, fits[2].error) > 0.01


def test_error_equals_a_numerical_fit_of_one_frame(motion):
    person = make_person(motion[3])
    frame = motion[8:9]
    fit = reproject([frame], person)[0]
    points, present = skeletons.convert(frame[0], "humanml3d22", "mpii16")
    weight = joint_weights("mpii16") * (person.visible & present)

    def cost(x):
        return (weight * ((points[:, :2] * x[0] + x[1:] - person.keypoints_px) ** 2).sum(1)).sum()

    best = minimize(
        cost, [100.0, 300.0, 200.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 9999}
    )
    residual = np.abs(points[:, :2] * best.x[0] + best.x[1:] - person.keypoints_px).sum(1)
    size = max(person.box_xyxy[2:] - person.box_xyxy[:2])
    assert fit.error == pytest.approx((weight * residual).sum() / weight.sum() / size, rel=1e-3)


def test_yaw_search_turns_the_motion(motion):
    turn = 0.4
    c, s = np.cos(turn), np.sin(turn)
    seen = motion[5] @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    person = make_person(seen)
    fit = reproject([motion], person, yaws=(0.0, 0.4, -0.4))[0]
    assert (fit.yaw, fit.frame) == (0.4, 5)
    assert fit.error < 1e-5
    assert reproject([motion], person)[0].error > 0.005


def test_an_upside_down_person_does_not_fit_by_a_negative_scale(motion):
    person = make_person(motion[3] * [-1, -1, 1])
    assert reproject([motion], person)[0].scale >= 0
    assert reproject([motion], person)[0].error > 0.1


def test_hidden_joints_do_not_count(motion):
    person = make_person(motion[3], hide=range(4, 16))
    far = motion.copy()
    far[:, 16:] += 9.0  # arms, hidden
    np.testing.assert_allclose(reproject([far], person)[0].error, reproject([motion], person)[0].error, atol=1e-9)


def test_too_few_joints_rank_nothing(motion):
    assert reproject([motion], make_person(motion[3], hide=range(3, 16))) is None


@pytest.mark.parametrize("bad", [np.zeros((0, 22, 3)), np.zeros((4, 24, 3)), np.full((4, 22, 3), np.nan)])
def test_bad_motions_are_refused(motion, bad):
    with pytest.raises(InputError, match="motion 1"):
        reproject([motion, bad], make_person(motion[0]))
    with pytest.raises(InputError, match="yaw"):
        reproject([motion], make_person(motion[0]), yaws=())
