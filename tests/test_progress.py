"""Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import re
import sys

import pytest

from posesyn import progress
from posesyn.progress import ProgressBar, progress_over


@pytest.fixture
def no_terminal(monkeypatch):
    monkeypatch.setattr(progress, "can_redraw", lambda: False)


def test_lines_without_a_terminal(no_terminal, monkeypatch, capsys):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with ProgressBar(4, "extract", "person", initial=1) as bar:
        bar.update(text="a.jpg")
        bar.update(2)
    text = capsys.readouterr().err
    assert "\r" not in text and "\x1b" not in text
    lines = text.splitlines()
    assert lines[-1].startswith("extract: 4/4 person, 0:") and lines[-1].endswith("passed, a.jpg")
    assert all(re.match(r"extract: \d/4 person", line) for line in lines)


def test_lines_are_rare(no_terminal, capsys):
    for _ in progress_over(range(1000), "render", "clip"):
        pass
    assert re.fullmatch(r"render: 1000/1000 clip, 0:00 passed\n", capsys.readouterr().err)


def test_the_time_left_is_told(no_terminal, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressBar(100, "train", "step") as bar:
        now[0] = 4000.0
        bar.update(50)
        assert capsys.readouterr().err == "train: 50/100 step, 1:06:40 passed, 1:06:40 left\n"


def test_nothing_is_shown_where_nothing_is_asked_for(no_terminal, capsys):
    assert list(progress_over(iter("abc"), "x", total=3, shown=False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "can_redraw", lambda: True)
    with ProgressBar(None, "filter", "clip") as bar:
        bar.update(3, text="loss 0.1")
    assert "filter" in capsys.readouterr().err and bar.done == 3


def test_a_file_is_no_terminal(monkeypatch, tmp_path):
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
        assert not progress.can_redraw()
