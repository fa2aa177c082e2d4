from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from posesyn.data.crops import crop_person
from posesyn.data.persons.coco import CocoKeypoints
from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.interfaces import EstimatorSpec


def annotation(**changes):
    keypoints = [value for i in range(17) for value in (10 + i, 20 + i, 2)]
    return {"id": 1, "image_id": 7, "keypoints": keypoints, "bbox": [5, 15, 40, 30], "area": 600.5, **changes}


@pytest.fixture
def dataset(tmp_path):
    """Writes a data set of one image of 64 x 48 pixels and opens it."""

    def make(annotations=None, images=None, options=None, **content):
        Image.new("RGB", (64, 48), (1, 2, 3)).save(tmp_path / "a.png")
        images = [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}] if images is None else images
        content = {"images": images, "annotations": [annotation()] if annotations is None else annotations, **content}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return CocoKeypoints(tmp_path / "a.json", tmp_path, **(options or {}))

    return make


def test_one_person(dataset, tmp_path):
    captions = {"annotations": [{"image_id": 7, "caption": "a man <i>jumps</i> "}, {"image_id": 7, "caption": "two"}]}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    persons = dataset(options={"captions": tmp_path / "captions.json"})
    assert len(persons) == 1 and persons.skipped == () and persons[0] is not persons[0]
    person = persons[0]
    assert person.person_id == "coco/a#1" and person.image_id == "coco/a"
    assert person.captions == ("a man <i>jumps</i>", "two")
    np.testing.assert_array_equal(person.box_xyxy, [5, 15, 45, 45])
    np.testing.assert_array_equal(person.keypoints_px[3], [13, 23])
    assert person.visible.all() and person.area == 600.5
    assert person.image.load().shape == (48, 64, 3)
    assert len(persons[:5]) == 1 and len(pickle.loads(pickle.dumps(persons))) == 1  # noqa: S301


def test_left_out_annotations_are_listed(dataset):
    hidden = [0.0] * 51
    persons = dataset(
        [
            annotation(),
            annotation(id=2, iscrowd=1),
            annotation(id=3, keypoints=hidden),
            {"id": 4, "image_id": 7, "bbox": [0, 0, 1, 1]},
            annotation(id=5, keypoints=[5, 5, 2, *hidden[3:]]),
        ],
        options={"min_keypoints": 2},
    )
    assert len(persons) == 1
    assert dict(persons.skipped) == {
        "coco/a#2": "it marks a crowd",
        "coco/a#3": "no joint is visible",
        "coco/a#4": "it has no keypoints",
        "coco/a#5": "only 1 joints are visible, 2 are needed",
    }


def test_a_box_without_extent_is_replaced_by_the_joints(dataset):
    for box in ([0, 0, 0, 0], None):
        person = dataset([annotation(bbox=box)])[0]
        points = person.keypoints_px[person.visible]
        np.testing.assert_array_equal(person.box_xyxy, [*points.min(0), *points.max(0)])
        assert person.box_is_tight and not dataset([annotation()])[0].box_is_tight


def test_masks_from_polygons_and_run_lengths(dataset):
    polygon = [[10, 10, 30, 10, 30, 20, 10, 20]]
    counts = [0, 48 * 2, 48 * 62]
    persons = dataset(
        [
            annotation(segmentation=polygon),
            annotation(id=2, segmentation={"counts": counts, "size": [48, 64]}),
            annotation(id=3),
            annotation(id=4, segmentation={"counts": counts, "size": [9, 9]}),
        ]
    )
    assert persons.mask(0).shape == (48, 64) and persons.mask(0)[15, 20] and not persons.mask(0)[25, 20]
    assert 180 <= persons.mask(0).sum() <= 231
    assert persons.mask(1)[:, :2].all() and persons.mask(1).sum() == 96
    assert persons.mask(2) is None
    with pytest.raises(InputError, match="segmentation"):
        persons.mask(3)


def test_joint_set_is_recognised_from_the_names(dataset):
    names = ["neck", "belly", "head"] + [
        f"{side}_{joint}"
        for joint in ("shoulder", "hip", "elbow", "knee", "wrist", "ankle")
        for side in ("right", "left")
    ]
    persons = dataset([annotation(keypoints=[1, 2, 2] * 15)], categories=[{"id": 1, "keypoints": names}])
    assert persons.skeleton == "jhmdb15"
    with pytest.raises(InputError, match="joint set of a file is unknown"):
        dataset([annotation(keypoints=[1, 2, 2] * 15)])
    assert dataset([annotation(keypoints=[1, 2, 2] * 14)], options={"skeleton": "lsp14"}).skeleton == "lsp14"
    with pytest.raises(InputError, match="unknown skeleton"):
        dataset(options={"skeleton": "dog"})


def test_wrong_joint_count_names_skeleton_expected_and_got(dataset):
    with pytest.raises(InputError, match=r"'coco17'.*coco/a#1.*expected 51 numbers, got 50") as caught:
        dataset([annotation(keypoints=[1] * 50)], options={"skeleton": "coco17"})
    assert "skeleton=" in str(caught.value)


def test_nan_keypoints(dataset):
    bad = annotation()
    bad["keypoints"][0] = float("nan")
    with pytest.raises(InputError, match=r"NaN or infinite: nose.*coco/a#1"):
        dataset([bad])
    persons = dataset([bad, annotation(id=2)], options={"on_bad": "skip"})
    assert len(persons) == 1 and "nose" in persons.skipped[0][1]
    bad["keypoints"][2] = 0  # not annotated: its value means nothing
    assert dataset([bad])[0].keypoints_px[0].tolist() == [0, 20]


def test_box_outside_the_image(dataset):
    with pytest.raises(InputError, match=r"outside the image of 64 x 48.*coco/a#1"):
        dataset([annotation(bbox=[100, 100, 20, 20])])
    with pytest.raises(InputError, match="finite"):
        dataset([annotation(bbox=[1, 1, float("nan"), 20])])


def test_missing_images_and_folders(dataset, tmp_path):
    images = [
        {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
        {"id": 8, "file_name": "absent.png"},
        {"id": 9, "file_name": "unused.png"},
    ]
    annotations = [annotation(), annotation(id=2, image_id=8)]
    with pytest.raises(FileError, match=r"1 missing.*absent\.png"):
        dataset(annotations, images)
    persons = dataset(annotations, images, {"on_missing": "skip"})
    assert persons.skipped == (("coco/absent#2", "its image is missing"),)
    with pytest.raises(FileError, match="no image folder"):
        CocoKeypoints(tmp_path / "a.json", tmp_path / "nowhere")
    with pytest.raises(FileError, match="could not read"):
        CocoKeypoints(tmp_path / "nowhere.json", tmp_path)


@pytest.mark.parametrize("content", [[], {}, {"images": [], "annotations": 3}, {"images": [1], "annotations": []}])
def test_files_that_are_not_coco(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        CocoKeypoints(tmp_path / "a.json", tmp_path)


def test_empty_and_unusable_annotations(dataset):
    with pytest.raises(InputError, match="no annotations"):
        dataset([])
    with pytest.raises(InputError, match=r"no usable person.*crowd"):
        dataset([annotation(iscrowd=1)])


def test_duplicate_and_dangling_ids(dataset):
    with pytest.raises(InputError, match="two annotations have the same id"):
        dataset([annotation(), annotation()])
    image = {"id": 7, "file_name": "a.png"}
    with pytest.raises(InputError, match="two images have the same id"):
        dataset(images=[image, image])
    with pytest.raises(InputError, match="unknown image"):
        dataset([annotation(image_id=99)])
    with pytest.raises(InputError, match="no id"):
        dataset([annotation(id=None)])


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "b/../../a.png", "..\\a.png"])
def test_file_names_that_leave_the_folder(dataset, name):
    with pytest.raises(UnsafeFileError, match="leaves the image folder"):
        dataset(images=[{"id": 7, "file_name": name}])


def test_exif_rotated_images_keep_keypoints_on_the_person(tmp_path):
    """The same photo, annotated once as stored and once as a viewer shows it: the spot is found both times."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[6:15, 46:55] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95, exif=exif.tobytes())
    for width, height, x, y in ((60, 40, 50, 10), (40, 60, 29, 50)):
        content = {
            "images": [{"id": 7, "file_name": "a.jpg", "width": width, "height": height}],
            "annotations": [annotation(keypoints=[x, y, 2] * 17, bbox=[0, 0, width, height])],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        person = CocoKeypoints(tmp_path / "a.json", tmp_path)[0]
        crop = crop_person(person, EstimatorSpec("x", (64, 64), mean=(0, 0, 0), std=(1, 1, 1)))
        column, row = crop.keypoints_px[0].round().astype(int)
        assert crop.image[:, row, column].min() > 0.9


def test_real_photos(shared):
    folder = shared / "data" / "images"
    persons = CocoKeypoints(folder / "coco" / "annotations.json", folder / "coco")
    assert len(persons) + len(persons.skipped) == 27 and persons.skeleton == "coco17"
    for person in persons:
        height, width = person.image.load().shape[:2]
        points = person.keypoints_px[person.visible]
        assert (points >= -3).all() and (points <= (width + 3, height + 3)).all()
    videos = CocoKeypoints(folder / "jhmdb" / "annotations.json", folder / "jhmdb", name="jhmdb")
    assert videos.skeleton == "jhmdb15" and len(videos) == 2
