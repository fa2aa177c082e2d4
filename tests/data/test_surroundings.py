"""The picture in which a network looks for a person before it looks at them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posesyn.data.batches import collate, training_sample
from posesyn.data.body_region import BodyRegion
from posesyn.data.crop_augmentation import CropAugmentation, CropVariation
from posesyn.data.surroundings import SCALE
from posesyn.errors import InputError
from posesyn.interfaces import EstimatorSpec
from posesyn.types import ArrayImage, Person

SPEC = EstimatorSpec("seeks", input_size=(64, 64), mean=(0,) * 3, std=(1,) * 3, region="body", surroundings=96)
SIZE = (SPEC.surroundings, SPEC.surroundings)


def person() -> Person:
    """Four joints, each a patch of a colour of its own in a dark picture; the box is 60 x 40."""
    points = np.zeros((17, 2), np.float32)
    seen = np.zeros(17, bool)
    image = np.zeros((120, 160, 3), np.uint8)
    places = {5: (66, 50), 6: (90, 50), 11: (70, 74), 12: (86, 74)}  # shoulders and hips of coco17
    for number, (row, place) in enumerate(places.items()):
        points[row], seen[row] = place, True
        x, y = place
        image[y - 4 : y + 5, x - 4 : x + 5] = (60 * (number + 1), 250 - 60 * number, 120)
    box = np.array([48, 42, 108, 82], np.float32)
    return Person("patches", ArrayImage(image), box, points, seen, "coco17")


def test_without_a_scatter_the_box_lies_in_the_middle_and_fills_a_part():
    sample = training_sample(person(), SPEC)
    assert sample["surroundings"].shape == (3, *SIZE) and sample["surroundings"].dtype == np.float32
    half = np.array([1, 40 / 60]) / SCALE
    np.testing.assert_allclose(sample["surroundings_box"], [-half, half], atol=1e-6)
    assert "surroundings" not in training_sample(person(), replace(SPEC, surroundings=0))


@pytest.mark.parametrize("seed", range(6))
def test_points_and_box_move_with_the_picture(seed):
    """The hips lie between the two lower patches and the box holds all four, whatever was drawn."""
    rng = np.random.default_rng(seed)
    sample = training_sample(person(), SPEC, CropAugmentation(colour=0.0), rng)
    picture = sample["surroundings"]
    region = BodyRegion.of_person(person())
    middle, rim = sample["surroundings_region"]
    # Where the patches are in the picture, found by their pixels alone.
    bright = np.argwhere(picture.max(0) > 0.1)[:, ::-1]
    points = (bright + 0.5) / (SPEC.surroundings / 2) - 1
    low, high = sample["surroundings_box"]
    assert (points >= low - 0.05).all() and (points <= high + 0.05).all()
    upper = np.linalg.norm(points - middle, axis=1) > 0.9 * (24 / 60 / SCALE * 2)
    outwards = (points[upper] - middle) @ (rim - middle)
    assert (outwards > 0).mean() > 0.9  # the shoulders lie towards the rim
    reach = np.linalg.norm(region.rim - region.middle) / (60 * SCALE / 2)
    assert 0.7 < np.linalg.norm(rim - middle) / reach < 1.5


def test_the_scatter_is_drawn_behind_everything_else():
    """A spec that asks for the surroundings gets the same crops as one that does not."""
    rule = CropAugmentation.of_spec(SPEC)
    with_it = training_sample(person(), SPEC, rule, np.random.default_rng(3))
    without = training_sample(person(), replace(SPEC, surroundings=0), rule, np.random.default_rng(3))
    for name, value in without.items():
        np.testing.assert_array_equal(value, with_it[name], err_msg=name)


def test_a_fixed_variation_leaves_the_surroundings_alone():
    plain = training_sample(person(), SPEC)
    varied = training_sample(person(), SPEC, CropVariation(flip=True, rotation=0.4))
    np.testing.assert_array_equal(plain["surroundings"], varied["surroundings"])
    assert not np.array_equal(plain["images"], varied["images"])


def test_a_person_without_hips_has_no_region_but_a_picture():
    lost = replace(person(), visible=np.zeros(17, bool))
    batch = collate([training_sample(person(), SPEC), training_sample(lost, SPEC)])
    assert batch["region_known"].tolist() == [True, False]
    assert not batch["surroundings_region"][1].any() and batch["surroundings"][1].any()


def test_a_negative_size_is_refused():
    with pytest.raises(InputError, match="surroundings must not be negative"):
        replace(SPEC, surroundings=-1)
