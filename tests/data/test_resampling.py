"""Antialiased sampling against Pillow, SciPy and what must hold for any filter."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from posesyn.data.resampling import blur_variance, warp
from posesyn.errors import InputError
from posesyn.geometry.cameras import apply_affine, crop_affine, invert_affine

SIZE = (48, 48)


def region(side: float, middle: tuple[float, float] = (200.0, 150.0), rotation: float = 0.0) -> np.ndarray:
    """The map of a square crop."""
    half = side / 2
    box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    return crop_affine(box, SIZE, 1.0, rotation=rotation)


@pytest.fixture
def noise(rng) -> np.ndarray:
    return rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [62.0, 110.0, 131.7, 215.0, 289.3])
def test_average_is_pillows_bilinear_resize(noise, side):
    middle = np.array([199.3, 150.2])
    # Pillow counts from the corner of the first pixel, we from its middle.
    box = (*(middle + 0.5 - side / 2), *(middle + 0.5 + side / 2))
    expected = np.asarray(Image.fromarray(noise).resize(SIZE[::-1], Image.Resampling.BILINEAR, box=tuple(box)), float)
    errors = {}
    for kind in (None, "average"):
        found = warp(noise, region(side, tuple(middle)), SIZE, kind).astype(float)
        errors[kind] = np.abs(found - expected)[2:-2, 2:-2].mean()
    # Noise is the hardest picture; what is left is the bilinear sampling between pixels, most where the crop is nearly
    # as large as its region.
    assert errors["average"] < 8 and (side < 100 or errors["average"] < 0.2 * errors[None])


@pytest.mark.parametrize("side", [200.0, 240.0, 290.0])
def test_gaussian_is_a_blur_of_the_whole_image(noise, side):
    sigma = (side / 48 / 2 - 1) / 2
    blurred = np.stack([gaussian_filter(noise[..., i].astype(float), sigma) for i in range(3)], -1)
    expected = cv2.warpAffine(blurred, region(side), SIZE, flags=cv2.INTER_LINEAR)
    found = warp(noise, region(side), SIZE, "gaussian").astype(float)
    plain = warp(noise, region(side), SIZE).astype(float)
    assert np.abs(found - expected).mean() < 0.3 * np.abs(plain - expected).mean()


def test_strength_of_the_blur():
    assert blur_variance(3.0, None) == 0
    assert blur_variance(1.0, "average") == 0 and blur_variance(0.5, "average") == 0
    # A triangle of half width 4 has the variance 16/6; bilinear sampling brings 1/6.
    assert blur_variance(4.0, "average") == pytest.approx(15 / 6)
    assert blur_variance(2.2, "gaussian") == 0
    assert blur_variance(6.0, "gaussian") == pytest.approx(1.0)


@pytest.mark.parametrize("rotation", [0.0, 0.5])
@pytest.mark.parametrize("period", [2, 3, 5])
def test_what_is_too_fine_for_the_crop_becomes_grey(period, rotation):
    """Stripes and squares above the crop's highest frequency: without a filter they come back as false patterns."""
    rows, columns = np.mgrid[:300, :400]
    wave = np.cos(2 * np.pi * rows / period) * np.cos(2 * np.pi * columns / period)
    image = np.repeat(np.uint8(np.round(127.5 + 127 * wave))[..., None], 3, axis=2)
    spread = {}
    for kind in (None, "average", "gaussian"):
        crop = warp(image, region(270.0, rotation=rotation), SIZE, kind)[6:-6, 6:-6]
        spread[kind] = crop.std()
        if kind == "average":
            assert abs(crop.mean() - 127.5) < 2
    assert spread["average"] < 0.1 * spread[None] + 1
    assert spread["gaussian"] < spread[None]


@pytest.mark.parametrize("rotation", [0.0, -0.7])
def test_coarse_patterns_stay(rotation):
    columns = np.tile(np.arange(400.0), (300, 1))
    image = np.repeat(np.uint8(np.round(127.5 + 100 * np.cos(2 * np.pi * columns / 60)))[..., None], 3, axis=2)
    affine = region(200.0, rotation=rotation)
    rows, cols = np.mgrid[:48, :48]
    x = apply_affine(invert_affine(affine), np.stack((cols, rows), -1).astype(float))[..., 0]
    expected = 127.5 + 100 * np.cos(2 * np.pi * x / 60)
    for kind in (None, "average", "gaussian"):
        crop = warp(image, affine, SIZE, kind)[..., 0].astype(float)
        assert np.abs(crop - expected).max() < 5


def test_a_small_shift_changes_less(noise):
    side, changes = 220.0, {}
    for kind in (None, "average"):
        pair = [warp(noise, region(side, (200 + step, 150.0)), SIZE, kind) for step in (0.0, 0.21 * side / 48)]
        changes[kind] = np.abs(pair[0].astype(float) - pair[1]).mean()
    assert changes["average"] < 0.25 * changes[None]


@pytest.mark.parametrize("kind", ["average", "gaussian"])
def test_larger_pictures_are_not_blurred(noise, kind):
    np.testing.assert_array_equal(warp(noise, region(47.0), SIZE, kind), warp(noise, region(47.0), SIZE))


@pytest.mark.parametrize("kind", ["average", "gaussian"])
@pytest.mark.parametrize("side", [110.0, 230.0, 1000.0])
def test_mirror_and_quarter_turn(noise, side, kind):
    image = np.ascontiguousarray(noise[:, :300])
    middle = (149.5, 149.5)
    straight = warp(image, region(side, middle), SIZE, kind).astype(float)
    mirrored = region(side, middle)
    mirrored[0] = -mirrored[0]
    mirrored[0, 2] += 47
    quarter = warp(image, region(side, middle, np.pi / 2), SIZE, kind).astype(float)
    assert np.abs(warp(image, mirrored, SIZE, kind)[:, ::-1] - straight).max() <= 6
    assert np.abs(np.rot90(quarter) - straight).max() <= 6


def test_beyond_the_image_it_is_black(noise):
    white = np.full_like(noise, 255)
    for kind in ("average", "gaussian"):
        crop = warp(white, region(700.0), SIZE, kind)
        rows, cols = np.mgrid[:48, :48]
        places = apply_affine(invert_affine(region(700.0)), np.stack((cols, rows), -1).astype(float))
        step = 700 / 48
        inside = ((places > step) & (places < np.array([399, 299]) - step)).all(-1)
        outside = ((places < -2 * step) | (places > np.array([399, 299]) + 2 * step)).any(-1)
        assert (crop[inside] > 250).all() and (crop[outside] < 5).all()


@pytest.mark.parametrize("side", [600.0, 5e3, 1e5, 1e9])
@pytest.mark.parametrize("shape", [(300, 400), (1, 400), (300, 1), (3, 5)])
def test_any_region_of_any_image(shape, side):
    """A region far larger than its image must not ask for its size in memory."""
    image = np.full((*shape, 3), 200, np.uint8)
    for kind in ("average", "gaussian"):
        for middle in ((0.0, 0.0), (390.0, 290.0), (-4000.0, 9000.0)):
            crop = warp(image, region(side, middle, 0.3), SIZE, kind)
            assert crop.shape == (48, 48, 3) and crop.dtype == np.uint8 and crop.max() <= 201


def test_parts_of_larger_arrays_and_odd_sizes(noise):
    view = noise[20:250, 30:360]
    affine = crop_affine((10, 10, 300, 200), (32, 56), 1.0, rotation=0.2)
    copied = warp(np.ascontiguousarray(view), affine, (32, 56), "average")
    np.testing.assert_array_equal(warp(view, affine, (32, 56), "average"), copied)
    assert copied.shape == (32, 56, 3)


def test_a_map_without_inverse(noise):
    for affine in (np.zeros((2, 3)), np.full((2, 3), np.nan)):
        with pytest.raises(InputError, match="no size"):
            warp(noise, affine, SIZE, "average")
