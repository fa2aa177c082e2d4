"""Things by name: built in, registered, announced by another package."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from posesyn.data.persons.formats import FORMATS, DataFormat
from posesyn.errors import FileError, InputError
from posesyn.estimators.lifters.lifter import LIFTERS, Lifter
from posesyn.estimators.registry import ESTIMATORS
from posesyn.evaluation.protocols import PROTOCOLS, Protocol
from posesyn.registry import Registry
from posesyn.synthesis.rendering.renderer import BACKENDS


@pytest.fixture
def colours(monkeypatch):
    """A registry whose other package brings one good thing, one that cannot be imported and a name that is taken."""
    points = [
        EntryPoint("fraction", "fractions:Fraction", "posesyn.colours"),
        EntryPoint("lost", "no_such_package:thing", "posesyn.colours"),
        EntryPoint("red", "fractions:Fraction", "posesyn.colours"),
        EntryPoint("elsewhere", "fractions:Fraction", "posesyn.tastes"),
    ]
    monkeypatch.setattr("posesyn.registry.entry_points", lambda group: [p for p in points if p.group == group])
    return Registry("colour", {"red": 1, "lazy": "colorsys:hsv_to_rgb"}, "posesyn.colours", fix="paint it")


def test_built_in_things_win_and_load_on_first_use(colours):
    sys.modules.pop("colorsys", None)
    assert colours["red"] == 1 and "colorsys" not in sys.modules
    assert colours["lazy"](0, 0, 1) == (1, 1, 1) and "colorsys" in sys.modules
    from fractions import Fraction

    assert colours["fraction"] is Fraction


def test_names_and_membership(colours):
    assert colours.names() == list(colours) == ["fraction", "lazy", "lost", "red"] and len(colours) == 4
    assert "red" in colours and "lost" in colours and "elsewhere" not in colours and 3 not in colours
    assert Registry("thing").names() == []


def test_a_name_is_registered_once(colours):
    colours.register("green", 2)
    colours.register("green", 2)
    assert colours["green"] == 2 and "green" in colours.names()
    with pytest.raises(InputError, match=r"a colour of this name exists in register\('red'\)"):
        colours.register("red", 2)


def test_unknown_names_get_a_guess_and_the_way_out(colours):
    with pytest.raises(InputError, match=r"unknown colour 'rad'.*fraction, lazy, lost, red.*mean 'red'\? paint it"):
        colours["rad"]
    with pytest.raises(InputError, match=r"unknown colour 'xyz'[^?]*$"):
        colours["xyz"]


def test_an_announced_thing_that_cannot_be_imported_says_so(colours, monkeypatch):
    with pytest.raises(InputError, match=r"colour 'lost' could not be loaded.*no_such_package:thing.*ModuleNotFound"):
        colours["lost"]

    def refuse(self):
        raise FileError("its weights are missing")

    monkeypatch.setattr(EntryPoint, "load", refuse)
    with pytest.raises(FileError, match="weights are missing"):
        colours["lost"]


@pytest.mark.parametrize(
    ("registry", "kind", "group"),
    [
        (ESTIMATORS, object, "posesyn.estimators"),
        (LIFTERS, type, "posesyn.lifters"),
        (BACKENDS, type, "posesyn.render_backends"),
        (FORMATS, DataFormat, "posesyn.data_formats"),
        (PROTOCOLS, Protocol, "posesyn.protocols"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_that_posesyn_brings_loads(registry, kind, group):
    assert registry.group == group and len(registry)
    for name in registry:
        assert isinstance(registry[name], kind), name
        if registry is LIFTERS:
            assert issubclass(registry[name], Lifter) and registry[name].name == name
    near = registry.names()[0][:-1] + "x"
    with pytest.raises(InputError, match=r"[Dd]id you mean"):
        registry[near]
