"""Motions that are made for training: perturbed and composed."""

from __future__ import annotations

import numpy as np
import pytest

from posesyn.errors import InputError
from posesyn.synthesis.motion.prior.features import PARENTS, motion_features
from posesyn.training.prior.material import (
    CaptionedJoints,
    bent,
    cartwheeling,
    composed,
    dribbling,
    grafted,
    kicking,
    perturbed,
    tipped,
)


def stick_figure(frames=90, speed=0.0):
    """A person who stands, or walks along z with stiff limbs that swing."""
    half = {
        0: (0, 0.95), 3: (0, 1.07), 6: (0, 1.21), 9: (0, 1.26), 12: (0, 1.47), 15: (0, 1.57), 1: (0.07, 0.86),
        4: (0.1, 0.48), 7: (0.09, 0.08), 10: (0.1, 0.03), 13: (0.08, 1.38), 16: (0.19, 1.4), 18: (0.25, 1.15),
        20: (0.27, 0.9),
    }  # fmt: skip
    mirror = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}
    joints = np.zeros((22, 3))
    for index, (x, y) in half.items():
        joints[index, :2] = x, y
        if index in mirror:
            joints[mirror[index], :2] = -x, y
    joints[[10, 11], 2] = 0.13
    motion = np.repeat(joints[None], frames, 0)
    motion[..., 2] += speed * np.arange(frames)[:, None] / 20
    return motion


def bones(joints):
    return np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1)


@pytest.mark.parametrize("change", [bent, tipped, lambda j, rng: kicking(j, "left", "roundhouse", rng),
                                    lambda j, rng: cartwheeling(j, "right", rng),
                                    lambda j, rng: dribbling(j, "left", rng),
                                    lambda j, rng: grafted(j, bent(j, rng))])  # fmt: skip
def test_bones_keep_their_lengths(change, rng):
    joints = stick_figure()
    made = change(joints, rng)
    assert made.shape == joints.shape
    assert np.abs(made - joints).max() > 0.1
    np.testing.assert_allclose(bones(made), bones(joints), atol=1e-6)
    assert np.isfinite(motion_features(made)).all()


def test_made_motions_are_smooth(rng):
    for _ in range(5):
        made = perturbed([stick_figure(), stick_figure(speed=1.0)], rng)
        assert np.linalg.norm(np.diff(made, axis=0), axis=-1).max() < 0.6  # metres in 1/20 s


def test_a_tipped_body_stays_on_the_floor(rng):
    made = tipped(stick_figure(), rng)
    np.testing.assert_allclose(made[..., 1].min(1), 0.03, atol=1e-9)


def test_a_graft_has_the_legs_of_one_and_the_arms_of_the_other(rng):
    legs, upper = stick_figure(60, speed=1.2), bent(stick_figure(80), rng)
    made = grafted(legs, upper)
    assert len(made) == 60
    np.testing.assert_allclose(made[:, [0, 1, 2, 4, 5, 7, 8]], legs[:, [0, 1, 2, 4, 5, 7, 8]])


@pytest.mark.parametrize(("kind", "axis"), [("front", 2), ("side", 0)])
def test_kicks_go_where_they_should(kind, axis, rng):
    made = kicking(stick_figure(), "right", kind, rng)
    foot, other = made[:, 8] - made[:, 2], made[:, 7] - made[:, 1]
    high = foot[:, 1].argmax()
    assert foot[high, 1] > -0.5 and other[:, 1].max() < -0.6
    outward = foot[high, axis] * (1 if axis == 2 else -1)  # the right is at negative x
    assert outward > 0.4


def test_a_cartwheel_is_upside_down_in_its_middle(rng):
    made = cartwheeling(stick_figure(60), "left", rng)
    up = made[:, 15, 1] - made[:, 0, 1]
    assert up.min() < -0.4 and up[0] > 0.4 and up[-1] > 0.4
    assert made[-1, 0, 0] - made[0, 0, 0] > 1  # towards the left, at positive x


def test_a_dribbling_hand_beats(rng):
    wrist = dribbling(stick_figure(), "left", rng)[:, 20]
    assert np.ptp(wrist[:, 1]) > 0.15 and wrist[:, 2].min() > 0
    assert 5 <= (np.diff(np.sign(np.diff(wrist[:, 1]))) != 0).sum() <= 25


def test_composed_motions_have_words_and_repeat_with_the_seed():
    recorded = [
        CaptionedJoints(stick_figure(80, 1.2), ("a person walks forward",)),
        CaptionedJoints(stick_figure(90), ("a person boxes",)),
        CaptionedJoints(stick_figure(90), ("a person washes a window",)),
    ]
    made, again = composed(recorded, 24, seed=2), composed(recorded, 24, seed=2)
    for one, other in zip(made, again):
        np.testing.assert_array_equal(one.joints, other.joints)
        assert one.captions == other.captions and all("{" not in text for text in one.captions)
        assert one.joints.dtype == np.float32 and len(one.joints) >= 40
    words = " ".join(text for one in made for text in one.captions)
    assert all(word in words for word in ("kick", "cartwheel", "basketball", "walks forward and"))
    with pytest.raises(InputError, match="walking"):
        composed(recorded[1:], 3)
    with pytest.raises(InputError, match="no motion"):
        perturbed([], np.random.default_rng(0))
