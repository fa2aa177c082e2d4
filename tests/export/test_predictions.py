"""Predictions as a table and as arrays, read as their users read them."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import posesyn as ps
from posesyn.errors import FileError, InputError
from posesyn.export import save_predictions
from posesyn.types import ArrayImage


def persons(count: int = 3) -> list[ps.Person]:
    image = ArrayImage(np.zeros((60, 80, 3), np.uint8))
    names = ["a.jpg#1", "=cmd()#1", "b.jpg#1"]
    return [
        ps.Person(
            names[row], image, np.array([-2.5, 5, 30 + row, 55]), np.zeros((17, 2)), np.zeros(17), "coco17",
            image_id=names[row][:-2], detection_score=None if row == 2 else 0.5 + row / 4, detected_by="mine",
        )
        for row in range(count)
    ]  # fmt: skip


def batch(names, skeleton="coco17", **changes) -> ps.PoseBatch:
    rng = np.random.default_rng(len(names))
    joints = len(ps.skeletons.skeleton.get(skeleton))
    return ps.PoseBatch(
        tuple(names), skeleton, rng.normal(size=(len(names), joints, 3)), rng.normal(size=(len(names), joints, 2)),
        **changes,
    )  # fmt: skip


def test_a_row_and_an_entry_per_person(tmp_path):
    people = persons()
    first, last = batch([one.person_id for one in people[:2]]), batch([people[2].person_id])
    save_predictions(tmp_path / "new", people, [first, last], "mine")
    with open(tmp_path / "new/predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # A name that a spreadsheet would run has an apostrophe in front; a negative number has none.
    assert [row["image"] for row in rows] == ["a.jpg", "'=cmd()", "b.jpg"]
    assert [row["score"] for row in rows] == ["0.5000", "0.7500", ""] and float(rows[0]["x0"]) == -2.5
    with np.load(tmp_path / "new/predictions.npz", allow_pickle=False) as arrays:
        content = dict(arrays)
    assert content["person_ids"].tolist() == [one.person_id for one in people]
    assert content["joints_cam"].shape == (3, 17, 3) and content["keypoints_px"].dtype == np.float32
    np.testing.assert_allclose(content["joints_cam"][2], last.joints_cam[0], rtol=1e-6)
    # No pelvis in COCO: the root is the middle of the hips.
    names = content["joint_names"].tolist()
    hips = content["joints_cam"][:, [names.index("left_hip"), names.index("right_hip")]].mean(1)
    got = [[float(row[f"root_{axis}_m"]) for axis in "xyz"] for row in rows]
    np.testing.assert_allclose(got, hips, atol=1e-4)
    assert str(content["estimator"]) == "mine" and str(content["skeleton"]) == "coco17"
    assert np.isnan(content["detection_scores"]).tolist() == [False, False, True]
    assert "intrinsics" not in content and "keypoint_scores" not in content


def test_what_the_estimator_says_beside_is_kept(tmp_path):
    people = persons(2)
    extra = {"scores": np.full((2, 17), 0.5), "intrinsics": np.tile(np.eye(3), (2, 1, 1))}
    save_predictions(tmp_path, people, [batch([one.person_id for one in people], **extra)])
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["keypoint_scores"].shape == (2, 17) and arrays["intrinsics"].shape == (2, 3, 3)


def test_predictions_of_others_are_refused(tmp_path):
    people = persons(2)
    names = [one.person_id for one in people]
    for wrong in ([], [batch(names[::-1])], [batch(names[:1])], [batch(names[:1]), batch(names[1:], "smpl24")]):
        with pytest.raises(InputError, match="must belong to the persons"):
            save_predictions(tmp_path, people, wrong)
    with pytest.raises(InputError, match="at least one person"):
        save_predictions(tmp_path, [], [])
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="could not make a folder"):
        save_predictions(tmp_path / "file", people, [batch(names)])
