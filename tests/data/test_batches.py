"""Training batches, checked against the labels they come from by projecting the one onto the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.body import load_body
from posesyn.data.batches import Neighbours, collate, training_sample
from posesyn.data.crop_augmentation import CropVariation
from posesyn.data.crops import normalise_keypoints
from posesyn.errors import InputError
from posesyn.interfaces import EstimatorSpec
from posesyn.types import ArrayImage, Person
from tests.factories import make_labelled

SPEC = EstimatorSpec("test", input_size=(64, 64))
CROWD = replace(SPEC, neighbours=4)
VARIATIONS = [
    CropVariation(),
    CropVariation(rotation=0.5, scale=1.2, shift=(0.05, -0.1)),
    CropVariation(flip=True, rotation=-0.3),
]


@pytest.fixture(scope="module")
def labelled(body) -> Person:
    """A body 4 m before the camera of a 160 x 120 image."""
    rng = np.random.default_rng(5)
    rotvec = 0.3 * rng.standard_normal((24, 3))
    rotvec[0] = (np.pi, 0.2, 0.1)
    camera = [[200, 0, 79.5], [0, 200, 59.5], [0, 0, 1]]
    made = make_labelled(
        body, "body", pose_rotvec=rotvec, betas=rng.standard_normal(10), transl_cam=(0.1, 0, 4), intrinsics=camera
    )
    return replace(made, box_xyxy=made.box_xyxy + np.array([-3, -3, 3, 3]))


@pytest.fixture
def coco(labelled) -> Person:
    keypoints, present = skeletons.convert(labelled.keypoints_px, "smpl45", "coco17")
    present[3] = False
    return replace(labelled, person_id="coco", keypoints_px=keypoints, visible=present, skeleton="coco17", labels=None)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_labels_stay_consistent_with_the_crop(labelled, variation):
    batch = collate([training_sample(labelled, SPEC, variation)])
    body = load_body(size="small")
    # Pose, betas and translation together give the joints ...
    joints = body(batch["pose_rotmat"], batch["betas"], batch["transl_cam"]).joints
    relative = joints - joints[:, :1]
    tolerance = 0.02 if variation.flip else 1e-5  # the body itself is not exactly symmetric
    assert torch.allclose(relative, batch["joints"], atol=tolerance)
    # ... and the joints project to the keypoints, by the camera of the crop.
    points = (batch["joints"] + joints[:, :1]) @ batch["intrinsics"].transpose(1, 2)
    pixels = points[..., :2] / points[..., 2:]
    assert (pixels - batch["keypoints_px"]).abs().max() < (1.0 if variation.flip else 0.02)
    assert torch.allclose(batch["joints_norm"], batch["keypoints_norm"], atol=1e-3)  # no joint of this person is hidden


def test_shapes_and_types(labelled, coco):
    batch = collate([training_sample(labelled, SPEC, is_synthetic=True), training_sample(coco, SPEC)])
    shapes = {
        "images": (2, 3, 64, 64),
        "keypoints_px": (2, 45, 2),
        "keypoints_norm": (2, 45, 2),
        "visible": (2, 45),
        "has_labels": (2,),
        "pose_rotmat": (2, 24, 3, 3),
        "betas": (2, 10),
        "joints": (2, 45, 3),
        "joints_norm": (2, 45, 2),
        "transl_cam": (2, 3),
        "intrinsics": (2, 3, 3),
        "affine": (2, 2, 3),
        "box_centers": (2, 2),
        "box_sizes": (2,),
        "image_sizes": (2, 2),
        "is_synthetic": (2,),
    }
    assert batch.keys() == {*shapes, "person_ids"}
    for name, shape in shapes.items():
        masks = ("visible", "has_labels", "is_synthetic")
        kind = torch.bool if name in masks else torch.float32
        assert (tuple(batch[name].shape), batch[name].dtype) == (shape, kind), name
    assert batch["person_ids"] == ("body", "coco")
    assert batch["has_labels"].tolist() == [True, False]
    assert batch["is_synthetic"].tolist() == [True, False]
    assert torch.equal(batch["joints"][0, 0], torch.zeros(3))


def test_2d_annotations_become_smpl45(labelled, coco):
    full, flat = training_sample(labelled, SPEC), training_sample(coco, SPEC)
    seen = flat["visible"]
    mapping = skeletons.mapping("coco17", "smpl45")
    assert seen.sum() == (mapping >= 0).sum() - 1  # the ear that was not annotated
    np.testing.assert_allclose(flat["keypoints_px"][seen], full["keypoints_px"][seen], atol=1e-3)
    assert (flat["keypoints_px"][~seen] == 0).all()
    assert (flat["keypoints_norm"][~seen] == 0).all()
    assert np.array_equal(flat["pose_rotmat"], np.tile(np.eye(3), (24, 1, 1)))


def test_the_affine_carries_full_image_points_into_the_crop(labelled):
    sample = training_sample(labelled, SPEC, VARIATIONS[1])
    points = labelled.keypoints_px @ sample["affine"][:, :2].T + sample["affine"][:, 2]
    np.testing.assert_allclose(points, sample["keypoints_px"], atol=1e-3)


def test_normalised_keypoints_have_the_middle_at_zero_and_borders_at_one():
    points = np.array([[-0.5, -0.5], [31.5, 23.5], [63.5, 47.5]])
    np.testing.assert_allclose(normalise_keypoints(points, (48, 64)), [[-1, -1], [0, 0], [1, 1]])


def test_an_empty_batch_is_refused():
    with pytest.raises(InputError, match="at least one sample"):
        collate([])


@pytest.mark.parametrize("variation", VARIATIONS)
def test_neighbours_are_in_the_frame_of_the_crop(labelled, coco, variation):
    beside = replace(coco, person_id="beside", keypoints_px=coco.keypoints_px + np.float32([15, -4]))
    sample = training_sample(labelled, CROWD, variation, neighbours=(coco, beside))
    points, visible = sample["neighbours_px"], sample["neighbours_visible"]
    assert not visible[2:].any()
    alone = training_sample(coco, SPEC, variation)
    assert np.array_equal(visible[0], alone["visible"])
    # The crop is that of another box, so the two agree after each one's own way back to the image.
    for row, person in enumerate((coco, beside)):
        own = training_sample(person, SPEC, variation)
        places = []
        for affine, pixels in ((sample["affine"], points[row]), (own["affine"], own["keypoints_px"])):
            places.append(np.linalg.solve(affine[:, :2], (pixels - affine[:, 2]).T).T[own["visible"]])
        np.testing.assert_allclose(*places, atol=1e-2)
    assert not training_sample(labelled, CROWD)["neighbours_visible"].any()
    assert "neighbours_px" not in training_sample(labelled, SPEC, neighbours=(coco,))


def at(name: str, left: float, image_id: str) -> Person:
    box = np.array([left, 0, left + 40, 40])
    image = ArrayImage(np.zeros((40, 200, 3), np.uint8))
    return Person(name, image, box, np.zeros((17, 2)), np.zeros(17, bool), "coco17", image_id=image_id)


def test_others_of_the_image_come_nearest_first():
    data = [at("a", 0, "x"), at("b", 30, "x"), at("c", 10, "x"), at("d", 0, "y"), at("e", 0, "")]
    found = Neighbours(data, most=2)
    assert [p.person_id for p in found.of(0)] == ["c", "b"]
    assert [p.person_id for p in found.of(1)] == ["c", "a"]
    assert found.of(3) == found.of(4) == []
    assert [p.person_id for p in Neighbours(data, most=1).of(2)] == ["a"]
