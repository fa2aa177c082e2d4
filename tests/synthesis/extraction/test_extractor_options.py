"""What the extractor does beyond the paper, each switched on alone."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from posesyn import skeletons
from posesyn.data.persons.coco import CocoKeypoints
from posesyn.errors import InputError, RunError
from posesyn.interfaces import EstimatorSpec
from posesyn.metrics.pose2d_error import occlusion_weights, person_size
from posesyn.storage.images import ImageFile
from posesyn.storage.reports import load_report
from posesyn.synthesis.extraction.export import export_coco, export_csv
from posesyn.synthesis.extraction.extractor import ErrorExtractor
from posesyn.synthesis.extraction.scoring import disagreement_mm, select_diverse
from posesyn.types import Person, PoseBatch

COCO = skeletons.get("coco17")


class Off:
    """Answers with the annotation moved at one joint by ``meta["off"]`` pixels; 3D is the same plus ``depth``."""

    def __init__(self, name="off", joint="left_wrist", depth=0.0, stop_after=None):
        self.spec = EstimatorSpec(name, skeleton="coco17")
        self.joint, self.depth, self.stop_after, self.calls = joint, depth, stop_after, 0

    def predict(self, persons):
        if self.stop_after is not None and self.calls >= self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        points = np.stack([person.keypoints_px for person in persons]).copy()
        row = COCO.index(self.joint)
        points[:, row] += np.array([[person.meta["off"]] for person in persons])
        cam = np.concatenate((points / 100, np.zeros_like(points[..., :1])), -1)
        cam[:, row, 2] = self.depth * np.array([person.meta["off"] for person in persons])
        return PoseBatch(tuple(person.person_id for person in persons), "coco17", cam.astype("f4"), points)


def extractor(estimator, hard, easy, **options):
    return ErrorExtractor(estimator, num_challenging=hard, num_non_challenging=easy, **options)


@pytest.fixture
def persons(tmp_path, rng):
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / "a.png")

    def make(count=20, **fields):
        base = rng.uniform(10, 50, (17, 2))
        values = {"image_id": "a", "captions": ("=cmd()",)}
        return [
            Person(
                f"set/{i:05d}", ImageFile(tmp_path / "a.png"), np.array([5, 5, 55, 55]), base, np.ones(17, bool),
                "coco17", **{**values, "meta": {"off": (i * 7) % count}, **fields},
            )
            for i in range(count)
        ]  # fmt: skip

    return make


def ids(items):
    return [item.person.person_id for item in items]


def test_keeping_only_the_selected_gives_the_same_selection(persons, tmp_path):
    everyone = persons(200)
    whole = extractor(Off(), 7, 5, batch_size=8).extract(everyone, progress=False)
    options = {"batch_size": 8, "keep": "selected"}
    few = extractor(Off(), 7, 5, **options).extract(everyone, progress=False, out=tmp_path / "out")
    assert ids(few.challenging) == ids(whole.challenging) and ids(few.non_challenging) == ids(whole.non_challenging)
    assert [i.rank for i in few.scored] == [*range(7), *range(195, 200)] and few.settings["persons_scored"] == 200
    table = pd.read_parquet(tmp_path / "out" / "errors.parquet")
    assert table["person_id"].tolist() == ids(whole.scored) and table["rank"].tolist() == list(range(200))
    again = load_report(tmp_path / "out")
    assert ids(again.challenging) == ids(whole.challenging)
    for total in (3, 12, 15):  # fewer persons than both selections ask for
        some = everyone[:total]
        a = extractor(Off(), 7, 5).extract(some, progress=False)
        b = extractor(Off(), 7, 5, keep="selected").extract(some, progress=False)
        assert ids(a.challenging) == ids(b.challenging) and ids(a.non_challenging) == ids(b.non_challenging)


def test_a_stopped_run_that_keeps_the_selected_resumes(persons, tmp_path):
    everyone = persons(40)
    options = {"batch_size": 4, "keep": "selected"}
    whole = extractor(Off(), 5, 3, **options).extract(everyone, progress=False)
    with pytest.raises(KeyboardInterrupt):
        extractor(Off(stop_after=6), 5, 3, **options).extract(everyone, progress=False, out=tmp_path / "o")
    rest = Off()
    report = extractor(rest, 5, 3, **options).extract(everyone, progress=False, out=tmp_path / "o")
    assert rest.calls == 4 and ids(report.scored) == ids(whole.scored)
    with pytest.raises(RunError, match="occluded_weight"):
        extractor(Off(), 5, 3, occluded_weight=0, **options).extract(everyone, progress=False, out=tmp_path / "o")


def test_memory_does_not_grow_with_the_data_set(persons):
    """A lazy data set, 64 kept: only names and scores accumulate."""
    base = persons(1)[0]

    class Lazy:
        def __init__(self, count):
            self.person_ids = [f"p/{i:06d}" for i in range(count)]

        def __len__(self):
            return len(self.person_ids)

        def __getitem__(self, row):
            name = self.person_ids[row]
            return replace(base, person_id=name, keypoints_px=base.keypoints_px.copy(), meta={"off": (row * 31) % 97})

    def peak(count, keep):
        one = extractor(Off(), 16, 8, keep=keep, batch_size=64)
        data = Lazy(count)
        tracemalloc.start()
        one.extract(data, progress=False)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(64, "selected")
    small, large = peak(200, "selected"), peak(600, "selected")
    everything = peak(600, "all") - peak(200, "all")
    # Names, scores and ranks stay (550 to 630 bytes a person, measured); keeping all keeps a prediction each (2,270).
    # Half lies well between the two: what the interpreter itself keeps moves the smaller figure by a tenth.
    assert large - small < everything / 2


def test_processes_read_the_same_pixels(persons, tmp_path):
    everyone = persons(6)
    (tmp_path / "bad.png").write_bytes(b"no image")
    everyone[2] = replace(everyone[2], image=ImageFile(tmp_path / "bad.png"))
    threads = extractor(Off(), 2, 1, batch_size=2).extract(everyone, progress=False)
    processes = extractor(Off(), 2, 1, batch_size=2, num_processes=1).extract(everyone, progress=False)
    assert ids(threads.scored) == ids(processes.scored) and threads.skipped == processes.skipped
    assert [i.error for i in threads.scored] == [i.error for i in processes.scored]


def test_diverse_selection_is_not_copies_of_one_pose(rng):
    """Ten copies of the worst pose, then ten poses of their own: by rank only copies, by diversity nearly none."""
    from posesyn.types import ArrayImage, ScoredPerson

    image = ArrayImage(np.zeros((4, 4, 3), np.uint8))
    worst = rng.uniform(0, 100, (17, 2))
    items = []
    for i in range(20):
        pose = worst * 2 + 30 if i < 10 else rng.uniform(0, 100, (17, 2))
        person = Person(f"p{i:02d}", image, np.array([0, 0, 99, 99]), pose, np.ones(17, bool), "coco17")
        batch = PoseBatch((person.person_id,), "coco17", np.zeros((1, 17, 3)), pose[None])
        items.append(ScoredPerson(person, batch, 1.0 - 0.01 * i, np.zeros(17), np.ones(17, bool)))
    chosen = select_diverse(items, 8)
    assert chosen[0] == 0 and sum(i < 10 for i in chosen) == 1 and len(set(chosen)) == 8
    assert sorted(select_diverse(items, 12))[:2] == [0, 1], "copies come when nothing else is left"
    assert select_diverse(items, 30) == list(range(20)) and select_diverse(items, 8) == chosen


def test_diverse_selection_in_the_extractor(persons, rng):
    everyone = persons(40)
    for i, person in enumerate(everyone):
        if person.meta["off"] < 30:
            everyone[i] = replace(person, keypoints_px=rng.uniform(10, 50, (17, 2)))
    by_rank = extractor(Off(), 8, 4).extract(everyone, progress=False)
    for keep in ("all", "selected"):
        diverse = extractor(Off(), 8, 4, selection="diverse", keep=keep).extract(everyone, progress=False)
        assert ids(diverse.challenging)[0] == ids(by_rank.challenging)[0]
        assert sum(item.person.meta["off"] < 30 for item in diverse.challenging) >= 5
        assert [i.rank for i in diverse.challenging] == sorted(i.rank for i in diverse.challenging)
        assert not set(ids(diverse.challenging)) & set(ids(diverse.non_challenging))
        assert diverse.settings["selection"] == "diverse"
    assert all(item.person.meta["off"] >= 30 for item in by_rank.challenging)
    assert "selection" not in by_rank.settings


def test_disagreement(persons, tmp_path):
    everyone = persons(10)
    others = [Off("deep", depth=0.05)]
    report = extractor(Off(), 3, 2, others=others, rank_by="disagreement").extract(
        everyone, progress=False, out=tmp_path / "out"
    )
    assert [item.person.meta["off"] for item in report.scored] == list(range(9, -1, -1))
    assert report.scored[-1].disagreement_mm == pytest.approx(0, abs=1e-3) and report.scored[0].disagreement_mm > 1
    loaded = load_report(tmp_path / "out")
    assert [i.disagreement_mm for i in loaded.scored] == pytest.approx([i.disagreement_mm for i in report.scored])
    assert report.settings["rank_by"] == "disagreement" and report.settings["others"][0][0] == "deep"
    by_error = extractor(Off(), 3, 2, others=others).extract(everyone, progress=False)
    assert by_error.scored[0].disagreement_mm is not None
    batch = Off().predict(everyone)
    turned = replace(batch, joints_cam=(1.3 * batch.joints_cam[..., [1, 0, 2]] * [1, -1, 1]).astype("f4"))
    np.testing.assert_allclose(disagreement_mm([batch, turned]), 0, atol=1e-3)
    deep = replace(batch, joints_cam=batch.joints_cam + np.linspace(-0.3, 0.3, 17)[:, None] ** 2 * np.eye(3)[2])
    mirrored = replace(deep, joints_cam=deep.joints_cam * [-1, 1, 1])
    assert (disagreement_mm([deep, mirrored]) > 10).all(), "a mirrored pose is another pose"
    with pytest.raises(InputError, match="at least two"):
        disagreement_mm([batch])
    with pytest.raises(InputError, match="second estimator"):
        ErrorExtractor(Off(), rank_by="disagreement")


def test_normalisers_and_hidden_joints():
    points = np.zeros((17, 2))
    for joint, place in {
        "left_shoulder": (20, 10), "right_shoulder": (10, 10), "left_hip": (18, 50), "right_hip": (12, 50),
    }.items():  # fmt: skip
        points[COCO.index(joint)] = place
    seen = np.ones(17, bool)
    box = np.array([0, 0, 60, 100])
    assert person_size(box, points, seen, "torso", "coco17") == pytest.approx(40)
    assert person_size(box, points, seen, "head", "coco17") == 0, "COCO has no head top"
    assert person_size(box, points, seen, "head", "coco17", head_size=12) == 12
    assert person_size(box, points, seen, "head", "coco17", head_size=1) == 5, "never less than a share of the box"
    lsp = np.zeros((14, 2))
    lsp[13], lsp[12] = (10, 0), (10, 20)
    assert person_size(box, lsp, np.ones(14, bool), "head", "lsp14") == 20
    hidden = seen.copy()
    hidden[COCO.index("left_hip")] = False
    assert person_size(box, points, hidden, "torso", "coco17") == 0
    with pytest.raises(InputError):
        person_size(box, points, seen, "torso")
    from posesyn.types import ArrayImage

    image = ArrayImage(np.zeros((100, 60, 3), np.uint8))
    flags = np.zeros(17, bool)
    flags[3] = True
    moved = points.copy()
    moved[0] = (70, 5)
    person = Person("p", image, box, moved, seen, "coco17", occluded=flags)
    weights = occlusion_weights(person, (60, 100), 0.25, 0.5, np.array([[9, 9, 21, 11]]))
    assert weights[0] == weights[3] == 0.25 and weights[5] == weights[6] == 0.5 and weights[11] == 1
    with pytest.raises(InputError, match="occluded"):
        replace(person, occluded=[True])


def test_masked_joints_do_not_count(persons):
    wrist = COCO.index("left_wrist")
    flags = np.zeros(17, bool)
    flags[wrist] = True
    everyone = [replace(p, occluded=flags) for p in persons(6)]
    masked = extractor(Off(), 2, 1, occluded_weight=0).extract(everyone, progress=False)
    assert max(item.error for item in masked.scored) == pytest.approx(0, abs=1e-6)
    assert not masked.scored[0].joint_used[wrist] and masked.settings["occluded_weight"] == 0
    assert extractor(Off(), 2, 1).extract(everyone, progress=False).scored[0].error > 0
    crowd = persons(2)
    crowd[1] = replace(crowd[1], box_xyxy=np.array([0, 0, 60, 60]))
    crowded = extractor(Off(), 1, 1, crowded_weight=0).extract(
        [*crowd, replace(persons(1)[0], person_id="x", image_id="b")], progress=False
    )
    assert ids(crowded.scored) == ["x"] or len(crowded.skipped) >= 1, (
        "every joint of the first lies in the second's box"
    )
    torso = extractor(Off(), 2, 1, normalizer="torso").extract(everyone, progress=False)
    assert torso.settings["normalizer"] == "torso"
    with pytest.raises(InputError, match="does not show its head"):
        extractor(Off(), 2, 1, normalizer="head").extract(everyone, progress=False)


def test_exports_for_other_tools(persons, tmp_path):
    flags = np.zeros(17, bool)
    flags[4] = True
    visible = np.ones(17, bool)
    visible[8] = False
    everyone = [replace(p, visible=visible, occluded=flags) for p in persons(10)]
    report = extractor(Off(), 3, 2).extract(everyone, progress=False)
    export_coco(report.challenging, tmp_path / "hard.json", images=tmp_path)
    again = CocoKeypoints(tmp_path / "hard.json", tmp_path)
    assert len(again) == 3 and again.skeleton == "coco17"
    for ours, item in zip(again, report.challenging):
        np.testing.assert_allclose(ours.keypoints_px[visible], item.person.keypoints_px[visible], atol=1e-3)
        np.testing.assert_array_equal(ours.visible, visible)
        np.testing.assert_allclose(ours.box_xyxy, item.person.box_xyxy)
        assert np.flatnonzero(ours.occluded).tolist() == [4]
    content = json.loads((tmp_path / "hard.json").read_text())
    assert content["annotations"][0]["rank"] == 0 and content["annotations"][0]["person_id"] == ids(report.scored)[0]
    assert content["images"] == [{"id": 1, "file_name": "a.png", "width": 80, "height": 60}]
    export_csv(report, tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["person_id"].tolist() == [*ids(report.challenging), *ids(report.non_challenging)[::-1]]
    assert table["worst_joint"][0] == "left_wrist" and table["caption"][0] == "'=cmd()"
    export_csv(report, tmp_path / "all.csv", only_selected=False)
    assert len(pd.read_csv(tmp_path / "all.csv")) == 10
    with pytest.raises(InputError, match="no persons"):
        export_coco([], tmp_path / "x.json")
    with pytest.raises(InputError, match="outside the folder"):
        export_coco(report.challenging, tmp_path / "x.json", images=tmp_path / "elsewhere")
