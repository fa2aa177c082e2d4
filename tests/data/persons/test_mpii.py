from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

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
    np.testing.assert_allclose(joints.box_xyxy, [10, 20, 25, 35])
    assert joints.box_is_tight and not person.box_is_tight


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


def point(joint, x, y, visible=1):
    return {"id": joint, "x": x, "y": y, "is_visible": visible}


def struct_array(items):
    made = np.empty(len(items), object)
    made[:] = items
    return made


@pytest.fixture
def release(tmp_path, picture):
    """RELEASE with a training image of two persons and a test image of one without joints."""
    joints = [point(i, 11.0 + i, 21.0 + i, "1" if i != 3 else "0") for i in range(14)] + [
        point(joint, 30.0, 10.0, np.zeros(0)) for joint in (8, 9)
    ]
    joints = [p for i, p in enumerate(joints) if i not in (8, 9)]
    first = {
        "x1": 25.0, "y1": 5.0, "x2": 28.0, "y2": 9.0, "scale": 0.2, "objpos": {"x": 31.0, "y": 25.0},
        "annopoints": {"point": struct_array(joints)},
    }  # fmt: skip
    second = {**first, "annopoints": {"point": point(10, 40.0, 40.0)}}
    annolist = struct_array(
        [
            {"image": {"name": "a.png"}, "annorect": struct_array([first, second]), "vididx": 7},
            {"image": {"name": "b.png"}, "annorect": {"scale": 0.3, "objpos": {"x": 5.0, "y": 6.0}}, "vididx": []},
            {"image": {"name": "c.png"}, "annorect": [], "vididx": []},
        ]
    )
    act = struct_array(
        [{"act_name": "yoga", "cat_name": "x", "act_id": 1}, {"act_name": [], "act_id": -1}, {"act_name": []}]
    )
    savemat(tmp_path / "mpii.mat", {"RELEASE": {"annolist": annolist, "img_train": np.array([1, 0, 0]), "act": act}})
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    return tmp_path


def test_persons_of_the_mat_file(release):
    persons = MpiiKeypoints(release / "mpii.mat", release)
    assert len(persons) == 2 and persons.skipped == (("mpii/b#2", "it has no joints"),)
    person = persons[0]
    np.testing.assert_array_equal(person.keypoints_px[2], [12, 22])  # counted from 1 in the file
    np.testing.assert_array_equal(person.keypoints_px[9], [29, 9])
    assert person.visible[:14].all() and person.visible.sum() == 14 and not person.visible[14:].any()
    np.testing.assert_allclose(person.box_xyxy, [10, 7, 50, 47])
    assert person.head_size == pytest.approx(0.6 * 5) and person.meta["activity"] == "yoga"
    assert np.flatnonzero(person.occluded).tolist() == [3] and person.track_id == "7"
    assert person.joints is None and person.fit is None and person.labels is None
    assert persons[1].visible.sum() == 1


def test_equal_to_the_json_form(release):
    from_mat = MpiiKeypoints(release / "mpii.mat", release)[0]
    entry = {
        "image": "a.png", "center": [31, 25], "scale": 0.2, "joints_vis": from_mat.visible.astype(int).tolist(),
        "joints": np.where(from_mat.visible[:, None], from_mat.keypoints_px + 1, -1).tolist(),
    }  # fmt: skip
    (release / "mpii.json").write_text(json.dumps([entry]))
    from_json = MpiiKeypoints(release / "mpii.json", release)[0]
    np.testing.assert_array_equal(from_json.box_xyxy, from_mat.box_xyxy)
    np.testing.assert_array_equal(from_json.keypoints_px[from_json.visible], from_mat.keypoints_px[from_mat.visible])


def test_mat_files_of_other_sets(release):
    savemat(release / "joints.mat", {"joints": np.zeros((14, 3, 2))})
    with pytest.raises(InputError, match=r"not MPII's.*joints of LSP"):
        MpiiKeypoints(release / "joints.mat", release)
    savemat(release / "odd.mat", {"RELEASE": {"annolist": np.zeros(3)}})
    with pytest.raises(InputError, match="another structure"):
        MpiiKeypoints(release / "odd.mat", release)
