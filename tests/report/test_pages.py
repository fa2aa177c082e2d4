import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from posesyn import report as public
from posesyn.errors import FileError, InputError
from posesyn.report import pages as html
from posesyn.report.cards import RunSummary, format_error
from posesyn.report.pages import MAX_REPORT_BYTES, format_value, write_extraction_report, write_run_report
from posesyn.types import ArrayImage, ErrorReport
from tests.factories import make_clip, make_report, make_scored

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> & {{ 7 * 7 }}"
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source"}


class Page(HTMLParser):
    """Parses a page, checks that its tags are balanced and collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"unclosed {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def check(path: Path) -> Page:
    """The page, after the checks that hold for every report."""
    text = path.read_text("utf-8")
    assert path.stat().st_size < MAX_REPORT_BYTES
    page = Page(text)
    assert not page.all("script") and not page.all("iframe") and not page.all("object")
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        for name in ("src", "href", "srcset", "action"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
    assert "url(" not in text and "@import" not in text
    images = page.all("img")
    assert all(attrs.get("alt") for attrs in images)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in page.all("a")} <= set(ids), "a link leads nowhere"
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))
    assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    return page


def test_extraction_report(tmp_path):
    report = make_report(
        12, 4, 3, skipped=(("coco/1#2", "no visible joint"),), settings={"k": 4, "weights": {"arm": 1.5}}
    )
    size = write_extraction_report(tmp_path / "report.html", report)
    assert size == (tmp_path / "report.html").stat().st_size
    page = check(tmp_path / "report.html")
    assert sum("estimator's prediction" in a["alt"] for a in page.all("img")) == 7
    for words in ("mock/000", "no visible joint", "12 persons scored", "arm: 1.50", "worst:"):
        assert words in page.words
    assert len(page.all("picture")) == 3


def test_number_of_pictures_is_limited_and_said(tmp_path):
    write_extraction_report(tmp_path / "report.html", make_report(12, 6, 6), max_persons=2)
    page = check(tmp_path / "report.html")
    assert sum("estimator's prediction" in a["alt"] for a in page.all("img")) == 4
    assert page.words.count("Showing 2 of 6.") == 2


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 0, 0), (1, 1, 1), (3, 0, 2), (3, 2, 0)])
def test_extraction_report_of_little(tmp_path, counts):
    persons, challenging, easy = counts
    report = make_report(persons, challenging, easy) if persons else ErrorReport((), (), ())
    write_extraction_report(tmp_path / "report.html", report)
    page = check(tmp_path / "report.html")
    assert ("No person was selected as challenging." in page.words) == (challenging == 0)


def test_markup_in_names_is_shown_and_never_run(tmp_path):
    scored = make_scored(0, person_id=EVIL, captions=(EVIL,))
    report = ErrorReport((scored,), (scored,), (scored,), ((EVIL, EVIL),), {EVIL: EVIL})
    write_extraction_report(tmp_path / "extraction.html", report, title=EVIL)
    clip = make_clip(frames=3, size=64, clip_id=EVIL, caption=EVIL, person_id=EVIL, keep=np.array([True, False, True]))
    summary = RunSummary(
        EVIL,
        EVIL,
        rows=[{EVIL: EVIL, "b": 1}],
        table_note=EVIL,
        funnel={EVIL: 1},
        error_series={EVIL: np.arange(5.0)},
        improved=[(scored, scored)],
        worst=[scored],
        clips=[clip],
        settings={EVIL: [EVIL]},
        timings={EVIL: 1.0},
        notes=[EVIL],
    )
    write_run_report(tmp_path / "run.html", summary)
    for name in ("extraction.html", "run.html"):
        page = check(tmp_path / name)
        assert "<script>alert('x')</script>" in page.words  # as text
        assert "{{ 7 * 7 }}" in page.words and "49" not in page.words.split()
        assert not [a for a in page.all("img") if a.get("src") == "x"]


def test_unreadable_image_costs_one_picture_only(tmp_path):
    class Gone:
        name = "gone.jpg"

        def load(self):
            raise FileError("image is missing", where="gone.jpg")

    report = ErrorReport(
        (make_scored(0, image=Gone()), make_scored(1)), (make_scored(0, image=Gone()), make_scored(1)), ()
    )
    write_extraction_report(tmp_path / "report.html", report)
    page = check(tmp_path / "report.html")
    assert "No picture: image is missing in gone.jpg" in page.words
    assert sum("estimator's prediction" in a["alt"] for a in page.all("img")) == 1


def test_run_report(tmp_path, rng):
    found = make_report(8, 3, 3)
    rows = [
        {"model": "before", "MPJPE": 131.31, "difference": None},
        {"model": "ours", "MPJPE": np.float32(105.84), "difference": "-25.5"},
    ]
    summary = RunSummary(
        "posesyn demo",
        rows=rows,
        highlight="ours",
        funnel={"persons": 1200, "challenging": 3},
        error_series={"before": rng.gamma(5, 20, 80), "ours": rng.gamma(5, 16, 80)},
        improved=list(zip(found.challenging, found.non_challenging)),
        worst=found.challenging,
        best=found.non_challenging,
        clips=[make_clip("a", 6, 96), make_clip("b", 6, 96, keep=np.arange(6) < 4)],
        rejected=[make_clip("c", 2, 64, keep=np.zeros(2, bool))],
        timings={"extract": 12.34, "train": 200.0},
        notes=["The held-out part was not seen."],
    )
    write_run_report(tmp_path / "run.html", summary)
    page = check(tmp_path / "run.html")
    for words in (
        "131.3",
        "105.8",
        "-25.5",
        "1 200 persons",
        "12.3 s",
        "3 min 20 s",
        "4 of 6 frames kept",
        "b, frame 5",
        "c, frame 1",
    ):
        assert words in page.words, words
    assert "before: 0.600 mm" in page.words and "smaller after training" in page.words
    assert [a.get("class") for a in page.all("tr")] == [None, None, "strong"]
    moving = [a for a in page.all("img") if a["alt"].startswith("Synthesized clip")]
    assert len(moving) == 2 and all(a["src"].startswith("data:image/webp") for a in moving)
    assert sum(a.get("media") == "(prefers-reduced-motion: reduce)" for a in page.all("source")) == 2


def test_empty_run_report(tmp_path):
    write_run_report(tmp_path / "run.html", RunSummary("nothing came of it"))
    assert "No clips were synthesized." in check(tmp_path / "run.html").words


def test_the_largest_report_stays_within_the_limit(tmp_path):
    # Noise is the worst case for every encoder. Three clips and three persons stand for the most that are shown.
    noise = np.random.default_rng(0).integers(0, 256, (3, 24, 224, 224, 3), np.uint8)
    clips = [replace(make_clip(str(i), 24, 224), frames=pixels) for i, pixels in enumerate(noise)]
    size = write_run_report(tmp_path / "run.html", RunSummary("noise", clips=clips))
    assert size / 3 < 1.5 * html._CLIP_BYTES
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    noisy = [make_scored(i, image=ArrayImage(pixels)) for i in range(3)]
    persons = write_run_report(tmp_path / "run.html", RunSummary("noise", worst=noisy))
    pairs = write_run_report(tmp_path / "run.html", RunSummary("noise", improved=[(one, one) for one in noisy]))
    assert size / 3 * html.MAX_CLIPS + (2 * persons + pairs) / 3 * 24 < MAX_REPORT_BYTES


def test_number_of_clips_is_limited(tmp_path):
    clips = [make_clip(frames=1, size=32, clip_id=str(i)) for i in range(html.MAX_CLIPS + 2)]
    write_run_report(tmp_path / "run.html", RunSummary("many", clips=clips))
    assert f"Showing {html.MAX_CLIPS} of {len(clips)}." in check(tmp_path / "run.html").words


def test_same_input_gives_the_same_bytes(tmp_path):
    report, clip = make_report(3, 1, 1), make_clip()
    for name in ("1.html", "2.html"):
        write_extraction_report(tmp_path / name, report)
        write_run_report(tmp_path / f"run{name}", RunSummary("x", clips=[clip], error_series={"a": np.arange(9)}))
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()
    assert (tmp_path / "run1.html").read_bytes() == (tmp_path / "run2.html").read_bytes()


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "größe 報告.html"
    path.write_text("old")
    monkeypatch.setattr(html, "MAX_REPORT_BYTES", 10)
    with pytest.raises(InputError, match="too large"):
        write_extraction_report(path, make_report(2, 1, 1))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_extraction_report(path, make_report(2, 1, 1))
    check(path)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileError):
        write_extraction_report(tmp_path / "no folder" / "report.html", make_report(2, 1, 1))


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="max_persons"):
        write_extraction_report(tmp_path / "a.html", ErrorReport((), (), ()), max_persons=-1)
    with pytest.raises(InputError, match="finite"):
        write_run_report(tmp_path / "a.html", RunSummary("x", error_series={"a": np.array([np.nan])}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (131.314, "131.3"),
        (np.float32(2.5), "2.50"),
        (0.01234, "0.0123"),
        (12345, "12\u202f345"),
        ("<b>", "<b>"),
        ((1, 2), "1, 2"),
        ({"a": 1}, "a: 1"),
    ],
)
def test_format_value(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(("error", "text"), [(0.1234, "0.123"), (12.34, "12.3 mm"), (123.4, "123 mm")])
def test_format_error(error, text):
    assert format_error(error, text.partition(" ")[2]) == text


def test_public_names_resolve():
    assert all(getattr(public, name) is not None for name in public.__all__)
    with pytest.raises(AttributeError):
        public.nothing  # noqa: B018
    assert re.fullmatch(r"[a-z_A-Z]+", public.__all__[0])


def found_by(item, name: str | None):
    return replace(item, person=replace(item.person, keypoints_by=name))


def test_a_page_says_whose_keypoints_stand_in_for_the_truth(tmp_path):
    report = make_report()
    write_extraction_report(tmp_path / "plain.html", report)
    plain = check(tmp_path / "plain.html").words
    assert "annotated 2D joints" in plain and "stand in" not in plain
    groups = {
        name: tuple(found_by(item, "movenet_thunder") for item in getattr(report, name))
        for name in ("scored", "challenging", "non_challenging")
    }
    write_extraction_report(tmp_path / "page.html", replace(report, **groups))
    words = check(tmp_path / "page.html").words
    assert "Nobody annotated these persons: keypoints that movenet_thunder found stand in" in words
    assert "2D joints found by movenet_thunder" in words and "annotated 2D joints" not in words
    some = (found_by(report.scored[0], "movenet_thunder"), *report.scored[1:])
    summary = RunSummary("a run", worst=some[:2], best=some[2:4], improved=[(some[0], some[0])])
    write_run_report(tmp_path / "run.html", summary)
    words = check(tmp_path / "run.html").words
    assert "Nobody annotated 1 of these 4 persons" in words
    assert "2D joints found by movenet_thunder, annotated 2D joints" in words
    for path in html.write_extraction_pages(tmp_path / "pages", replace(report, **groups)):
        assert "stand in for the 2D truth" in path.read_text("utf-8")
    assert "stand in" in public.report_html(replace(report, **groups)) and "stand in" not in public.report_html(report)
