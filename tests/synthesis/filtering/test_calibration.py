"""Wrong labels are wrong in the way they say, and the threshold is the best one that keeps enough right ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.synthesis.filtering.calibration import (
    MIN_WRONG_M,
    SHIFT,
    TURN_DEG,
    WRONG_LABELS,
    choose_threshold,
    wrong_labels,
)

SMPL45 = skeletons.get("smpl45")


def by_hand(right, wrong, quantile, above):
    """Every threshold between two values, one after the other: (kept, told apart) of the best."""
    levels = sorted({*right, *(value for values in wrong.values() for value in values)})
    tried = [(a + b) / 2 for a, b in pairwise(levels)] + [levels[-1] + 1, levels[0] - 1]
    best = -1.0
    for threshold in tried:
        good = [value <= threshold if above else value >= threshold for value in right]
        bad = [np.mean([v > threshold if above else v < threshold for v in values]) for values in wrong.values()]
        if np.mean(good) >= quantile - 1e-9:
            best = max(best, np.mean(good) + np.mean(bad))
    return best


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("quantile", [0.5, 0.9, 1.0])
def test_the_threshold_is_the_best_of_all_that_keep_enough(rng, above, quantile):
    for _ in range(5):
        right, shift = rng.normal(0, 1, 40), 1.5 if above else -1.5
        wrong = {"a": rng.normal(shift, 1, 30), "b": rng.normal(shift / 2, 1, 7)}
        found = choose_threshold(right, wrong, quantile, above)
        passes = right <= found.threshold if above else right >= found.threshold
        assert found.kept_right == pytest.approx(passes.mean()) and found.kept_right >= quantile
        for kind, values in wrong.items():
            fails = values > found.threshold if above else values < found.threshold
            assert found.dropped_wrong[kind] == pytest.approx(fails.mean())
            pairs = values[:, None] - right[None]
            pairs = pairs if above else -pairs
            assert found.auc[kind] == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
        told_apart = found.kept_right + np.mean(list(found.dropped_wrong.values()))
        assert told_apart == pytest.approx(by_hand(right, wrong, quantile, above))


def test_thresholds_of_clear_cases():
    apart = choose_threshold(np.array([0.1, 0.2]), {"a": np.array([0.4, 0.9])}, 0.95)
    assert apart.threshold == pytest.approx(0.3) and apart.kept_right == 1 and apart.dropped_wrong == {"a": 1}
    same = np.array([0.1, 0.2, 0.3])
    for above in (True, False):  # who cannot tell them apart drops nothing
        blind = choose_threshold(same, {"a": same}, 0.5, above)
        assert blind.kept_right == 1 and blind.dropped_wrong == {"a": 0} and blind.auc == {"a": 0.5}
    nobody = choose_threshold(same, {"a": np.zeros(0)}, 0.5)
    assert nobody.kept_right == 1 and nobody.dropped_wrong == {} and "right labels" in nobody.describe()
    mute = choose_threshold(np.array([0.1, np.inf, np.inf]), {"a": np.array([np.inf, 5.0])}, 0.95)
    assert mute.kept_right == pytest.approx(1 / 3) and mute.dropped_wrong["a"] == 1
    for empty in (np.zeros(0), np.array([np.inf])):
        with pytest.raises(InputError, match="no frame to calibrate"):
            choose_threshold(empty, {"a": same}, 0.5)


@pytest.fixture
def clips(make_clip):
    return [make_clip(name, seed=seed) for seed, name in enumerate("abc")]


def box(points):
    return np.stack([points[:, :24].min(1), points[:, :24].max(1)], 1)


@pytest.mark.parametrize("kind", list(WRONG_LABELS))
def test_wrong_labels_fit_together_and_are_wrong(clips, kind):
    before = [clip.joints_cam.copy() for clip in clips]
    made = wrong_labels(clips, kind)
    for clip, spoilt, joints in zip(clips, made, before):
        np.testing.assert_array_equal(clip.joints_cam, joints)
        assert spoilt.frames is clip.frames and spoilt.keep.all()
        focal, middle = clip.intrinsics[0, 0], clip.intrinsics[0, 2]
        points = spoilt.joints_cam[..., :2] / spoilt.joints_cam[..., 2:] * focal + middle
        np.testing.assert_allclose(spoilt.keypoints_px, points, atol=1e-3)
        inside = ((points > -0.5) & (points < clip.frames.shape[1] - 0.5)).all(-1)
        assert not (spoilt.visible & ~inside).any()
        rooted = [one.joints_cam - one.joints_cam[:, :1] for one in (clip, spoilt)]
        off = np.linalg.norm(rooted[0] - rooted[1], axis=-1)[:, :22].max(1)
        assert (off < 1e-5).all() if kind == "shifted" else (off >= MIN_WRONG_M).all()
    again, other = wrong_labels(clips, kind), wrong_labels(clips, kind, seed=1)
    assert all((a.joints_cam == b.joints_cam).all() for a, b in zip(made, again))
    if kind in ("other_frame", "limb_turned", "shifted"):
        assert any((a.joints_cam != b.joints_cam).any() for a, b in zip(made, other))


@pytest.mark.parametrize("kind", ["other_frame", "mirrored"])
def test_another_pose_fills_the_same_box(clips, kind):
    for clip, spoilt in zip(clips, wrong_labels(clips, kind)):
        was, now = box(clip.keypoints_px), box(spoilt.keypoints_px)
        np.testing.assert_allclose(was.mean(1), now.mean(1), atol=1)
        np.testing.assert_allclose((was[:, 1] - was[:, 0]).max(1), (now[:, 1] - now[:, 0]).max(1), rtol=0.03)
        assert spoilt.mask is clip.mask


def test_sides(clips):
    clip, spoilt = clips[0], wrong_labels(clips, "sides_swapped")[0]
    left, right = SMPL45.index("left_wrist"), SMPL45.index("right_wrist")
    np.testing.assert_array_equal(spoilt.joints_cam[:, left], clip.joints_cam[:, right])
    np.testing.assert_array_equal(spoilt.visible[:, left], clip.visible[:, right])
    # The mirror image of a pose that is its own mirror image is right.
    joints = clip.joints_cam - clip.joints_cam[:, :1]
    joints[..., 0] = (joints[..., 0] - joints[:, SMPL45.flip, 0]) / 2
    joints[..., 1:] = (joints[..., 1:] + joints[:, SMPL45.flip, 1:]) / 2
    points = joints + np.array([0, 0, 3])
    keypoints = points[..., :2] / points[..., 2:] * clip.intrinsics[0, 0] + clip.intrinsics[0, 2]
    even = replace(clip, joints_cam=points.astype(np.float32), keypoints_px=keypoints.astype(np.float32))
    assert not wrong_labels([even], "mirrored")[0].keep.any() and wrong_labels([even], "sides_swapped")[0].keep.all()


def test_one_limb_turns_and_keeps_its_length(clips):
    for clip, spoilt in zip(clips, wrong_labels(clips, "limb_turned")):
        for was, now in zip(clip.joints_cam, spoilt.joints_cam):
            moved = np.flatnonzero(np.linalg.norm(was - now, axis=1) > 1e-5)
            root = next(SMPL45.parents[joint] for joint in moved if SMPL45.parents[joint] not in moved)
            assert SMPL45.joints[root].split("_")[1] in ("shoulder", "hip") and len(moved) in (6, 8)
            before, after = was[moved] - was[root], now[moved] - now[root]
            np.testing.assert_allclose(np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1), atol=1e-5)
            cosine = before[-1] @ after[-1] / np.linalg.norm(before[-1]) / np.linalg.norm(after[-1])
            assert TURN_DEG[0] - 0.1 <= np.degrees(np.arccos(cosine)) <= TURN_DEG[1] + 0.1


def test_a_person_is_moved_with_its_mask(clips):
    for clip, spoilt in zip(clips, wrong_labels(clips, "shifted")):
        sides = (box(clip.keypoints_px)[:, 1] - box(clip.keypoints_px)[:, 0]).max(1)
        steps = spoilt.keypoints_px[:, 0] - clip.keypoints_px[:, 0]
        far = np.linalg.norm(steps, axis=1) / sides
        assert (far > SHIFT[0] - 0.01).all() and (far < SHIFT[1] + 0.01).all()
        for frame, (x, y) in enumerate(np.rint(steps).astype(int)):
            rows, columns = np.nonzero(clip.mask[frame])
            good = (rows + y >= 0) & (rows + y < 48) & (columns + x >= 0) & (columns + x < 48)
            expected = np.zeros((48, 48), bool)
            expected[rows[good] + y, columns[good] + x] = True
            np.testing.assert_array_equal(spoilt.mask[frame], expected)


def test_frames_that_are_not_kept_are_left_out(make_clip):
    clip = make_clip(keep=np.array([0, 1, 1, 0, 1], bool))
    spoilt = wrong_labels([clip], "other_frame")[0]
    assert spoilt.keep.tolist() == clip.keep.tolist()  # of one clip, another frame of it
    np.testing.assert_array_equal(spoilt.joints_cam[0], clip.joints_cam[0])
    alone = make_clip(keep=np.array([0, 1, 0, 0, 0], bool))
    assert not wrong_labels([alone], "other_frame")[0].keep.any()
    with pytest.raises(InputError, match="unknown kind"):
        wrong_labels([clip], "upside_down")
