import base64
import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from posesyn.errors import InputError
from posesyn.report.embedding import data_uri, encode_figure, encode_image, figure_uri, image_uri, shrink


def decoded(uri: str) -> Image.Image:
    head, body = uri.split(",", 1)
    assert head.endswith(";base64")
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_image_uri_round_trip(rng):
    image = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    uri = image_uri(image, quality=95)
    assert uri.startswith("data:image/jpeg;base64,")
    assert np.abs(np.asarray(decoded(uri)).astype(int) - image).max() <= 4


def test_large_images_are_downscaled_and_small_ones_kept():
    assert Image.open(io.BytesIO(encode_image(np.zeros((1000, 2000, 3), np.uint8), max_size=100))).size == (100, 50)
    small = np.zeros((8, 9, 3), np.uint8)
    assert shrink(small, 100) is small
    assert shrink(np.zeros((1, 5000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_figures_are_deterministic_and_ask_for_nothing():
    def figure():
        figure = Figure()
        figure.add_subplot().plot([1, 2], label="a")
        return figure

    first, second = encode_figure(figure()), encode_figure(figure())
    assert first == second
    assert b"<image" not in first and b"font-family" not in first
    assert figure_uri(figure()).startswith("data:image/svg+xml;base64,")
    assert decoded(figure_uri(figure(), "png")).format == "PNG"


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_bad_images(image):
    with pytest.raises(InputError, match="must be RGB"):
        image_uri(image)


def test_bad_bytes_and_form():
    with pytest.raises(InputError, match="encoded picture"):
        data_uri(b"<script>alert(1)</script>")
    with pytest.raises(InputError, match="picture form"):
        encode_figure(Figure(), "pdf")
