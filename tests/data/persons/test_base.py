from __future__ import annotations

import numpy as np
import pytest

from posesyn import data
from posesyn.data.persons.base import box_around, box_problem, xywh_to_xyxy
from posesyn.errors import FileError, InputError


def test_xywh_to_xyxy():
    np.testing.assert_array_equal(xywh_to_xyxy([[1, 2, 3, 4], [0, 0, 5, 6]]), [[1, 2, 4, 6], [0, 0, 5, 6]])


def test_box_around_uses_visible_joints_only():
    points = np.array([[10, 10], [30, 50], [900, 900]], np.float32)
    np.testing.assert_allclose(box_around(points, [1, 1, 0]), [10, 10, 30, 50])
    np.testing.assert_allclose(box_around(points, [1, 0, 0]), [9, 9, 11, 11])
    np.testing.assert_allclose(box_around([[10, 10], [30, 10]], [1, 1]), [10, 9, 30, 11])
    with pytest.raises(InputError, match="no joint"):
        box_around(points, [0, 0, 0])


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0, 0, 5, 0), "empty"),
        ((9, 0, 5, 5), "empty"),
        ((0, 0, np.nan, 5), "finite"),
        ((100, 0, 120, 10), "outside"),
        ((-20, 0, 0, 10), "outside"),
        ((0, 0, 5), "finite"),
    ],
)
def test_problems_in_words(box, words):
    assert words in box_problem(np.array(box, np.float32), (100, 50))


def test_boxes_that_overlap_the_image_are_fine():
    assert box_problem(np.array([-10, -10, 3, 3]), (100, 50)) is None
    assert box_problem(np.array([500, 500, 600, 600])) is None


@pytest.mark.parametrize(
    ("reader", "first"),
    [("CocoKeypoints", "annotations"), ("MpiiKeypoints", "annotations"), ("LspExtended", "joints"),
     ("SpinPersons", "annotations"), ("BedlamPersons", "annotations"), ("AgoraPersons", "annotations")],
)  # fmt: skip
def test_a_file_and_a_folder_in_the_wrong_order(reader, first, tmp_path):
    file, folder = tmp_path / "labels", tmp_path / "pictures"
    file.touch()
    folder.mkdir()
    make = getattr(data, reader)
    with pytest.raises(FileError, match=f"{first} must be a file and images a folder in {reader}: got ") as error:
        make(folder, file)
    assert f"{first}='{folder}' (folder), images='{file}' (file). Exchange the two, they look" in str(error.value)
    for places in ((folder, folder), (folder, tmp_path / "absent"), (file, file)):
        with pytest.raises(FileError, match=r"must be a file and images a folder.*Name the annotations first"):
            make(*places)
    with pytest.raises(FileError, match="could not read"):
        make(tmp_path / "absent", folder)


def test_readers_of_folders_refuse_files(tmp_path):
    (tmp_path / "a.pkl").touch()
    with pytest.raises(FileError, match=r"joint_positions must be a folder and images a folder.*Name the ann"):
        data.Jhmdb(tmp_path / "a.pkl", tmp_path)
    with pytest.raises(FileError, match=r"joint_positions must be a folder and images a folder.*Name the ann"):
        data.Jhmdb(tmp_path, tmp_path / "a.pkl")
    with pytest.raises(FileError, match=r"sequences must be a file or folder and images a folder.*look swapped"):
        data.ThreeDPW(tmp_path, tmp_path / "a.pkl")
