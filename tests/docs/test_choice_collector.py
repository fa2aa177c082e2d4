"""The page of our own choices must find what the source marks, with its value."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''
"""Module; every threshold here is our own choice."""
from dataclasses import dataclass

# Our own choice: one.
FIRST = 1
SECOND = 2

# Both are our own choice.
THIRD, FOURTH = 3, 4  # with a remark
FIFTH: int = 5

SIXTH = 6  # own choice: six
SEVENTH = 7  # from the paper


def function(a, b=2, *, c=3):
    """Does it.

    Args:
        a: Nothing.
        b: Our own
            choice.
        c: From the paper.
    """
    # Our own choice of a way.
    return a


@dataclass
class Settings:
    """Sizes; all our own choice.

    Args:
        width: In pixels.
    """

    width: int = 8


class Plain:
    """Plain.

    Args:
        size: Our own choice.
    """

    def __init__(self, size=9):
        self.size = size
'''


@pytest.fixture
def collector():
    path = ROOT / "docs" / "_ext" / "choice_collector.py"
    spec = importlib.util.spec_from_file_location("choice_collector", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["choice_collector"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["choice_collector"]


def test_finds_constants_arguments_and_settings(collector, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text(SOURCE)
    found = [(choice.name, choice.value) for choice in collector.collect(package)]
    assert sorted(found) == sorted(
        [
            ("", ""),
            ("FIRST", "1"),
            ("THIRD, FOURTH", "(3, 4)"),
            ("FIFTH", "5"),
            ("SIXTH", "6"),
            ("function", ""),
            ("function.b", "2"),
            ("Settings", ""),
            ("Settings.width", "8"),
            ("Plain.size", "9"),
        ]
    )
    assert {choice.module for choice in collector.collect(package)} == {"package.part"}


def test_finds_the_choices_of_posesyn(collector):
    names = {(choice.module, choice.name) for choice in collector.collect(ROOT / "posesyn")}
    assert ("posesyn.report.pages", "MAX_REPORT_BYTES") in names
    assert ("posesyn.settings.synthesis", "SynthesisSettings.num_motions") in names
