"""Motions that show themselves."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import pytest
from PIL import Image

from posesyn.data import RenderedClips
from posesyn.errors import InputError
from posesyn.report import motion_html, person_html, register, show
from posesyn.storage.images import ImageFile
from tests.factories import make_clip, make_motion, make_person, make_report


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


def test_clips_persons_reports_and_data_sets_show_themselves(tmp_path):
    show_as = formatter()
    clip = make_clip("c<1>", frames=4)
    report = make_report(20, 12, 3)
    for value, figures, words in (
        (clip, 1, "4 frames of 48 x 48"),
        (make_person("<b>"), 1, "17 joints of coco17"),
        (report.scored[0], 1, "rank 0"),
        (report, 8, "20 persons scored: 12 challenging, 3 non-challenging"),
        (RenderedClips([clip, make_clip("d")], min_visible=0), 8, "RenderedClips, 9 persons"),
    ):
        data, _ = show_as.format(value)
        text = data["text/html"]
        assert text.count("<figure") == figures and words in text and "<b>:" not in text and "c<1>" not in text
    assert "text/html" not in show_as.format([1, 2])[0]
    assert show([clip, report.scored[0]])._repr_html_().count("<figure") == 2


def test_an_image_that_is_gone_is_said_in_words():
    person = make_person(image=ImageFile("gone.jpg"))
    assert "could not read an image" in person_html(person)


def test_a_running_notebook_is_told_by_importing_posesyn():
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as S; shell = S.instance(); import sys, posesyn; "
        "f = shell.display_formatter.formatters['text/html']; "
        "assert ('posesyn.types.motion', 'Motion') in f.deferred_printers; "
        "assert not {'posesyn.report.overlays', 'matplotlib', 'PIL', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not register()
