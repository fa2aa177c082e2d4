from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from posesyn.data.persons.mpi_inf_3dhp import Mpi3dhpTest, Mpi3dhpTrain, read_calibration
from posesyn.errors import FileError, InputError

CALIBRATION = """Skeletool Camera Calibration File V1.0
name          0
  sensor      10 10
  size        2048 2048
  animated    0
  intrinsic   {f} 0 1024 0 0 {f} 1024 0 0 0 1 0 0 0 0 1
  extrinsic   1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1
  radial      0
name          1
  sensor      10 10
  size        2048 2048
  animated    0
  intrinsic   1500 0 1024 0 0 1500 1024 0 0 0 1 0 0 0 0 1
  extrinsic   1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1
  radial      0
"""


@pytest.fixture
def train(tmp_path, rng, picture):
    """S1/Seq1 with two cameras and 21 frames, annotations that project exactly."""

    def make(focal="1500", **options):
        folder = tmp_path / "S1" / "Seq1"
        folder.mkdir(parents=True, exist_ok=True)
        cells = {key: np.empty((2, 1), object) for key in ("annot2", "annot3", "univ_annot3")}
        for camera in range(2):
            joints = rng.normal(0, 0.4, (21, 28, 3)) + 3.5 * np.eye(3)[2]
            cells["annot2"][camera, 0] = (joints[..., :2] / joints[..., 2:] * 1500 + 1024).reshape(21, 56)
            cells["annot3"][camera, 0] = (joints * 1000).reshape(21, 84)
            cells["univ_annot3"][camera, 0] = (joints * 900).reshape(21, 84)
        savemat(folder / "annot.mat", {**cells, "cameras": np.arange(2), "frames": np.arange(21)})
        (folder / "camera.calibration").write_text(CALIBRATION.format(f=focal))
        for camera in range(2):
            for frame in (1, 11, 21):
                picture(folder / "imageFrames" / f"video_{camera}" / f"frame_{frame:06d}.jpg")
        return cells, Mpi3dhpTrain(tmp_path, **{"cameras": (0, 1), **options})

    return make


def test_training_persons(train):
    cells, persons = train()
    assert len(persons) == 6 and persons.skeleton == "3dhp28"
    person = persons[4]
    assert person.person_id == "3dhp/S1/Seq1/video_1@000010" and person.track_id == "3dhp/S1/Seq1/video_1"
    np.testing.assert_allclose(person.keypoints_px, cells["annot2"][1, 0][10].reshape(28, 2), rtol=1e-5)
    np.testing.assert_allclose(person.joints.joints_cam * 1000, cells["annot3"][1, 0][10].reshape(28, 3), rtol=1e-5)
    assert person.box_is_tight
    assert person.joints.intrinsics[0, 0] == 1500 and person.joints.absolute and person.image.name == "frame_000011.jpg"
    _, universal = train(annotation="univ_annot3", stride=20)
    assert len(universal) == 4
    np.testing.assert_allclose(
        universal[0].joints.joints_cam[0], cells["univ_annot3"][0, 0][0, :3] / 1000, rtol=1e-1, atol=2
    )


def test_wrong_units_of_the_training_set(train, tmp_path):
    with pytest.raises(InputError, match="not in pixels"):
        train(focal="7.3")
    with pytest.raises(InputError, match=r"do not project.*px"):
        train(focal="2500")
    (tmp_path / "bad.calibration").write_text("name 0\n intrinsic 1 2")
    with pytest.raises(FileError, match="damaged"):
        read_calibration(tmp_path / "bad.calibration")
    with pytest.raises(InputError, match="no camera 7"):
        train(cameras=(7,))


@pytest.fixture
def test_set(tmp_path, rng, picture):
    def make(**options):
        folder = tmp_path / "TS5"
        for frame in range(1, 5):
            picture(folder / "imageSequence" / f"img_{frame:06d}.jpg")
        joints, pixels = rng.normal(0, 400, (4, 1, 17, 3)), rng.uniform(300, 900, (4, 1, 17, 2))
        with h5py.File(folder / "annot_data.mat", "w", userblock_size=512) as file:
            file["annot2"], file["annot3"], file["univ_annot3"] = pixels, joints, joints * 0.9
            file["valid_frame"] = np.array([[1.0], [0], [1], [1]])
            file["activity_annotation"] = np.array([[1.0], [1], [2], [2]])
        return joints, pixels, Mpi3dhpTest(tmp_path, **options)

    return make


def test_test_persons(test_set):
    joints, pixels, persons = test_set()
    assert len(persons) == 3 and persons.skipped == (("3dhp_test/TS5@000001", "its frame is marked invalid"),)
    person = persons[1]
    assert person.person_id == "3dhp_test/TS5@000002" and person.skeleton == "3dhp17" and person.action == "2"
    np.testing.assert_allclose(person.joints.joints_cam, joints[2, 0] * 0.9 / 1000, rtol=1e-5)
    np.testing.assert_allclose(person.keypoints_px, pixels[2, 0], rtol=1e-5)
    assert person.box_is_tight and person.image.name == "img_000003.jpg" and person.image_width_height == (1920, 1080)
    joints, _, metric = test_set(annotation="annot3")
    np.testing.assert_allclose(metric[0].joints.joints_cam, joints[0, 0] / 1000, rtol=1e-5)


def test_files_of_the_wrong_set_are_named(train, test_set, tmp_path):
    train()
    (tmp_path / "TS1").mkdir()
    (tmp_path / "TS1" / "annot_data.mat").write_bytes((tmp_path / "S1" / "Seq1" / "annot.mat").read_bytes())
    with pytest.raises(InputError, match=r"not annot_data\.mat.*annot2.*MPI-INF-3DHP"):
        Mpi3dhpTest(tmp_path)
    (tmp_path / "TS1" / "annot_data.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\x00" * 300)
    with pytest.raises(FileError, match="damaged"):
        Mpi3dhpTest(tmp_path)
    with pytest.raises(FileError, match="no annotations"):
        Mpi3dhpTest(tmp_path / "S1")
    with pytest.raises(FileError, match="no annotations"):
        Mpi3dhpTrain(tmp_path / "TS1")
