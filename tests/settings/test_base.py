"""Checks, changes by name and identities of settings."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

from posesyn import settings as public
from posesyn.errors import InputError
from posesyn.settings import ExtractionSettings, FilterSettings, FineTuningSettings, RenderingSettings, RunSettings
from posesyn.settings.base import identity, plain, with_changes


def _has_default(one) -> bool:
    return one.default is not MISSING or one.default_factory is not MISSING


EVERY = [getattr(public, name) for name in public.__all__]
MADE = [kind() for kind in EVERY if all(_has_default(one) for one in fields(kind))]


@pytest.mark.parametrize("settings", MADE, ids=lambda value: type(value).__name__)
def test_defaults_are_allowed_and_say_nothing_about_a_run(settings):
    assert identity(settings) == {}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_field_is_described(kind):
    for one in fields(kind):
        assert one.name in kind.__doc__, one.name


def test_identity_names_what_was_changed_and_leaves_out_what_is_free():
    own = RunSettings(ExtractionSettings(num_challenging=3, num_threads=9), rendering=RenderingSettings(style="lab"))
    assert identity(own) == {"extraction": {"num_challenging": 3}, "rendering": {"style": "lab"}}
    assert identity(ExtractionSettings(num_processes=3, error_budget=5, num_threads=1)) == {}
    assert identity(RenderingSettings(backgrounds=Path("a") / "b")) == {"backgrounds": str(Path("a") / "b")}
    # What is added to a run may be asked for later; what changes its training may not.
    assert identity(RunSettings(rounds=3, control=True)) == {}
    assert identity(RunSettings(lifted_labels=True)) == {"lifted_labels": True}
    weights = {"wrist": 3.0}
    assert identity(ExtractionSettings(joint_weights=weights)) == {"joint_weights": weights}


def test_plain_settings_are_json():
    for settings in MADE:
        content = json.loads(json.dumps(plain(settings)))
        assert content.keys() == {one.name for one in fields(settings)} and not is_dataclass(content)


def test_changes_by_name():
    assert with_changes(FilterSettings, None, {}) == FilterSettings()
    assert with_changes(FilterSettings, FilterSettings(quantile=0.5), {"threshold": 0.1}) == FilterSettings(0.5, 0.1)
    with pytest.raises(InputError, match="Did you mean quantile"):
        with_changes(FilterSettings, None, {"quantil": 0.5})
    with pytest.raises(InputError, match="FilterSettings"):
        with_changes(FilterSettings, RenderingSettings(), {})


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (ExtractionSettings, {"num_challenging": 0}),
        (ExtractionSettings, {"normalizer": "bx"}),
        (ExtractionSettings, {"joint_weights": "limb"}),
        (ExtractionSettings, {"joint_weights": 3}),
        (ExtractionSettings, {"occluded_weight": float("nan")}),
        (RenderingSettings, {"frames_per_motion": 0}),
        (RenderingSettings, {"style": "wlid"}),
        (FilterSettings, {"quantile": 0}),
        (FilterSettings, {"threshold": -1.0}),
        (FineTuningSettings, {"schedule": "cos"}),
        (FineTuningSettings, {"steps": -1}),
        (FineTuningSettings, {"synthetic_fraction": 1.5}),
        (RunSettings, {"seed": -1}),
        (RunSettings, {"rounds": 0}),
        (RunSettings, {"rounds": 2, "training": FineTuningSettings(steps=0)}),
        (RunSettings, {"control": True, "training": FineTuningSettings(steps=0)}),
        (RunSettings, {"lifted_labels": True, "training": FineTuningSettings(steps=0)}),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(kind, wrong):
    with pytest.raises(InputError) as caught:
        kind(**wrong)
    assert next(iter(wrong)) in str(caught.value)
