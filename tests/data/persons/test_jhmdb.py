from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy.io import savemat

from posesyn.data.persons.coco import CocoKeypoints
from posesyn.data.persons.jhmdb import Jhmdb
from posesyn.errors import FileError, InputError


@pytest.fixture
def files(tmp_path, rng, picture):
    points = {}
    for action, video in (("catch", "Ball_1"), ("catch", "Ball_2"), ("run", "Park")):
        folder = tmp_path / "joint_positions" / action / video
        folder.mkdir(parents=True)
        points[video] = rng.uniform(5, 40, (2, 15, 3))
        savemat(
            folder / "joint_positions.mat", {"pos_img": points[video], "pos_world": np.zeros((2, 15, 3)), "scale": 1}
        )
        for frame in (1, 2, 3):
            picture(tmp_path / "Rename_Images" / action / video / f"{frame:05d}.png")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "catch_test_split1.txt").write_text("Ball_1.avi 1\nBall_2.avi 2\n")
    (tmp_path / "splits" / "run_test_split1.txt").write_text("Park.avi 2 \n")
    return tmp_path, points


def test_videos_are_tracks(files):
    folder, points = files
    persons = Jhmdb(folder / "joint_positions", folder / "Rename_Images")
    assert len(persons) == 9 and persons.skeleton == "jhmdb15"
    person = persons[1]
    assert person.person_id == "jhmdb/catch/Ball_1@00002" and person.track_id == "jhmdb/catch/Ball_1"
    np.testing.assert_allclose(person.keypoints_px, points["Ball_1"][:, :, 1].T - 1, rtol=1e-4)
    assert person.action == "catch" and person.joints is None and person.image.load().shape == (48, 64, 3)


def test_splits_strides_and_captions(files):
    folder, _ = files
    (folder / "captions.json").write_text(json.dumps({"run": "a person runs"}))
    options = {"split": folder / "splits", "stride": 2, "captions": folder / "captions.json"}
    test = Jhmdb(folder / "joint_positions", folder / "Rename_Images", **options)
    assert {p.track_id for p in test} == {"jhmdb/catch/Ball_2", "jhmdb/run/Park"} and len(test) == 4
    assert test[-1].captions == ("a person runs",)
    train = Jhmdb(folder / "joint_positions", folder / "Rename_Images", split=folder / "splits", part="train")
    assert {p.sequence for p in train} == {"catch/Ball_1"}


def test_bad_files(files):
    folder, _ = files
    with pytest.raises(FileError, match="no joint positions"):
        Jhmdb(folder / "splits", folder / "Rename_Images")
    shutil.rmtree(folder / "Rename_Images" / "run")
    with pytest.raises(FileError, match="3 missing"):
        Jhmdb(folder / "joint_positions", folder / "Rename_Images")
    savemat(folder / "joint_positions" / "run" / "Park" / "joint_positions.mat", {"joints": np.zeros((14, 3, 2))})
    with pytest.raises(InputError, match=r"joint_positions\.mat of JHMDB"):
        Jhmdb(folder / "joint_positions", folder / "Rename_Images")
    with pytest.raises(InputError, match="part"):
        Jhmdb(folder / "joint_positions", folder / "Rename_Images", split=folder / "splits", part="all")


def test_the_official_layout_of_real_frames_equals_their_coco_form(shared, tmp_path):
    source = shared / "data" / "images" / "jhmdb"
    truth = CocoKeypoints(source / "annotations.json", source, name="x")
    for person in truth:
        video = person.image.name.removesuffix("_00001.png")
        folder = tmp_path / "joint_positions" / "catch" / video
        folder.mkdir(parents=True)
        (tmp_path / "images" / "catch" / video).mkdir(parents=True)
        shutil.copyfile(person.image.path, tmp_path / "images" / "catch" / video / "00001.png")
        savemat(folder / "joint_positions.mat", {"pos_img": person.keypoints_px.T + 1})
    persons = Jhmdb(tmp_path / "joint_positions", tmp_path / "images")
    for ours, theirs in zip(persons, sorted(truth, key=lambda p: p.image.name)):
        np.testing.assert_allclose(ours.keypoints_px, theirs.keypoints_px, atol=1e-3)
        np.testing.assert_array_equal(ours.image.load(), theirs.image.load())
        # The annotated box holds the body; the one around the joints covers most of it.
        assert ours.box_is_tight and not theirs.box_is_tight
        low, high = (
            np.maximum(ours.body_box_xyxy[:2], theirs.box_xyxy[:2]),
            np.minimum(ours.body_box_xyxy[2:], theirs.box_xyxy[2:]),
        )
        assert np.prod(high - low) > 0.6 * np.prod(theirs.box_xyxy[2:] - theirs.box_xyxy[:2])
