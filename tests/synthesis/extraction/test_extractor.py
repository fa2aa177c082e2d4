"""Extraction with an estimator that answers with the truth plus noise of known size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from posesyn import skeletons
from posesyn.data.persons.coco import CocoKeypoints
from posesyn.data.persons.mpii import MpiiKeypoints
from posesyn.errors import FileError, InputError, RunError
from posesyn.interfaces import EstimatorSpec
from posesyn.settings.stages import ExtractionSettings
from posesyn.storage.files import write_json
from posesyn.storage.images import ImageFile
from posesyn.storage.reports import load_report, report_table, save_report
from posesyn.synthesis.extraction.extractor import ErrorExtractor
from posesyn.synthesis.extraction.scoring import split_sizes
from posesyn.types import ArrayImage, Person, PoseBatch


class NoisyTruth:
    """Knows the annotation; the wrists of person k are off by k pixels. Twenty lines are enough for an estimator."""

    def __init__(self, skeleton: str = "coco17", stop_after: int | None = None) -> None:
        self.spec = EstimatorSpec("noisy", skeleton=skeleton)
        self.calls: list[int] = []
        self.stop_after = stop_after

    def predict(self, persons):
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(len(persons))
        joints = len(skeletons.get(self.spec.skeleton))
        points = np.zeros((len(persons), joints, 2), np.float32)
        for row, person in enumerate(persons):
            assert isinstance(person.image, ArrayImage)
            points[row], _ = skeletons.convert(person.keypoints_px, person.skeleton, self.spec.skeleton)
            wrist = skeletons.get(self.spec.skeleton).index("left_wrist")
            points[row, wrist] += person.meta.get("off", 0)
        cam = np.concatenate((points, np.ones_like(points[..., :1])), -1)
        ids = tuple(person.person_id for person in persons)
        return PoseBatch(ids, self.spec.skeleton, cam, points, betas=np.zeros((len(persons), 10), np.float32))


def extractor(estimator, hard, easy, **options):
    return ErrorExtractor(estimator, num_challenging=hard, num_non_challenging=easy, **options)


@pytest.fixture
def persons(tmp_path, rng):
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / "ü.png")

    def make(count: int = 10) -> list[Person]:
        keypoints = rng.uniform(10, 50, (17, 2))
        return [
            Person(
                f"set/{index:03d}",
                ImageFile(tmp_path / "ü.png"),
                np.array([5, 5, 55, 55]),
                keypoints,
                np.ones(17, bool),
                "coco17",
                captions=("a <b>jump</b>",),
                image_id=f"set/{index}",
                meta={"off": (index * 7) % count},
            )
            for index in range(count)
        ]

    return make


def test_ranks_by_error_and_selects_both_ends(persons):
    report = extractor(NoisyTruth(), 3, 2, batch_size=4).extract(persons(10), progress=False)
    assert [item.person.meta["off"] for item in report.scored] == list(range(9, -1, -1))
    assert [item.rank for item in report.scored] == list(range(10))
    assert [item.rank for item in report.challenging] == [0, 1, 2]
    assert [item.rank for item in report.non_challenging] == [9, 8]
    assert report.scored[-1].error == pytest.approx(0, abs=1e-6)
    worst = report.scored[0]
    # Both coordinates off by 9 px in a box of 50 px; the wrist weighs 2 of 23.5.
    assert worst.joint_errors[9] == pytest.approx(18 / 50, rel=1e-5)
    weights = 5 * 0.5 + 4 + 4 * 1.5 + 4 * 2
    assert worst.error == pytest.approx(18 / 50 * 2 / weights, rel=1e-5)
    assert isinstance(worst.person.image, ImageFile), "pixels must not stay in memory"
    assert report.settings["estimator"] == "noisy" and report.settings["normalizer"] == "box"


def test_batches_and_threads_do_not_change_the_result(persons):
    everyone = persons(11)
    first = ErrorExtractor(NoisyTruth(), batch_size=1).extract(everyone, progress=False)
    second = ErrorExtractor(NoisyTruth(), batch_size=64, num_threads=4).extract(everyone[::-1], progress=False)
    assert [item.person.person_id for item in first.scored] == [item.person.person_id for item in second.scored]
    assert [item.error for item in first.scored] == [item.error for item in second.scored]


@pytest.mark.parametrize(
    ("total", "sizes"), [(1000, (500, 200)), (700, (500, 200)), (27, (19, 8)), (2, (1, 1)), (1, (1, 0)), (3, (2, 1))]
)
def test_nobody_is_in_both_selections(total, sizes):
    assert split_sizes(total, 500, 200) == sizes and sum(sizes) <= total
    assert split_sizes(total, 5, 0)[1] == 0


def test_skeletons_are_converted(persons):
    report = extractor(NoisyTruth("smpl45"), 3, 2).extract(persons(6), progress=False)
    assert report.scored[0].person.meta["off"] == 5
    assert report.scored[0].joint_used.sum() == 17 and report.scored[0].error > 0


def test_who_cannot_be_scored_is_listed(persons, tmp_path):
    everyone = persons(12)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    few = np.zeros(17, bool)
    few[:1] = True
    everyone[0] = replace(everyone[0], image=ImageFile(tmp_path / "cut.jpg"))
    everyone[1] = replace(everyone[1], visible=few)
    everyone[2] = replace(everyone[2], box_xyxy=np.array([500, 500, 600, 600]))
    everyone[3] = replace(everyone[3], visible=np.zeros(17, bool))
    report = ErrorExtractor(NoisyTruth()).extract(everyone, progress=False)
    reasons = dict(report.skipped)
    assert len(report) == 8 and len(reasons) == 4
    assert "cut.jpg" in reasons["set/000"] and "only 1 joints" in reasons["set/001"]
    assert "outside the image" in reasons["set/002"] and "only 0 joints" in reasons["set/003"]


def test_an_answer_with_nan_is_skipped(persons):
    class Nan(NoisyTruth):
        def predict(self, persons):
            batch = super().predict(persons)
            batch.keypoints_px[0, 3] = np.nan
            return batch

    report = ErrorExtractor(Nan(), batch_size=32).extract(persons(5), progress=False)
    assert len(report) == 4 and "NaN" in report.skipped[0][1]


def test_too_many_damaged_images_stop_the_run(persons, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    everyone = [replace(person, image=ImageFile(tmp_path / "bad.png")) for person in persons(10)]
    with pytest.raises(RunError, match=r"too many.*at most 1 of 10.*bad\.png"):
        ErrorExtractor(NoisyTruth()).extract(everyone, progress=False)
    with pytest.raises(InputError, match="no person could be scored"):
        ErrorExtractor(NoisyTruth(), error_budget=1.0).extract(everyone, progress=False)


def test_saved_reports_need_neither_data_set_nor_estimator(persons, tmp_path):
    everyone = persons(8)
    report = extractor(NoisyTruth(), 3, 2).extract(everyone, progress=False, out=tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "persons.parquet")
    assert table["rank"].tolist() == list(range(8)) and table["worst_joint"][0] == "left_wrist"
    assert table["selection"].value_counts().to_dict() == {"challenging": 3, "": 3, "non_challenging": 2}
    for again in (load_report(tmp_path / "out"), load_report(tmp_path / "out", everyone)):
        assert [i.person.person_id for i in again.challenging] == [i.person.person_id for i in report.challenging]
        assert [i.person.person_id for i in again.non_challenging] == [
            i.person.person_id for i in report.non_challenging
        ]
        for ours, theirs in zip(again.scored, report.scored):
            assert ours.error == theirs.error and ours.rank == theirs.rank
            np.testing.assert_array_equal(ours.prediction.keypoints_px, theirs.prediction.keypoints_px)
            np.testing.assert_array_equal(ours.prediction.betas, theirs.prediction.betas)
            np.testing.assert_array_equal(ours.person.keypoints_px, theirs.person.keypoints_px)
            assert ours.person.captions == theirs.person.captions and ours.person.meta == theirs.person.meta
            np.testing.assert_array_equal(ours.person.image.load(), theirs.person.image.load())
        assert again.skipped == report.skipped and again.settings == report.settings
    with pytest.raises(InputError, match="lacks a person"):
        load_report(tmp_path / "out", everyone[:2])


def test_pixels_in_memory_are_missed_when_they_are_asked_for(persons, tmp_path):
    everyone = [replace(p, image=ArrayImage(np.zeros((60, 80, 3), np.uint8), "m")) for p in persons(2)]
    save_report(ErrorExtractor(NoisyTruth()).extract(everyone, progress=False), tmp_path)
    loaded = load_report(tmp_path)
    with pytest.raises(FileError, match=r"ErrorReport\.load\(folder, persons\)"):
        loaded.scored[0].person.image.load()
    assert len(report_table(loaded)) == 2


def test_damaged_reports(persons, tmp_path):
    with pytest.raises(FileError):
        load_report(tmp_path)
    save_report(ErrorExtractor(NoisyTruth()).extract(persons(2), progress=False), tmp_path)
    (tmp_path / "persons.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match="table is damaged"):
        load_report(tmp_path)


def test_an_interrupted_extraction_resumes(persons, tmp_path):
    everyone = persons(10)
    whole = ErrorExtractor(NoisyTruth(), batch_size=3).extract(everyone, progress=False)
    first = NoisyTruth(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        ErrorExtractor(first, batch_size=3).extract(everyone, progress=False, out=tmp_path / "out")
    second = NoisyTruth()
    report = ErrorExtractor(second, batch_size=3).extract(everyone, progress=False, out=tmp_path / "out")
    assert first.calls == [3, 3] and second.calls == [3, 1]
    assert [(i.person.person_id, i.error) for i in report.scored] == [
        (i.person.person_id, i.error) for i in whole.scored
    ]
    third = NoisyTruth()
    again = ErrorExtractor(third, batch_size=3).extract(everyone, progress=False, out=tmp_path / "out")
    assert third.calls == [] and [i.error for i in again.scored] == [i.error for i in whole.scored]
    with pytest.raises(RunError, match="normalizer"):
        ErrorExtractor(NoisyTruth(), normalizer="area").extract(everyone, progress=False, out=tmp_path / "out")
    with pytest.raises(RunError, match="other samples"):
        ErrorExtractor(NoisyTruth()).extract(everyone[:5], progress=False, out=tmp_path / "out")


def test_a_folder_that_was_scored_otherwise_is_refused(persons, tmp_path):
    """The version before took the mean over at least two joints; its scores would not compare."""
    old = {"stage": "extract", "estimator": "noisy", "estimator_fingerprint": None, "min_joints": 2}
    paper = {"num_challenging": 4, "num_non_challenging": 2, "joint_weights": "limbs", "normalizer": "box"}
    write_json(tmp_path / "config.json", {**old, **paper})
    with pytest.raises(RunError, match=r"min_joints.*reduce"):
        extractor(NoisyTruth(), 4, 2).extract(persons(8), progress=False, out=tmp_path)


@pytest.mark.parametrize("other", [{"box_scale": 1.1}, {"antialias": "average"}, {"channels": "bgr"}, {"search": 1}])
def test_a_folder_of_another_crop_rule_is_refused(persons, tmp_path, other):
    """The weights are the same, what the network sees is not."""
    extractor(NoisyTruth(), 4, 2).extract(persons(8), progress=False, out=tmp_path / "o")
    changed = NoisyTruth()
    if "search" in other:
        changed.search = "box"
    else:
        changed.spec = replace(changed.spec, **other)
    with pytest.raises(RunError, match=rf"crop\.{next(iter(other))} \("):
        extractor(changed, 4, 2).extract(persons(8), progress=False, out=tmp_path / "o")
    # What is only told about the predictions may differ.
    same = NoisyTruth()
    same.spec = replace(same.spec, focal_length=1000.0)
    assert len(extractor(same, 4, 2).extract(persons(8), progress=False, out=tmp_path / "o")) == 8


def test_settings_come_as_one_object_or_by_name(persons):
    settings = ExtractionSettings(num_challenging=3, num_non_challenging=2, normalizer="area")
    one = ErrorExtractor(NoisyTruth(), settings)
    assert one.settings is settings and ErrorExtractor(NoisyTruth()).settings == ExtractionSettings()
    same = extractor(NoisyTruth(), 3, 2, normalizer="area", batch_size=3, num_threads=1)
    assert same.identity() == one.identity(), "what only decides the speed identifies no run"
    done = []
    same.extract(persons(8), progress=False, on_batch=lambda *counts: done.append(counts))
    assert done == [(3, 8), (6, 8), (8, 8)]
    with pytest.raises(InputError, match=r"no 'num_chalenging'.*[Dd]id you mean num_challenging"):
        ErrorExtractor(NoisyTruth(), num_chalenging=3)
    with pytest.raises(InputError, match="must be ExtractionSettings"):
        ErrorExtractor(NoisyTruth(), 100)


def test_skipped_persons_stand_in_the_data_sets_order(persons, tmp_path):
    """Whatever the batches, and whether or not the run was interrupted."""
    everyone = [replace(p, visible=np.arange(17) < (1 if i % 3 else 17)) for i, p in enumerate(persons(12))]
    everyone[6] = replace(everyone[6], keypoints_px=np.full((17, 2), 20.0))  # found only when it is scored
    options = {"normalizer": "keypoints", "num_challenging": 2, "num_non_challenging": 1}
    whole = ErrorExtractor(NoisyTruth(), **options).extract(everyone, progress=False)
    options["batch_size"] = 4
    with pytest.raises(KeyboardInterrupt):
        ErrorExtractor(NoisyTruth(stop_after=2), **options).extract(everyone, progress=False, out=tmp_path / "o")
    rest = ErrorExtractor(NoisyTruth(), **options).extract(everyone, progress=False, out=tmp_path / "o")
    assert rest.skipped == whole.skipped and [name for name, _ in whole.skipped] == sorted(dict(whole.skipped))
    assert len(whole.skipped) == 9 and "no extent" in dict(whole.skipped)["set/006"]


def test_bad_arguments(persons):
    with pytest.raises(InputError, match="no persons"):
        ErrorExtractor(NoisyTruth()).extract([], progress=False)
    with pytest.raises(InputError, match="same name"):
        ErrorExtractor(NoisyTruth()).extract([persons(1)[0]] * 2, progress=False)
    with pytest.raises(InputError, match="CallableEstimator"):
        ErrorExtractor(lambda persons: persons)
    for options in ({"num_challenging": 0}, {"batch_size": 0}, {"normalizer": "hand"}, {"min_joints": 0}):
        with pytest.raises(InputError):
            ErrorExtractor(NoisyTruth(), **options)

    class Shuffled(NoisyTruth):
        def predict(self, persons):
            return super().predict(persons[::-1])

    with pytest.raises(InputError, match="in their order"):
        ErrorExtractor(Shuffled()).extract(persons(3), progress=False)


def test_real_photos_are_ranked_in_full(shared, tmp_path):
    folder = shared / "data" / "images"
    coco = CocoKeypoints(folder / "coco" / "annotations.json", folder / "coco")
    mpii = MpiiKeypoints(folder / "mpii" / "annotations.json", folder / "mpii")
    for name, data in (("coco", coco), ("mpii", mpii)):
        report = ErrorExtractor(NoisyTruth("smpl45"), min_joints=2).extract(data, progress=False, out=tmp_path / name)
        assert len(report) + len(report.skipped) == len(data)
        assert len(load_report(tmp_path / name)) == len(report) >= 3
