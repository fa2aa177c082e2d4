from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from posesyn.errors import FileError
from posesyn.synthesis.rendering.appearance.appearance import Backgrounds, PhotoFolder, place_background
from posesyn.synthesis.rendering.appearance.scenes import Outdoors, Room
from posesyn.synthesis.rendering.mesh.shading import pixel_rays
from posesyn.synthesis.rendering.view import sample_camera

SIZE = (48, 64)


@pytest.fixture
def person(rng):
    joints = rng.uniform([-0.4, 0.0, -0.3], [0.4, 1.7, 0.3], (10, 45, 3))
    joints[:, 0] = [0, 0.9, 0]
    return joints


@pytest.mark.parametrize("style", ["lab", "wild"])
def test_scenes_are_pictures_with_the_floor_below_the_horizon(rng, person, style):
    kinds = set()
    for _ in range(40):
        camera = sample_camera(person, SIZE, rng, style=style)
        scene, kind = Backgrounds(None, style).draw(rng, camera, person[:, 0] * (1, 0, 1), 0.0, SIZE)
        rays = pixel_rays(camera, SIZE)
        picture, ground = scene.look(camera.position[0], rays)
        assert picture.shape == (*SIZE, 3) and np.isfinite(picture).all()
        assert ground.shape == SIZE and not (ground & (rays[..., 1] >= 0)).any()
        kinds.add(kind)
    assert kinds == (
        {"room", "plain", "gradient"} if style == "lab" else {"room", "outdoors", "clutter", "noise", "gradient"}
    )


def test_the_sky_is_above_and_the_ground_below(rng, person):
    for _ in range(12):
        camera = sample_camera(person, SIZE, rng)
        scene, _ = Backgrounds().draw(rng, camera, person[:, 0], 0.0, SIZE)
        rays = pixel_rays(camera, SIZE)
        _, ground = scene.look(camera.position[0], rays)
        if isinstance(scene, Outdoors):
            np.testing.assert_array_equal(ground, rays[..., 1] / np.hypot(rays[..., 0], rays[..., 2]) < np.tan(-1e-3))
        if isinstance(scene, Room):  # camera and person are inside, and the floor at the person's feet is seen as floor
            feet = camera.to_camera(np.zeros((1, 1, 3)))[0, 0] @ camera.intrinsics.T
            column, row = np.rint(feet[:2] / feet[2]).astype(int)
            if 0 <= row < SIZE[0] and 0 <= column < SIZE[1] and rays[row, column, 1] < -0.05:
                assert ground[row, column]


def test_photos_are_cut_from_the_folder(tmp_path, rng, person):
    folder = tmp_path / "hintergründe"
    folder.mkdir()
    for i, shape in enumerate([(80, 40), (30, 200), (500, 900)]):
        Image.fromarray(np.full((*shape, 3), 60 * (i + 1), np.uint8)).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("not a picture")
    photos = PhotoFolder(folder)
    names = set()
    for _ in range(20):
        picture, name = photos.draw(rng, SIZE)
        assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
        assert (picture == 60 * (int(name[0]) + 1)).all()
        names.add(name)
    assert names == {"0.png", "1.png", "2.png"}
    camera = sample_camera(person, SIZE, rng)
    _, kind = Backgrounds(folder).draw(rng, camera, person[:, 0], 0.0, SIZE)
    assert kind.startswith("photo:")


def test_bad_folders_are_refused(tmp_path, rng):
    with pytest.raises(FileError, match="does not exist"):
        PhotoFolder(tmp_path / "nowhere")
    with pytest.raises(FileError, match="no picture"):
        PhotoFolder(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    with pytest.raises(FileError, match=r"broken\.jpg"):
        PhotoFolder(tmp_path).draw(rng, SIZE)


def test_a_persons_place_comes_behind_the_rendered_person():
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[60:160, 140:180] = 255
    keypoints = np.array([[[20.0, 10], [40, 110]]])
    placed = place_background(picture, (140, 60, 180, 160), keypoints, (128, 64))
    rows, columns = np.nonzero(placed[..., 0] > 128)
    assert abs(rows.min() - 10) <= 1 and abs(rows.max() - 109) <= 1
    assert abs(columns.mean() - 30) <= 1
    assert place_background(picture, None, keypoints, (128, 64)).shape == (128, 64, 3)
    assert place_background(picture, (-50, -50, 400, 400), keypoints * 0, (128, 64)).shape == (128, 64, 3)
