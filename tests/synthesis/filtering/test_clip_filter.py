from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.body import load_body
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import InputError
from posesyn.estimators import EstimatorKeypointDetector
from posesyn.estimators.hmr import HMR
from posesyn.geometry.devices import device_of
from posesyn.interfaces import EstimatorSpec
from posesyn.settings.stages import FilterSettings
from posesyn.storage.clip_store import ClipStore
from posesyn.synthesis.filtering.clip_filter import ClipFilter
from posesyn.synthesis.filtering.judges import detector_scores, estimator_errors, label_problems
from posesyn.types import PoseBatch
from tests.factories import write_clips
from tests.spying_device import SPY, SpyingDevice


class LabelReader:
    """Answers with the labels, all joints but the root moved by ``off[frame]`` metres along x."""

    def __init__(self, off, skeleton: str = "smpl24") -> None:
        self.spec = EstimatorSpec("reader", skeleton=skeleton)
        self.off, self.seen = off, 0

    def predict(self, persons):
        self.seen += len(persons)
        joints = np.stack([person.labels.joints_cam for person in persons])
        joints, _ = skeletons.convert(joints, "smpl45", self.spec.skeleton)
        joints[:, 1:, 0] += np.array([self.off[person.frame] for person in persons])[:, None]
        joints += 5  # where the person stands must not matter
        ids = tuple(person.person_id for person in persons)
        return PoseBatch(ids, self.spec.skeleton, joints.astype(np.float32), joints[..., :2].astype(np.float32))


class Detector:
    """Finds the labelled joints, moved by ``off[frame]`` pixels."""

    skeleton = "coco17"

    def __init__(self, clip, off, score=1.0) -> None:
        self.points, _ = skeletons.convert(clip.keypoints_px, "smpl45", "coco17")
        self.off, self.score = np.asarray(off, np.float32), score

    def detect(self, images, boxes_xyxy):
        assert images.dtype == np.uint8 and boxes_xyxy.shape == (len(images), 4)
        points = self.points[: len(images)] + self.off[: len(images), None, None]
        return points, np.full(points.shape[:2], self.score)


OFF = (0.0, 0.1, 0.3, 0.05, 0.5)


def test_papers_rule_equals_a_float64_loop(make_clip):
    clip = make_clip()
    for reduce in ("sum", "mean"):
        errors = estimator_errors(clip, range(5), LabelReader(OFF), reduce, batch_size=2)
        for frame in range(5):
            predicted = clip.joints_cam[frame, :24].astype(float)
            predicted[1:, 0] += OFF[frame]
            total = 0.0
            for n in range(1, 24):
                offset = (predicted[n] - predicted[0]) - (clip.joints_cam[frame, n] - clip.joints_cam[frame, 0])
                total += np.sqrt((offset**2).sum())
            assert errors[frame] == pytest.approx(total if reduce == "sum" else total / 23, abs=1e-5)


def test_estimator_mode_drops_frames_above_the_threshold(make_clip):
    kept = list(ClipFilter(LabelReader(OFF), threshold=0.2).filter([make_clip()]))
    assert kept[0].keep.tolist() == [True, True, False, True, False]


def test_other_skeletons_share_joints(make_clip):
    errors = estimator_errors(make_clip(), range(5), LabelReader(OFF, "h36m17"))
    np.testing.assert_allclose(errors, OFF, atol=1e-4)


def test_an_answer_with_nan_is_dropped(make_clip):
    filtered = ClipFilter(LabelReader((0, np.nan, 0, 0, 0)), threshold=0.2).filter([make_clip()])
    assert next(iter(filtered)).keep.tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("measure", ["oks", "pck"])
def test_detector_mode(make_clip, measure):
    clip = make_clip()
    detector = Detector(clip, (0, 0, 30, 0, 30))
    kept = next(iter(ClipFilter(detector, measure=measure).filter([clip])))
    assert kept.keep.tolist() == [True, True, False, True, False]
    assert detector_scores(clip, range(5), detector, measure)[0] == pytest.approx(1)
    unsure = Detector(clip, np.zeros(5), score=0.1)
    assert detector_scores(clip, range(5), unsure, measure).max() == 0


def test_impossible_labels_are_dropped_whatever_the_judge_says(make_clip):
    clip = make_clip()
    keypoints, joints = clip.keypoints_px.copy(), clip.joints_cam.copy()
    keypoints[0] += 500
    joints[1, 3] = np.nan
    mask = clip.mask.copy()
    mask[2] = False
    mask[2, 5:9, 5:9] = True
    joints[3, :, 2] *= -1
    broken = make_clip(keypoints_px=keypoints, joints_cam=joints, mask=mask)
    assert label_problems(broken) == [
        "person outside the image",
        "labels are not finite",
        "person too small",
        "person outside the image",
        None,
    ]
    filtered = ClipFilter().filter([broken])
    assert next(iter(filtered)).keep.tolist() == [False, False, False, False, True]
    assert filtered.statistics()["reasons"]["person outside the image"] == 2


def test_lazy_remembered_and_counted(make_clip):
    judge = LabelReader(OFF)
    seen = []

    def clips():
        for name in "abc":
            seen.append(name)
            yield make_clip(name, person_id=f"p{name}")

    filtered = ClipFilter(judge, threshold=0.2).filter(clips())
    next(iter(filtered))
    assert seen == ["a"]
    with pytest.raises(InputError, match="generator"):
        list(filtered)
    stored = [make_clip("a"), make_clip("b")]
    filtered = ClipFilter(judge, threshold=0.2).filter(stored)
    judge.seen = 0
    assert len(list(filtered)) == len(list(filtered)) == 2 and judge.seen == 10
    statistics = filtered.statistics()
    assert statistics["frames"] == 10 and statistics["frames_kept"] == 6 and statistics["yield"] == 0.6
    assert statistics["reasons"] == {"estimator disagrees": 4}
    assert statistics["per_clip"][0]["kept"] == 3
    json.dumps(statistics)


def test_empty_clips_are_left_out_but_counted(make_clip):
    clips = [make_clip("a"), make_clip("b", keep=np.zeros(5, bool))]
    filtered = ClipFilter().filter(clips)
    assert [clip.clip_id for clip in filtered] == ["a"]
    assert filtered.statistics()["clips"] == 2 and filtered.statistics()["clips_kept"] == 1
    assert len(list(ClipFilter().filter(clips, drop_empty=False))) == 2


def test_frames_dropped_before_stay_dropped(make_clip):
    keep = np.array([0, 1, 1, 1, 1], bool)
    filtered = ClipFilter(LabelReader(OFF), threshold=0.2).filter([make_clip(keep=keep)])
    assert next(iter(filtered)).keep.tolist() == [False, True, False, True, False]
    assert filtered.statistics()["reasons"]["dropped before"] == 1


def test_a_store_remembers_its_masks(tmp_path, make_clip):
    write_clips(tmp_path, [make_clip("a"), make_clip("b")])
    statistics = ClipFilter(LabelReader(OFF), threshold=0.2).filter(ClipStore(tmp_path)).run()
    assert statistics["frames_kept"] == 6 and len(RenderedClips(tmp_path)) == 6


@pytest.mark.parametrize("quantile", [0.4, 0.6, 1.0])
def test_calibration_keeps_the_wanted_share(make_clip, quantile):
    clip = make_clip()
    for judge in (LabelReader(OFF), Detector(clip, (0, 1, 2, 3, 4))):
        rule = ClipFilter(judge).calibrate([clip], quantile)
        kept = sum(clip.keep.sum() for clip in rule.filter([clip]))
        assert kept >= quantile * 5 and kept <= quantile * 5 + 1
    with pytest.raises(InputError):
        ClipFilter(LabelReader(OFF)).calibrate([])
    with pytest.raises(InputError):
        ClipFilter().calibrate([clip])


def test_calibrated_clips_are_judged_once(make_clip, monkeypatch):
    clips, calls = [make_clip("a"), make_clip("b", seed=1)], []
    judge = LabelReader(OFF)
    predict = judge.predict
    monkeypatch.setattr(judge, "predict", lambda persons: calls.append(len(persons)) or predict(persons))
    rule = ClipFilter(judge).calibrate(clips, 1.0)
    calibration = len(calls)
    masks = [clip.keep for clip in rule.filter(clips)]
    assert len(calls) == calibration and all(mask.all() for mask in masks)
    fresh = ClipFilter(judge, threshold=rule.threshold)
    assert [list(clip.keep) for clip in fresh.filter(clips)] == [list(mask) for mask in masks]
    # The same name with other pictures is another clip.
    list(rule.filter([replace(clips[0], frames=255 - clips[0].frames)]))
    assert len(calls) > 2 * calibration


def test_bad_arguments(make_clip):
    for options in (
        {"judge": object()},
        {"judge": LabelReader(OFF), "mode": "detector"},
        {"mode": "estimator"},
        {"mode": "taste"},
        {"judge": LabelReader(OFF), "threshold": -1},
        {"judge": LabelReader(OFF), "min_inside": -1},
        {"judge": LabelReader(OFF), "device": "gpu"},
        {"judge": LabelReader(OFF), "settings": 0.2},
        {"judge": LabelReader(OFF), "reduce": "max"},
    ):
        with pytest.raises(InputError):
            ClipFilter(**options)
    with pytest.raises(InputError, match=r"no 'treshold'.*[Dd]id you mean threshold"):
        ClipFilter(LabelReader(OFF), treshold=0.2)
    with pytest.raises(InputError, match="quantile"):
        ClipFilter(LabelReader(OFF)).calibrate([make_clip()], 1.5)
    with pytest.raises(InputError, match=r"no default threshold.*[Pp]ass threshold"):
        list(ClipFilter(LabelReader(OFF), reduce="sum").filter([make_clip()]))

    class Short(Detector):
        def detect(self, images, boxes_xyxy):
            return np.zeros((1, 17, 2)), np.zeros((1, 17))

    with pytest.raises(InputError, match="keypoints"):
        list(ClipFilter(Short(make_clip(), OFF)).filter([make_clip()]))


def test_settings_and_single_changes_are_one(make_clip):
    settings = FilterSettings(threshold=0.2, reduce="mean", batch_size=2, quantile=0.6)
    one = ClipFilter(LabelReader(OFF), settings)
    other = ClipFilter(LabelReader(OFF), threshold=0.2, batch_size=2, quantile=0.6)
    assert one.settings == other.settings == settings and one.threshold == 0.2
    assert ClipFilter(LabelReader(OFF), settings, threshold=0.4).settings.quantile == 0.6
    # The quantile of the settings is the one of a calibration.
    clip = make_clip()
    assert one.calibrate([clip]).threshold == one.calibrate([clip], 0.6).threshold == pytest.approx(0.3, abs=1e-5)
    assert ClipFilter(LabelReader(OFF)).calibrate([clip]).settings.quantile == 0.95


def test_a_sum_over_joints_is_calibrated(make_clip):
    rule = ClipFilter(LabelReader(OFF), reduce="sum").calibrate([make_clip()], 0.6)
    assert rule.settings.reduce == "sum" and rule.threshold == pytest.approx(23 * 0.3, abs=1e-4)
    assert next(iter(rule.filter([make_clip()]))).keep.sum() == 4


def test_a_filter_that_drops_everything_says_why(make_clip, tmp_path):
    clips = [make_clip("a", keypoints_px=make_clip().keypoints_px + 500), make_clip("b")]
    rule = ClipFilter(LabelReader(np.ones(5)), threshold=0.2)
    reason = r"none of 10 frames of 2 clips \(estimator disagrees: 5, person outside the image: 5; threshold 0.2\)"
    with pytest.warns(UserWarning, match=reason):
        statistics = rule.filter(clips).run()
    assert statistics["frames_kept"] == 0
    with pytest.warns(UserWarning, match="kept none"):
        assert list(rule.filter(clips)) == []


@pytest.mark.filterwarnings("ignore:the device's memory is full")
@pytest.mark.parametrize("mode", ["estimator", "detector"])
def test_a_judge_that_fills_the_memory_gets_fewer_frames(make_clip, monkeypatch, mode):
    clip, sizes = make_clip(), []
    judge = LabelReader(OFF) if mode == "estimator" else Detector(clip, np.zeros(5))
    name = "predict" if mode == "estimator" else "detect"
    ask = getattr(judge, name)

    def fills(items, *rest):
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return ask(items, *rest)

    expected = ClipFilter(judge).decide(clip)[1].values
    monkeypatch.setattr(judge, name, fills)
    found = ClipFilter(judge).decide(clip)[1].values
    assert sizes == [5, 3, 2, 2, 1]
    if mode == "estimator":
        np.testing.assert_array_equal(found, expected)


def test_the_judge_runs_on_its_device(make_clip):
    clip, body = make_clip(size=96), load_body(size="small")
    torch.manual_seed(0)
    judge = HMR.small(body=body).eval()
    expected = ClipFilter(judge).decide(clip)[1].values
    with SpyingDevice():
        rule = ClipFilter(judge, device=SPY)
        assert device_of(rule.judge) == device_of(body) == SPY
        np.testing.assert_array_equal(rule.decide(clip)[1].values, expected)
        assert device_of(ClipFilter(judge).judge) == SPY


class Related(Detector):
    """Of a family."""

    def __init__(self, clip, family) -> None:
        super().__init__(clip, OFF)
        self.name, self.family = "related", family


def test_nobody_judges_itself(make_clip):
    clip = make_clip()
    reader = LabelReader(OFF)
    lifter = LabelReader(OFF)
    lifter.detector = Related(clip, "movenet")
    blaze = LabelReader(OFF)
    blaze.spec = replace(blaze.spec, name="blazepose_lite", family="blazepose")
    one = r"detector and the estimator that is improved are one network \({}\).* another detector"
    for judge, improved, shared in (
        (EstimatorKeypointDetector(reader), reader, "reader"),
        (Related(clip, "reader"), reader, "reader"),
        (Related(clip, "blazepose"), blaze, "blazepose"),
        (EstimatorKeypointDetector(blaze), blaze, "blazepose"),
        (Related(clip, "movenet"), lifter, "movenet"),  # it only knows what this detector told it
    ):
        with pytest.raises(InputError, match=one.format(shared)):
            ClipFilter(judge, improves=improved)
        ClipFilter(judge)  # nobody said what is improved
    # Independent ones, one of which says nothing of itself; and the paper's own rule.
    for judge, improved in (
        (Related(clip, "movenet"), blaze),
        (Related(clip, "blazepose"), reader),
        (Detector(clip, OFF), reader),
        (reader, reader),
        (EstimatorKeypointDetector(reader), blaze),
    ):
        ClipFilter(judge, improves=improved)


def test_a_detector_filters_a_stored_folder(make_clip, tmp_path):
    from posesyn.pipeline import stages

    clip = make_clip()
    write_clips(tmp_path, [clip])
    settings = FilterSettings(threshold=0.5)
    kept = stages.filter_clips(tmp_path, settings, judge=Detector(clip, (0, 1, 200, 0, 300)), progress=False)
    assert len(kept) == 3
    result = json.loads((tmp_path / stages.FILTERED).read_text())
    assert result["mode"] == "detector" and result["reasons"] == {"detector disagrees": 2}
    # Another judge starts from all frames; the one that is improved is refused before anything is forgotten.
    with pytest.raises(InputError, match="one network"):
        stages.filter_clips(
            tmp_path, settings, judge=Related(clip, "reader"), improves=LabelReader(OFF), progress=False
        )
    assert json.loads((tmp_path / stages.FILTERED).read_text()) == result
    other = Related(clip, "movenet")
    other.off = np.zeros(5, np.float32)
    assert len(stages.filter_clips(tmp_path, settings, judge=other, progress=False)) == 5
