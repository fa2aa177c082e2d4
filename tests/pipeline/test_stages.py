"""Single stages on a folder that somebody else has worked in."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from posesyn.detectors import CallableDetector
from posesyn.errors import InputError, RunError
from posesyn.pipeline import stages
from posesyn.settings import FilterSettings
from posesyn.storage import ClipStore, ClipWriter
from posesyn.storage.files import read_json
from tests.factories import make_clip, make_estimator


def test_marks_that_were_changed_after_the_filter_are_used_and_said(tmp_path):
    with ClipWriter(tmp_path, plan=["a", "b"]) as writer:
        for name in ("a", "b"):
            writer.write(make_clip(name, frames=3))

    def filtered():
        settings = FilterSettings(rule="estimator", threshold=9.0)
        return stages.filter_clips(tmp_path, settings, estimator=make_estimator(), progress=False)

    first = len(filtered())
    assert len(filtered()) == first  # silently: warnings are errors here
    ClipStore(tmp_path).set_keep({"a": np.array([True, False, False])})
    with pytest.warns(UserWarning, match=r"marked otherwise since the filter.*filter\.json"):
        assert len(filtered()) == first - 2
    (tmp_path / stages.FILTERED).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(filtered()) == first


def drawn(folder, **fields):
    """A clip store as :func:`posesyn.pipeline.stages.render` leaves one."""
    config = {"kind": "clips", "layout": stages.LAYOUT, "rendering": fields}
    with ClipWriter(folder, plan=["a", "b"], config=config) as writer:
        for name in ("a", "b"):
            writer.write(make_clip(name, frames=3))
    return folder


def decided(folder, settings=None, **who):
    stages.filter_clips(folder, settings or FilterSettings(), device="cpu", progress=False, **who)
    return read_json(folder / stages.FILTERED)


def test_who_judges(tmp_path):
    estimator = make_estimator()
    detector = CallableDetector(lambda images, boxes: np.zeros((len(images), 17, 2)), name="corner")
    quick = FilterSettings(threshold=0.0)
    exact, photo = drawn(tmp_path / "exact", style="lab"), drawn(tmp_path / "photo", backend="diffusion")
    foreign = drawn(tmp_path / "foreign", backend_options={"class": "my.Backend"})
    # Labels of rendered meshes are exact: nobody has to judge them.
    assert decided(exact, estimator=estimator)["mode"] == "labels"
    assert decided(exact)["frames_kept"] == 6
    assert stages.describe_filter(exact, quick) == "The filter kept 6 of 6 frames, by their labels only"
    for folder in (photo, foreign):
        loose = FilterSettings(threshold=9.0)
        assert decided(folder, loose, estimator=estimator)["mode"] == "estimator"
        with pytest.raises(InputError, match="nobody judges"):
            decided(folder)
        assert decided(folder, replace(loose, rule="labels"))["mode"] == "labels"
    for rule in ("auto", "detector"):
        found = decided(exact, replace(quick, rule=rule), estimator=estimator, detector=detector)
        assert (found["mode"], found["judge"]) == ("detector", "corner")
    assert decided(exact, replace(quick, rule="estimator", threshold=9.0), estimator=estimator)["judge"] == "tiny"
    for rule, who, problem in (
        ("detector", {}, "needs a detector"),
        ("labels", {"detector": detector}, "asks no detector"),
        ("estimator", {"detector": detector}, "asks no detector"),
        ("estimator", {}, "nobody judges"),
    ):
        with pytest.raises(InputError, match=problem):
            decided(exact, replace(quick, rule=rule), **who)


def test_a_judge_is_calibrated_on_clips_of_its_own(tmp_path):
    folder, estimator = drawn(tmp_path / "clips"), make_estimator()
    settings = FilterSettings(rule="estimator", calibration_frames=3)
    found = decided(folder, settings, estimator=estimator)
    store = ClipStore(folder / stages.CALIBRATION)
    assert len(store) == 3 and store[0].frames.shape == (1, 48, 48, 3) and len(ClipStore(folder)) == 2
    assert found["calibration"]["frames"] == 3 and found["threshold"] == found["calibration"]["threshold"]
    line = stages.describe_filter(folder, settings)
    assert "by the estimator tiny, threshold" in line and "of 3 right labels, drops of wrong ones: " in line
    # Nothing of it depends on the clips that are filtered.
    other = tmp_path / "other"
    with ClipWriter(other, plan=["c"]) as writer:
        writer.write(make_clip("c", seed=7))
    assert decided(other, settings, estimator=estimator)["calibration"] == found["calibration"]
    # Decided once; another seed decides anew, and is refused where the pictures of before lie.
    before = (folder / stages.FILTERED).read_bytes()
    assert decided(folder, settings, estimator=estimator) and (folder / stages.FILTERED).read_bytes() == before
    with pytest.raises(RunError, match="seed"):
        decided(folder, replace(settings, calibration_seed=1), estimator=estimator)
