"""What counts as a picture, what it is called, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posesyn.data.pictures import open_pictures
from posesyn.errors import FileError, InputError
from posesyn.types import ArrayImage


def picture(path: Path, width: int = 12, height: int = 8, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    Image.fromarray(pixels).save(path, **options)
    return path


def names(images) -> list[str]:
    return [one.name for one in open_pictures(images)]


def test_a_folder_gives_its_pictures_by_name_and_nothing_else(tmp_path):
    for name in ("b.jpg", "a.PNG", "c.webp", "deeper/d.jpg", "._a.jpg"):
        picture(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    assert names(tmp_path) == names(str(tmp_path)) == names([tmp_path]) == ["a.PNG", "b.jpg", "c.webp"]


def test_files_keep_their_order_and_are_taken_once(tmp_path):
    first, second = picture(tmp_path / "z.png"), picture(tmp_path / "a.data", format="PNG")
    assert names([first, second, str(first), tmp_path]) == ["z.png", "a.data"]


def test_files_of_one_name_are_told_apart_by_their_folder(tmp_path):
    files = [picture(tmp_path / folder / "1.png") for folder in ("x", "y")]
    assert names(files) == [file.as_posix() for file in files]


def test_arrays_colour_and_grey(rng):
    colour = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
    (one,) = open_pictures(colour)
    assert (one.image.load() == colour).all() and one.name == "image 0"
    (grey,) = open_pictures(colour[..., 0])
    assert (grey.image.load() == colour[..., :1]).all()
    assert names([colour, colour]) == names(np.stack((colour, colour))) == ["image 0", "image 1"]
    assert names([ArrayImage(colour, "mine"), colour]) == ["mine", "image 1"]


def test_a_file_is_turned_as_a_viewer_turns_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    (one,) = open_pictures(picture(tmp_path / "a.png", 12, 8, exif=exif))
    assert one.image.load().shape == (12, 8, 3)


@pytest.mark.parametrize(
    ("images", "kind", "words"),
    [
        ([], InputError, "no pictures"),
        (7, InputError, "got int"),
        ([None], InputError, "got NoneType"),
        (np.zeros((4, 4, 4), np.uint8), InputError, "(4, 4, 4) uint8"),
        (np.zeros((4, 4, 3)), InputError, "float64"),
        (np.zeros(3, np.uint8), InputError, "(3,) uint8"),
        ("missing.jpg", FileError, "no such picture or folder"),
        ([ArrayImage(np.zeros((4, 4, 3), np.uint8), "a")] * 2, InputError, "same name"),
    ],
)
def test_what_is_no_picture_is_refused(images, kind, words):
    with pytest.raises(kind) as error:
        open_pictures(images)
    assert words in str(error.value)


def test_a_folder_without_pictures_says_what_it_looked_for(tmp_path):
    picture(tmp_path / "deeper" / "a.jpg")
    with pytest.raises(FileError, match=r"holds no pictures.*\.jpg.*folders in it are not searched"):
        open_pictures(tmp_path)
