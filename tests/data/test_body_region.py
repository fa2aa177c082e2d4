"""The circle around a body: people stand up in crops of it, whatever way they lie in the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posesyn import skeletons
from posesyn.data.batches import training_sample
from posesyn.data.body_region import REACH, BodyRegion
from posesyn.data.crop_augmentation import CropAugmentation, CropVariation
from posesyn.interfaces import EstimatorSpec
from posesyn.types import ArrayImage, Person
from tests.factories import make_labelled

SPEC = EstimatorSpec("turned", input_size=(64, 64), box_scale=1.25, region="body")
JOINTS = skeletons.get("coco17")


def person(angle: float, hidden: tuple[str, ...] = ()) -> Person:
    """A stick figure, hips at (100, 80), 40 px from the hips to the feet, turned clockwise by ``angle``."""
    places = {"shoulder": (6, -25), "elbow": (10, -15), "wrist": (12, -5), "hip": (4, 0), "knee": (4, 20),
              "ankle": (4, 39.8), "ear": (2, -33), "eye": (1, -33)}  # fmt: skip
    points = np.zeros((17, 2))
    for row, name in enumerate(JOINTS.joints):
        side, _, part = name.partition("_")
        x, y = places.get(part, (0, -32))
        points[row] = (-x if side == "right" else x, y)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ turn.T + (100, 80)
    visible = np.array([name not in hidden for name in JOINTS.joints])
    image = ArrayImage(np.zeros((160, 200, 3), np.uint8))
    return Person("stick", image, np.array([50, 30, 150, 130]), points, visible, "coco17")


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, 3.0, -2.0])
def test_the_region_turns_with_the_person(angle):
    region = BodyRegion.of_person(person(angle))
    assert region.middle == pytest.approx((100, 80))
    assert np.linalg.norm(region.rim - region.middle) == pytest.approx(REACH * 40, rel=1e-3)
    assert region.angle == pytest.approx(angle)
    sample = training_sample(person(angle), SPEC, CropVariation())
    upright = training_sample(person(0.0), SPEC, CropVariation())
    assert sample["keypoints_norm"] == pytest.approx(upright["keypoints_norm"], abs=1e-4)
    # The circle fills the crop but for the growth.
    assert sample["region_norm"] == pytest.approx(np.array([[0, 0], [0, -1 / 1.25]]), abs=1 / 64 + 1e-6)
    assert sample["region_known"]


def test_labels_turn_with_the_region(body):
    """As in an upright crop: what is projected is what is annotated."""
    rotation = np.zeros((24, 3))
    rotation[0] = (0, 0, np.pi - 1.2)  # almost on the side
    camera = [[200, 0, 79.5], [0, 200, 59.5], [0, 0, 1]]
    made = make_labelled(
        body, "lying", pose_rotvec=rotation, betas=np.zeros(10), transl_cam=(0.1, 0, 4), intrinsics=camera
    )
    sample = training_sample(made, SPEC, CropVariation(flip=True, rotation=0.1, scale=1.1))
    seen = sample["visible"]
    assert sample["joints_norm"][seen] == pytest.approx(sample["keypoints_norm"][seen], abs=2e-3)
    hips, shoulders = (
        [skeletons.get("smpl45").index(f"{side}_{part}") for side in ("left", "right")] for part in ("hip", "shoulder")
    )
    upwards = sample["joints"][shoulders].mean(0) - sample["joints"][hips].mean(0)
    assert upwards[1] < -0.9 * np.linalg.norm(upwards)  # stands up in space too, but for the variation


def test_without_hips_or_shoulders_the_box_is_taken():
    lost = person(1.0, ("left_hip", "right_hip"))
    assert BodyRegion.of_person(lost) is None
    sample = training_sample(lost, SPEC, CropVariation())
    box = training_sample(lost, replace(SPEC, region="box"), CropVariation())
    assert np.array_equal(sample["images"], box["images"]) and np.array_equal(sample["affine"], box["affine"])
    assert not sample["region_known"] and not sample["region_norm"].any()
    assert "region_norm" not in box
    one = BodyRegion.of_person(person(0.0, ("left_hip",)))
    assert one is not None and one.middle == pytest.approx((96, 80))


def test_disturbances_are_those_of_regions_in_use():
    assert CropAugmentation.of_spec(replace(SPEC, region="box")) == CropAugmentation()
    assert CropAugmentation.of_spec(SPEC).rotation_deg < CropAugmentation().rotation_deg
