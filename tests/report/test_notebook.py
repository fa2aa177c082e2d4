"""Motions that show themselves."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import pytest
from PIL import Image

from posesyn.errors import InputError
from posesyn.report import motion_html, register, show
from tests.factories import make_motion


def picture(text: str) -> Image.Image:
    data = re.search(r'src="data:image/\w+;base64,([^"]+)"', text).group(1)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def formatter():
    from IPython.core.formatters import DisplayFormatter

    made = DisplayFormatter()
    assert register(made.formatters["text/html"])
    return made


def test_a_motion_shows_itself():
    """As IPython does: the object at the end of a cell is asked for its HTML."""
    motion = make_motion(frames=12)
    data, _ = formatter().format(motion)
    assert set(data) == {"text/html", "text/plain"} and data["text/plain"].startswith("Motion(")
    shown = picture(data["text/html"])
    assert shown.n_frames == 12 and max(shown.size) <= 200
    assert "12 frames" in data["text/html"]


def test_captions_are_text_not_markup():
    from dataclasses import replace

    motion = replace(make_motion(frames=2), caption="<script>alert(1)</script>", motion_id='"x" & <b>')
    text = motion_html(motion)
    assert "<script" not in text and "&lt;script&gt;" in text and "&quot;x&quot; &amp; &lt;b&gt;" in text


def test_long_motions_are_thinned_out_and_several_stand_side_by_side():
    motion = make_motion(frames=450)
    assert picture(motion_html(motion, size=48)).n_frames <= 150
    both = show([make_motion(frames=2), make_motion(frames=3)], size=48)._repr_html_()
    assert both.count("<figure") == 2
    assert show(make_motion(frames=2), size=48)._repr_html_().count("<figure") == 1
    with pytest.raises(InputError, match="only motions"):
        show(["walk"])


def test_values_alone_load_no_drawing():
    code = (
        "import sys, posesyn.types as t; assert 'PIL' not in sys.modules and 'torch' not in sys.modules; "
        "assert 'posesyn.report' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
