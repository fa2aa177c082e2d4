from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from posesyn import data
from posesyn.data.persons.base import checked_intrinsics
from posesyn.data.persons.coco import CocoKeypoints
from posesyn.data.persons.formats import FORMATS, DataFormat, open_dataset
from posesyn.errors import InputError
from posesyn.types import Person


def test_every_reader_exists_and_is_opened_by_name(shared):
    assert len(FORMATS) == 12
    for name in FORMATS:
        assert FORMATS[name].load().__name__ in data.__all__
    folder = shared / "data" / "images"
    assert len(open_dataset("coco", folder / "coco", folder / "coco" / "annotations.json")) > 20
    assert len(open_dataset("mpii", folder / "mpii", folder / "mpii" / "annotations.json", on_missing="skip")) >= 3
    with pytest.raises(InputError, match="needs an annotation file"):
        open_dataset("3dpw", folder)
    with pytest.raises(InputError, match=r"unknown data format 'lsp'.*[Dd]id you mean 'lspet'"):
        open_dataset("lsp", folder)


def test_a_reader_of_ones_own_is_opened_by_name(monkeypatch, tmp_path):
    class Folder(list):
        def __init__(self, images, *, stride: int = 1, captions: str | None = None) -> None:
            super().__init__(range(0, 10, stride))
            self.images, self.captions = images, captions

    monkeypatch.setattr(FORMATS, "_things", dict(FORMATS._things))
    FORMATS.register("own", DataFormat(Folder, annotated=False, captioned=True))
    opened = open_dataset("own", tmp_path, stride=5, captions="words.json")
    assert opened == [0, 5] and opened.images == tmp_path and opened.captions == "words.json"
    with pytest.raises(InputError, match=r"no option 'strid'.*captions, stride"):
        open_dataset("own", tmp_path, strid=5)


def test_options_reach_the_reader_and_wrong_ones_are_named(shared):
    places = (shared / "data" / "images" / "coco", shared / "data" / "images" / "coco" / "annotations.json")
    every, some = (open_dataset("coco", *places, min_keypoints=count) for count in (1, 12))
    assert 0 < len(some) < len(every)
    for options, words in (
        ({"strides": 2}, r"takes no option 'strides'.*min_keypoints"),
        ({"stride": 2}, r"takes no option 'stride'"),  # COCO is no video
        ({"on_bad": "ignore"}, r"option 'on_bad' has a wrong value.*skip"),
        ({"min_keypoints": "two"}, r"option 'min_keypoints' must be int"),
        ({"min_keypoints": True}, r"option 'min_keypoints' must be int"),
    ):
        with pytest.raises(InputError, match=words):
            open_dataset("coco", *places, **options)


def test_the_data_sets_captions_are_read_where_the_format_has_them(shared, tmp_path):
    folder = shared / "data" / "images"
    (tmp_path / "coco.json").write_text(json.dumps({"annotations": [{"image_id": 785, "caption": "a woman skis "}]}))
    places = (folder / "coco", folder / "coco" / "annotations.json")
    found = {
        person.image_id: person.captions for person in open_dataset("coco", *places, captions=tmp_path / "coco.json")
    }
    assert found["coco/000000000785"] == ("a woman skis",) and found["coco/000000197388"] == ()
    assert not any(person.captions for person in open_dataset("coco", *places, captions=None))
    (tmp_path / "mpii.json").write_text(json.dumps({"005808361.jpg": "a woman calls"}))
    places = (folder / "mpii", folder / "mpii" / "annotations.json")
    said = [person.captions for person in open_dataset("mpii", *places, captions=tmp_path / "mpii.json")]
    assert ("a woman calls",) in said
    with pytest.raises(InputError, match=r"'bedlam' takes no file of captions.*coco, jhmdb, mpii"):
        open_dataset("bedlam", *places, captions=tmp_path / "mpii.json")


def test_real_balance_frames_as_persons_with_joints(shared):
    """Real calibrated frames: the readers' checks accept their cameras, and 3D joints project onto the 2D ones."""
    folder = shared / "data" / "images" / "multiview_balance"
    cameras = json.loads((folder / "cameras.json").read_text())
    frames = json.loads((folder / "annotations.json").read_text())["frames"]
    frame = frames["000"]
    for name, camera in cameras.items():
        matrix = checked_intrinsics(np.array(camera["K"]), name, tuple(camera["image_size"]))
        joints = np.array(
            list(frame["joints3d"].values()) if isinstance(frame["joints3d"], dict) else frame["joints3d"]
        )
        seen = joints @ np.array(camera["R_world_to_cam"]).T + np.array(camera["t_world_to_cam"])
        pixels = seen[:, :2] / seen[:, 2:] * matrix[[0, 1], [0, 1]] + matrix[:2, 2]
        width, height = camera["image_size"]
        assert (seen[:, 2] > 0).all() and ((pixels > -20) & (pixels < (width + 20, height + 20))).all()


@pytest.mark.parametrize(
    ("matrix", "size"),
    [
        (np.diag([1145.0, 1145, 1]), None),
        (np.array([[50.0, 0, 500], [0, 50, 500], [0, 0, 1]]), None),
        (np.array([[2.29, 0, 0.02], [0, 2.29, 0.03], [0, 0, 1]]), None),
        (np.array([[1145.0, 0, 9000], [0, 1145, 500], [0, 0, 1]]), (1000, 1000)),
        (np.full((3, 3), np.nan), None),
        (np.eye(4), None),
    ],
)
def test_cameras_in_other_units(matrix, size):
    with pytest.raises(InputError):
        checked_intrinsics(matrix, "a file", size)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "LA", "P", "L"])
def test_unusual_png_files_are_read_as_rgb(tmp_path, mode):
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.png")
    keypoints = [value for i in range(17) for value in (10 + i, 20 + i, 2)]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 7, "keypoints": keypoints, "bbox": [5, 15, 40, 30]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    person = CocoKeypoints(tmp_path / "a.json", tmp_path)[0]
    assert isinstance(person, Person)
    pixels = person.image.load()
    assert pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[0, :, 0], grey[0], atol=1)
