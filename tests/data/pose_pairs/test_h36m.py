from __future__ import annotations

import cv2
import numpy as np
import pytest

from posesyn import skeletons
from posesyn.data.pose_pairs.h36m import CAMERAS, SUBJECTS, H36MPoses, h36m_camera
from posesyn.errors import InputError, UnsafeFileError


@pytest.fixture
def files(tmp_path, rng):
    """The two npz files in the layout of VideoPose3D, with pickled dictionaries as numpy writes them."""
    world = {
        subject: {
            "Walking 1": (rng.normal(0, 0.3, (7, 32, 3)) + np.eye(3)[2]).astype("f4"),
            "Photo": np.ones((3, 32, 3)),
        }
        for subject in ("S1", "S9")
    }
    pixels = {
        subject: {
            action: [np.full((len(value) + 2, 17, 2), 10.0 * row) for row in range(4)] for action, value in part.items()
        }
        for subject, part in world.items()
    }
    np.savez_compressed(tmp_path / "data_3d_h36m.npz", positions_3d=np.array(world, object))
    np.savez_compressed(
        tmp_path / "data_2d_h36m_gt.npz",
        positions_2d=np.array(pixels, object),
        metadata=np.array({"layout_name": "h36m", "num_joints": 17}, object),
    )
    return tmp_path, world


def test_sequences_in_camera_metres(files):
    folder, world = files
    poses = H36MPoses(folder / "data_3d_h36m.npz")
    assert sorted(poses.sequences()) == [(s, a) for s in ("S1", "S9") for a in ("Photo", "Walking 1")]
    assert list(poses.sequences(("S9",))) == [("S9", "Walking 1"), ("S9", "Photo")]
    sequence = poses.sequence("S9", "Walking 1", "58860488")
    assert sequence.joints_cam.shape == (7, 17, 3) and sequence.skeleton == "h36m17" and sequence.fps == 50
    camera = h36m_camera("S9", "58860488")
    rows = skeletons.mapping("h36m32", "h36m17")
    assert rows.tolist() == [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
    expected = world["S9"]["Walking 1"][:, rows] @ camera.rotation.T + camera.translation
    np.testing.assert_allclose(sequence.joints_cam, expected, atol=1e-5)
    rotation = cv2.Rodrigues(camera.rotation)[0]
    for frame in range(7):  # the projection is OpenCV's
        points, _ = cv2.projectPoints(
            world["S9"]["Walking 1"][frame, rows].astype("f8"),
            rotation,
            camera.translation,
            camera.intrinsics,
            camera.distortion,
        )
        np.testing.assert_allclose(sequence.keypoints_px[frame], points[:, 0], atol=2e-3)
    assert len(list(poses.views(("S1",)))) == 8


def test_2d_files_and_poseaugs_joints(files):
    folder, _ = files
    poses = H36MPoses(folder / "data_3d_h36m.npz", folder / "data_2d_h36m_gt.npz", skeleton="poseaug16")
    sequence = poses.sequence("S1", "Walking 1", CAMERAS[2])
    assert sequence.joints_cam.shape == (7, 16, 3) and (sequence.keypoints_px == 20).all()
    assert sequence.keypoints_px.shape == (7, 16, 2), "longer 2D arrays are cut"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_camera_looks_at_the_middle_of_the_room(subject):
    """A person's chest at the world's origin is near the middle of all four pictures, 4 to 6 m away, upright."""
    for name in CAMERAS:
        camera = h36m_camera(subject, name)
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-6)
        chest, head = camera.to_camera(np.array([[0, 0, 1.2], [0, 0, 1.7]]))
        assert 3.9 < chest[2] < 6 and head[1] < chest[1]
        assert (np.abs(camera.project(chest) - 500) < 260).all()


def test_bad_files(files, tmp_path):
    folder, _ = files
    with pytest.raises(InputError, match=r"not a file of VideoPose3D.*positions_3d"):
        H36MPoses(folder / "data_2d_h36m_gt.npz")
    with pytest.raises(InputError, match="positions_2d"):
        H36MPoses(folder / "data_3d_h36m.npz", folder / "data_3d_h36m.npz")
    millimetres = {"S1": {"Walking": np.full((2, 32, 3), 900.0)}}
    np.savez(tmp_path / "mm.npz", positions_3d=np.array(millimetres, object))
    with pytest.raises(InputError, match="not metres"):
        H36MPoses(tmp_path / "mm.npz")
    np.savez(tmp_path / "joints.npz", positions_3d=np.array({"S1": {"Walking": np.zeros((2, 5, 3))}}, object))
    with pytest.raises(InputError, match="wrong shape"):
        H36MPoses(tmp_path / "joints.npz")
    poses = H36MPoses(folder / "data_3d_h36m.npz")
    for names in (("S2", "Photo", CAMERAS[0]), ("S1", "Photo", "1"), ("S1", "Dance", CAMERAS[0])):
        with pytest.raises(InputError):
            poses.sequence(*names)
    with pytest.raises(InputError, match="skeleton='h36m32'"):
        H36MPoses(folder / "data_3d_h36m.npz", skeleton="spin24").joints_world("S1", "Photo")


class Code:
    def __reduce__(self):
        return print, ("ran",)


def test_detections_in_another_order_are_refused(files):
    folder, _ = files
    with np.load(folder / "data_2d_h36m_gt.npz", allow_pickle=True) as content:
        pixels = content["positions_2d"]
    for layout, fine in (("coco", False), ("mpii", False), ("h36m", True), (None, True)):
        extra = {} if layout is None else {"metadata": np.array({"layout_name": layout}, object)}
        np.savez(folder / "data_2d_h36m_other.npz", positions_2d=pixels, **extra)
        if fine:
            H36MPoses(folder / "data_3d_h36m.npz", folder / "data_2d_h36m_other.npz")
        else:
            with pytest.raises(InputError, match=f"'{layout}'"):
                H36MPoses(folder / "data_3d_h36m.npz", folder / "data_2d_h36m_other.npz")


@pytest.mark.parametrize("subjects", ("S1", ("S1", "S7")))
def test_subjects_are_a_tuple_of_known_names(files, subjects):
    poses = H36MPoses(files[0] / "data_3d_h36m.npz")
    with pytest.raises(InputError, match="no such subjects"):
        list(poses.sequences(subjects))
    assert {name for name, _ in poses.sequences(("S9",))} == {"S9"}


def test_code_in_the_npz_is_not_run(tmp_path, capsys):
    np.savez(tmp_path / "evil.npz", positions_3d=np.array({"S1": Code()}, object))
    capsys.readouterr()
    with pytest.raises(UnsafeFileError):
        H36MPoses(tmp_path / "evil.npz")
    assert "ran" not in capsys.readouterr().out
