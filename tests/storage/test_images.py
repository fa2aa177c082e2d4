"""ImageFile against Pillow on ordinary files, and against files nobody vouches for."""

from __future__ import annotations

import os
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.storage.images import ImageFile, decode_image


@pytest.fixture
def picture(rng) -> np.ndarray:
    """(40, 60, 3) smooth picture with a red spot around x=50, y=10 that survives JPEG."""
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([columns * 2, rows * 3, columns + rows], -1).astype(np.uint8)
    image[6:15, 46:55] = (250, 10, 10)
    return image


def save_with_orientation(image: np.ndarray, path, code: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = code
    Image.fromarray(image).save(path, quality=95, exif=exif.tobytes())


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_lossless_formats_come_back_unchanged(tmp_path, picture, suffix):
    Image.fromarray(picture).save(tmp_path / f"a{suffix}")
    loaded = ImageFile(tmp_path / f"a{suffix}").load()
    assert loaded.dtype == np.uint8 and loaded.flags.writeable
    np.testing.assert_array_equal(loaded, picture)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_come_back_nearly(tmp_path, picture, suffix):
    Image.fromarray(picture).save(tmp_path / f"a{suffix}", quality=95)
    assert np.abs(ImageFile(tmp_path / f"a{suffix}").load().astype(int) - picture).mean() < 4


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 7, 8])
def test_raw_ignores_and_exif_applies_the_orientation(tmp_path, picture, code):
    path = tmp_path / "a.jpg"
    save_with_orientation(picture, path, code)
    raw, upright = ImageFile(path, "raw").load(), ImageFile(path, "exif").load()
    assert np.abs(raw.astype(int) - picture).mean() < 4
    # The EXIF standard in terms of NumPy.
    expected = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }[code](raw)
    np.testing.assert_array_equal(upright, expected)
    assert ImageFile(path, "exif").size() == upright.shape[1::-1]
    assert ImageFile(path, "raw").size() == (60, 40)


@pytest.mark.parametrize(("size", "turned"), [((60, 40), False), ((40, 60), True)])
def test_auto_takes_the_reading_of_the_annotated_size(tmp_path, picture, size, turned):
    path = tmp_path / "a.jpg"
    save_with_orientation(picture, path, 6)
    image = ImageFile(path, "auto", size)
    assert image.size() == size
    loaded = image.load()
    assert loaded.shape == (size[1], size[0], 3)
    x, y = (39 - 10, 50) if turned else (50, 10)  # where the red spot was annotated
    assert loaded[y, x, 0] > 200 and loaded[y, x, 1] < 60


def test_auto_keeps_stored_pixels_where_both_readings_fit(tmp_path, picture):
    save_with_orientation(picture, tmp_path / "a.jpg", 3)
    image = ImageFile(tmp_path / "a.jpg", "auto", (60, 40)).load()
    assert image[10, 50, 0] > 200


def test_another_size_than_annotated_is_an_error(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(FileError, match=r"expected 120 x 80, got 60 x 40"):
        ImageFile(tmp_path / "a.png", expected_size=(120, 80)).load()


def test_grey_cmyk_palette_and_bilevel_become_rgb(tmp_path, picture):
    image = Image.fromarray(picture)
    for mode, name in (("L", "g.png"), ("CMYK", "c.jpg"), ("P", "p.png"), ("1", "b.png"), ("L", "g.jpg")):
        image.convert(mode).save(tmp_path / name, quality=95)
        loaded = ImageFile(tmp_path / name).load()
        assert loaded.shape == (40, 60, 3), name
        reference = np.asarray(image.convert(mode).convert("RGB")).astype(int)
        assert np.abs(loaded - reference).mean() < 4, name


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 60 * 40).astype(np.uint16).reshape(40, 60)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    loaded = ImageFile(tmp_path / "a.png").load()
    np.testing.assert_array_equal(loaded[..., 1], np.rint(ramp / 257).astype(np.uint8))


def test_transparency_is_put_on_the_background(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (200, 0, 0, 255)
    rgba[3] = (200, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    loaded = ImageFile(tmp_path / "a.png").load()
    assert loaded[0, 0].tolist() == [200, 0, 0] and loaded[2, 0].tolist() == [255, 255, 255]
    assert loaded[3, 0].tolist() == [227, 127, 127]
    assert ImageFile(tmp_path / "a.png", background=(0, 0, 0)).load()[2, 0].tolist() == [0, 0, 0]


def test_unicode_spaces_and_long_names(tmp_path, picture):
    names = ["Füße springen 跳.png", unicodedata.normalize("NFD", "é.png"), "x" * 246 + ".png"]
    for name in names:
        Image.fromarray(picture).save(tmp_path / name)
        assert ImageFile(tmp_path / name).load().shape == (40, 60, 3)
        assert ImageFile(tmp_path / name).name == name


@pytest.mark.parametrize("seed", range(5))
def test_a_png_with_a_flipped_byte_is_refused_and_its_size_is_known_without_decoding(tmp_path, seed):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (200, 150, 3), np.uint8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[rng.integers(100, len(data) - 100)] ^= 255
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(FileError):
        ImageFile(tmp_path / "a.png").load()
    with pytest.raises(FileError):
        decode_image(bytes(data), "a.png")
    assert ImageFile(tmp_path / "a.png").size() == (150, 200)


def test_truncated_jpeg_is_refused(tmp_path, picture):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match="truncated"):
        ImageFile(tmp_path / "a.jpg").load()


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_files_that_are_no_images(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.png"):
        ImageFile(tmp_path / "a.png").load()


def test_missing_folder_pipe_and_null_byte(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("absent.png", ".", "pipe.png", "a\0b.png"):
        with pytest.raises(FileError):
            ImageFile(tmp_path / name).load()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_pixel_bomb_is_refused_from_the_header(tmp_path, side):
    idat = b"IDAT" + zlib.compress(b"\0")
    chunk = struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    (tmp_path / "bomb.png").write_bytes(png_header(side, side) + chunk)
    with pytest.raises(UnsafeFileError, match="too many pixels"):
        ImageFile(tmp_path / "bomb.png").load()
    with pytest.raises(UnsafeFileError, match="too many pixels"):
        ImageFile(tmp_path / "bomb.png").size()


def test_formats_outside_the_list_are_refused(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.tiff")
    with pytest.raises(FileError, match="not a readable image"):
        ImageFile(tmp_path / "a.tiff").load()


def test_unknown_orientation():
    with pytest.raises(InputError, match="auto, raw or exif"):
        ImageFile("a.png", "sideways")


def test_decode_image_reads_bytes(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image((tmp_path / "a.png").read_bytes(), "a"), picture)
