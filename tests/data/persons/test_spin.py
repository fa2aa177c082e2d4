from __future__ import annotations

import numpy as np
import pytest

from posesyn.data.persons.spin import SpinPersons
from posesyn.errors import InputError, UnsafeFileError

NAMES = ["S9/S9_Directions_1.54138969_000001.jpg", "S11/S11_Photo.60457274_000006.jpg"]


@pytest.fixture
def dataset(tmp_path, rng, picture):
    def make(drop=(), options=None, **changes):
        for name in NAMES:
            picture(tmp_path / "images" / name)
        part = np.concatenate((rng.uniform(5, 40, (2, 24, 2)), np.ones((2, 24, 1))), -1)
        part[:, 19:, 2] = 0
        space = np.concatenate((rng.normal(0, 0.4, (2, 24, 3)), part[..., 2:]), -1)
        content = {
            "imgname": np.array(NAMES),
            "center": np.array([[30.0, 20], [31, 21]]),
            "scale": np.array([0.24, 0.12]),
            "part": part,
            "S": space,
            "pose": rng.normal(0, 0.2, (2, 72)),
            "shape": rng.normal(0, 1, (2, 10)),
            "has_smpl": np.array([1, 0]),
            "gender": np.array(["m", "f"]),
            **changes,
        }
        np.savez(tmp_path / "h36m.npz", **{key: value for key, value in content.items() if key not in drop})
        return content, SpinPersons(tmp_path / "h36m.npz", tmp_path / "images", **(options or {}))

    return make


def test_rows_as_persons(dataset):
    content, persons = dataset()
    first, second = persons[0], persons[1]
    assert first.skeleton == "spin24" and first.visible.sum() == 19
    # scale · 200 is 1.2 times the longer side of the box.
    np.testing.assert_allclose(first.box_xyxy, [10, 0, 50, 40], atol=1e-4)
    np.testing.assert_allclose(first.joints.joints_cam[:19], content["S"][0, :19, :3], atol=1e-6)
    assert not first.joints.absolute and first.joints.valid.sum() == 19
    assert first.subject == "S9" and first.camera == "54138969" and first.frame == 1
    assert first.action == "Directions_1" and first.track_id == "spin/S9_Directions_1.54138969"
    assert first.fit.gender == "male" and second.fit is None, "has_smpl says so"
    assert first.image.load().shape == (48, 64, 3) and len(dataset(options={"stride": 2})[1]) == 1


def test_other_forms(dataset):
    _, objects = dataset(imgname=np.array(NAMES, object), drop=("S", "pose"))
    assert len(objects) == 2 and objects[0].joints is None and objects[0].fit is None
    openpose = np.ones((2, 25, 3)) * 20
    openpose[0, :, 0] += np.arange(25)
    openpose[1, :, 0] += np.arange(25)
    _, persons = dataset(openpose=openpose, options={"keypoints": "openpose"})
    assert persons.skeleton == "op25"
    with pytest.raises(InputError, match="no array 'openpose'"):
        dataset(options={"keypoints": "openpose"})


def test_bad_files(dataset):
    with pytest.raises(InputError, match=r"not an npz file in SPIN's form.*imgname, center, scale"):
        dataset(drop=("scale",))
    with pytest.raises(InputError, match=r"part has the wrong shape.*\(2, 24, 3\)"):
        dataset(part=np.zeros((2, 17, 3)))
    with pytest.raises(InputError, match="S has the wrong shape"):
        dataset(S=np.zeros((3, 24, 4)))
    with pytest.raises(UnsafeFileError, match="leaves the image folder"):
        dataset(imgname=np.array(["../a.jpg", NAMES[1]]))
    with pytest.raises(InputError, match=r"is empty"):
        dataset(scale=np.array([0.0, 1.0]))
    _, persons = dataset(scale=np.array([0.0, 1.0]), options={"on_bad": "skip"})
    assert len(persons) == 1 and "is empty" in persons.skipped[0][1]
