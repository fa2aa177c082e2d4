"""Single stages on a folder that somebody else has worked in."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from posesyn.pipeline import stages
from posesyn.settings import FilterSettings
from posesyn.storage import ClipStore, ClipWriter
from tests.factories import make_clip, make_estimator


def test_marks_that_were_changed_after_the_filter_are_used_and_said(tmp_path):
    with ClipWriter(tmp_path, plan=["a", "b"]) as writer:
        for name in ("a", "b"):
            writer.write(make_clip(name, frames=3))

    def filtered():
        return stages.filter_clips(tmp_path, FilterSettings(threshold=9.0), judge=make_estimator(), progress=False)

    first = len(filtered())
    assert len(filtered()) == first  # silently: warnings are errors here
    ClipStore(tmp_path).set_keep({"a": np.array([True, False, False])})
    with pytest.warns(UserWarning, match=r"marked otherwise since the filter.*filter\.json"):
        assert len(filtered()) == first - 2
    (tmp_path / stages.FILTERED).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(filtered()) == first
