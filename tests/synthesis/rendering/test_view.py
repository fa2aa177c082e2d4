from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.synthesis.rendering.view import Film, FilmDeveloper, sample_camera, sample_film


def moving(rng, frames=20, travel=0.0):
    person = rng.uniform([-0.5, 0.0, -0.3], [0.5, 1.7, 0.3], (45, 3))
    person[0] = [0, 0.9, 0]
    joints = np.repeat(person[None], frames, 0)
    joints[:, :, 0] += np.linspace(0, travel, frames)[:, None]
    return joints


@pytest.mark.parametrize("style", ["lab", "wild"])
@pytest.mark.parametrize("travel", [0.0, 6.0])
def test_the_person_stays_in_view_and_the_camera_above_the_floor(rng, style, travel):
    joints = moving(rng, travel=travel)
    for _ in range(40):
        camera = sample_camera(joints, (120, 160), rng, style=style)
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(camera.rotation) > 0
        assert (camera.position[:, 1] > 0.05).all()
        assert camera.rotation[1, 1] < 0  # world up is image up
        points = camera.to_camera(joints)
        assert points[..., 2].min() > 0.3
        pixels = points @ camera.intrinsics.T
        pixels = pixels[..., :2] / pixels[..., 2:]
        assert (pixels > 0).all() and (pixels < [160, 120]).all()
        filled = np.ptp(pixels.reshape(-1, 2), axis=0) / [160, 120]
        assert filled.max() > 0.35
        assert camera.moving == (travel > 1.5)


def test_a_fixed_camera_stays_even_for_a_traveller(rng):
    camera = sample_camera(moving(rng, travel=6.0), (64, 64), rng, mode="fixed")
    assert not camera.moving


def test_wanted_yaw_and_elevation_are_kept_up_to_jitter(rng):
    cameras = [sample_camera(moving(rng), (64, 64), rng, yaw=1.0, elevation=0.4) for _ in range(60)]
    assert abs(np.mean([camera.yaw for camera in cameras]) - 1.0) < 0.1
    assert abs(np.mean([camera.elevation for camera in cameras]) - 0.4) < 0.1
    side = np.mean([camera.position[0] for camera in cameras], 0)
    assert np.arctan2(side[0], side[2]) == pytest.approx(1.0, abs=0.15)


def test_one_frame_and_a_lying_person_are_fine(rng):
    lying = rng.uniform([-0.9, 0.0, -0.3], [0.9, 0.25, 0.3], (1, 45, 3))
    for style in ("lab", "wild"):
        for _ in range(20):
            assert sample_camera(lying, (64, 64), rng, style=style).position[0, 1] > 0.05


def test_bad_input_is_refused(rng):
    with pytest.raises(InputError, match="style"):
        sample_camera(moving(rng), (64, 64), rng, style="movie")
    with pytest.raises(InputError, match="mode"):
        sample_camera(moving(rng), (64, 64), rng, mode="crane")
    with pytest.raises(InputError, match="finite"):
        sample_camera(np.full((2, 45, 3), np.nan), (64, 64), rng)


def test_neutral_film_changes_nothing_and_grain_depends_on_the_frame_only(rng):
    images = torch.from_numpy(rng.integers(0, 256, (5, 12, 10, 3)).astype(np.float32))
    untouched = FilmDeveloper(Film(), (12, 10), 0)(images.clone(), 0)
    assert torch.equal(untouched.float(), images)
    film = Film((1.1, 1.0, 0.9), 1.1, 0.8, 0.3, 6.0)
    together = FilmDeveloper(film, (12, 10), 4)(images.clone(), 0)
    alone = FilmDeveloper(film, (12, 10), 4)(images[3:4].clone(), 3)
    assert torch.equal(together[3], alone[0])
    grey = torch.full((1, 12, 10, 3), 127.5)
    noisy = FilmDeveloper(Film(grain=8.0), (12, 10), 4)(grey, 0).float()
    assert 6 < float(noisy.std()) < 10
    assert sample_film(rng, "lab").contrast == 1.0


def box_of(camera, joints, size):
    """(T, 4) left, top, right, bottom of the flesh around the joints, in shares of the image's sides."""
    points = camera.to_camera(joints)
    pixels = points @ camera.intrinsics.T
    pixels, flesh = pixels[..., :2] / pixels[..., 2:], 0.11 * camera.intrinsics[0, 0] / points[..., 2:]
    return np.concatenate([(pixels - flesh).min(1), (pixels + flesh).max(1)], 1) / np.tile(size, 2)


@pytest.mark.parametrize(
    "cuts", [(0, 0, 0, 0.4), (0.3, 0, 0, 0), (0, 0, 0.25, 0.3), (0, 0.35, 0, 0), (0.2, 0, 0.2, 0), (0.1, 0.2, 0.1, 0.2)]
)
def test_the_border_cuts_off_the_share_that_is_asked_for(rng, cuts):
    joints = moving(rng, frames=3)
    for _ in range(10):
        camera = sample_camera(joints, (120, 160), rng, truncation=cuts)
        left, top, right, bottom = np.median(box_of(camera, joints, (160, 120)), 0)
        got = [
            -left / (right - left),
            -top / (bottom - top),
            (right - 1) / (right - left),
            (bottom - 1) / (bottom - top),
        ]
        for share, wanted, opposite in zip(got, cuts, (*cuts[2:], *cuts[:2])):
            if wanted and not opposite:
                assert share == pytest.approx(wanted, abs=0.03)
            if not wanted and not opposite and not ((cuts[0] and cuts[2]) or (cuts[1] and cuts[3])):
                assert share < 0.01  # what shall not be cut off is inside
        assert (camera.position[:, 1] > 0.05).all() and camera.to_camera(joints)[..., 2].min() > 0.1
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-6)


def test_no_cut_is_the_same_camera_as_none(rng):
    joints = moving(rng)
    cameras = [
        sample_camera(joints, (64, 64), np.random.default_rng(3), truncation=cuts) for cuts in (None, (0, 0, 0, 0))
    ]
    np.testing.assert_array_equal(cameras[0].translation, cameras[1].translation)
