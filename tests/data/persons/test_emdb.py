from __future__ import annotations

import pickle

import numpy as np
import pytest

from posesyn.data.persons.emdb import Emdb
from posesyn.errors import FileError, InputError, UnsafeFileError

FRAMES = 4


def sequence(rng, **changes):
    return {
        "gender": "female",
        "name": "P1_14_outdoor_climb",
        "emdb1": True,
        "emdb2": False,
        "n_frames": FRAMES,
        "good_frames_mask": np.array([True, False, True, True]),
        "camera": {
            "extrinsics": np.tile(np.eye(4), (FRAMES, 1, 1)),
            "intrinsics": np.array([[1450.0, 0, 720], [0, 1450, 960], [0, 0, 1]]),
            "width": 1440,
            "height": 1920,
        },
        "smpl": {
            "poses_root": rng.normal(0, 1, (FRAMES, 3)),
            "poses_body": rng.normal(0, 0.2, (FRAMES, 69)),
            "trans": rng.normal(0, 1, (FRAMES, 3)),
            "betas": rng.normal(0, 1, 10),
        },
        "kp2d": rng.uniform(400, 900, (FRAMES, 24, 2)),
        "bboxes": {"bboxes": np.tile([300.0, 300, 1000, 1000], (FRAMES, 1)), "invalid_idxs": np.array([3])},
        **changes,
    }


@pytest.fixture
def dataset(tmp_path, rng, picture):
    def make(content=None, **options):
        content = sequence(rng) if content is None else content
        folder = tmp_path / "P1" / "14_outdoor_climb"
        for frame in range(FRAMES):
            picture(folder / "images" / f"{frame:05d}.jpg", (1440, 1920))
        with open(folder / "P1_14_outdoor_climb_data.pkl", "wb") as stream:
            pickle.dump(content, stream)
        return Emdb(tmp_path, **options)

    return make


def test_persons_of_a_sequence(dataset, rng):
    content = sequence(rng)
    persons = dataset(content)
    assert len(persons) == FRAMES and persons.skeleton == "smpl24"
    person = persons[1]
    assert person.track_id == "emdb/P1_14_outdoor_climb" and person.valid is False
    np.testing.assert_array_equal(person.box_xyxy, [300, 300, 1000, 1000])
    assert persons[3].box_xyxy[0] != 300, "frames without a box get one around the joints"
    np.testing.assert_allclose(person.fit.pose_rotvec[0], content["smpl"]["poses_root"][1], atol=1e-6)
    assert person.fit.gender == "female" and person.joints is None and person.image.load().shape == (1920, 1440, 3)
    assert len(dataset(content, subset="emdb1", stride=2)) == 2
    with pytest.raises(InputError, match="emdb2"):
        dataset(content, subset="emdb2")


class Code:
    def __reduce__(self):
        return print, ("ran",)


def test_bad_sequences(dataset, rng, tmp_path):
    with pytest.raises(UnsafeFileError):
        dataset(sequence(rng, more=Code()))
    with pytest.raises(InputError, match="not a sequence of EMDB"):
        dataset({"name": "x"})
    with pytest.raises(InputError, match="keypoints has the wrong shape"):
        dataset(sequence(rng, kp2d=np.zeros((FRAMES, 17, 2))))
    with pytest.raises(InputError, match="not in pixels"):
        dataset(sequence(rng, camera={**sequence(rng)["camera"], "intrinsics": np.diag([26.0, 26.0, 1.0])}))
    with pytest.raises(InputError, match="incomplete"):
        dataset(sequence(rng, smpl={}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no sequences"):
        Emdb(tmp_path / "empty")
