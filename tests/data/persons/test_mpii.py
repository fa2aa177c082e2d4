from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from posesyn import skeletons
from posesyn.data.persons.mpii import MpiiKeypoints
from posesyn.errors import FileError, InputError, UnsafeFileError


def entry(**changes):
    return {
        "image": "ü.png",
        "joints": [[11 + i, 21 + i] for i in range(16)],
        "joints_vis": [1] * 16,
        "center": [31, 25],
        "scale": 0.2,
        **changes,
    }


@pytest.fixture
def dataset(tmp_path):
    def make(*entries, **options):
        Image.new("RGB", (64, 48)).save(tmp_path / "ü.png")
        (tmp_path / "a.json").write_text(json.dumps(list(entries)))
        return MpiiKeypoints(tmp_path / "a.json", tmp_path, **options)

    return make


def test_coordinates_count_from_one_and_the_box_is_that_of_the_loaders(dataset):
    person = dataset(entry())[0]
    np.testing.assert_array_equal(person.keypoints_px[2], [12, 22])
    np.testing.assert_allclose(person.box_xyxy, [30 - 20, 24 + 3 - 20, 30 + 20, 24 + 3 + 20])
    assert person.person_id == "mpii/ü#0" and person.skeleton == "mpii16" and person.meta["scale"] == 0.2
    zero = dataset(entry(), index_base=0)[0]
    np.testing.assert_array_equal(zero.keypoints_px[2], [13, 23])
    joints = dataset(entry(), box="joints")[0]
    np.testing.assert_allclose(joints.box_xyxy, [8.5, 18.5, 26.5, 36.5])


def test_missing_joints(dataset):
    joints = entry()["joints"]
    joints[0] = [-1, -1]
    visible = [1] * 16
    visible[3] = 0
    person = dataset(entry(joints=joints, joints_vis=visible))[0]
    assert np.flatnonzero(~person.visible).tolist() == [0, 3]
    persons = dataset(entry(joints_vis=[0] * 16), entry())
    assert persons.skipped == (("mpii/ü#0", "no joint is visible"),) and persons[0].person_id == "mpii/ü#1"


def test_captions(dataset):
    assert dataset(entry(), captions={"ü.png": "she <b>dances"})[0].captions == ("she <b>dances",)
    assert dataset(entry(), captions={"ü.png": ["a", "b"]})[0].captions == ("a", "b")


def test_the_activity_is_the_caption_where_there_is_no_other(dataset):
    active = entry(activity="bicycling, mountain")
    assert dataset(active)[0].captions == ("a person is doing bicycling, mountain",)
    assert dataset(active, captions={"ü.png": "she rides"})[0].captions == ("she rides",)
    assert dataset(active, captions={"other.png": "x"})[0].captions == ("a person is doing bicycling, mountain",)
    for nothing in ("", " - ", None, 3):
        assert dataset(entry(activity=nothing))[0].captions == ()


def test_bad_annotations(dataset, tmp_path):
    with pytest.raises(InputError, match=r"'mpii16'.*mpii/ü#0.*got \(15, 2\) and \(16,\)"):
        dataset(entry(joints=[[1, 2]] * 15))
    with pytest.raises(InputError, match="NaN"):
        dataset(entry(joints=[[float("nan"), 2]] * 16))
    with pytest.raises(InputError, match=r"no center.*box='joints'"):
        dataset(entry(center=None))
    with pytest.raises(InputError, match="empty"):
        dataset(entry(scale=0))
    with pytest.raises(InputError, match="no annotations"):
        dataset()
    with pytest.raises(InputError, match="no usable person"):
        dataset(entry(joints_vis=[0] * 16))
    with pytest.raises(FileError, match=r"absent\.png"):
        dataset(entry(image="absent.png"))
    with pytest.raises(UnsafeFileError):
        dataset(entry(image="../x.png"))
    with pytest.raises(InputError, match="on_missing"):
        dataset(entry(), on_missing="ignore")
    persons = dataset(entry(), entry(image="absent.png"), entry(scale=0), on_missing="skip", on_bad="skip")
    assert len(persons) == 1 and len(persons.skipped) == 2
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(InputError, match="list"):
        MpiiKeypoints(tmp_path / "b.json", tmp_path)


def test_real_photos(shared):
    folder = shared / "data" / "images" / "mpii"
    persons = MpiiKeypoints(folder / "annotations.json", folder)
    assert len(persons) == 3 and persons.skipped == ()
    joints = skeletons.get("mpii16").joints
    for person in persons:
        height, width = person.image.load().shape[:2]
        points = person.keypoints_px[person.visible]
        assert (points >= 0).all() and (points < (width, height)).all()
        assert person.keypoints_px[joints.index("head_top"), 1] < person.keypoints_px[joints.index("pelvis"), 1]
