"""What the page says of a run, from folders made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from posesyn.evaluation.results import Evaluation
from posesyn.pipeline.summary import (
    AFTER,
    CONTROL,
    FINE_TUNED,
    FIRST_AFTER,
    note_held_out,
    note_round,
    read_rounds,
    round_folder,
    summarise,
)
from posesyn.types import ErrorReport
from tests.factories import make_clip, make_scored, write_clips

ERRORS = (0.8, 0.6, 0.2, 0.1)
PERSONS = [make_scored(row).person for row in range(4)]


def save(folder, factor=1.0, order=(0, 1, 2, 3)):
    """A report in which the first two of ``order`` are challenging."""
    scored = [make_scored(row, error * factor) for row, error in zip(order, ERRORS)]
    ErrorReport(tuple(scored), tuple(scored[:2]), tuple(scored[2:])).save(folder)


@pytest.fixture
def run(tmp_path):
    """One round; the training halves the errors, the control takes a quarter off."""
    save(tmp_path / "extraction")
    write_clips(tmp_path / "clips", [make_clip("a", frames=3)])
    save(tmp_path / AFTER[FINE_TUNED], 0.5)
    save(tmp_path / AFTER[CONTROL], 0.75)
    note_round(tmp_path, 1, PERSONS, seed=7, trained_on=3)
    return tmp_path


def test_the_control_stands_between_before_and_after_if_it_is_asked_for(run):
    plain, beside = summarise(run, PERSONS), summarise(run, PERSONS, control=True)
    assert [list(page.rows[0].values()) for page in (plain, beside)] == [
        ["challenging", "2", pytest.approx(0.7), pytest.approx(0.35)],
        ["challenging", "2", pytest.approx(0.7), pytest.approx(0.525), pytest.approx(0.35)],
    ]
    assert list(beside.rows[1])[2:] == ["before", "control", "after"] and plain.rounds == beside.rounds == ()
    assert len(beside.notes) == len(plain.notes) + 1
    assert beside.improved[0][0].person.person_id == "mock/000"


def test_a_row_says_what_a_round_added(run):
    second = round_folder(run, 2)
    save(second / "extraction", order=(1, 2, 0, 3))
    save(second / AFTER[FINE_TUNED], 0.25, order=(1, 2, 0, 3))
    save(second / FIRST_AFTER[FINE_TUNED], 0.1)
    write_clips(second / "clips", [make_clip("b", frames=4)])
    note_round(run, 2, PERSONS, seed=8, trained_on=7)
    first, row = read_rounds(run)
    assert (first["seed"], first["new"], first["folder"], first["kept_frames"]) == (7, 2, ".", 3)
    assert first["error"] == first["error_of_first"]
    assert row["persons"] == ["mock/001", "mock/002"] and (row["new"], row["frames_trained_on"]) == (1, 7)
    assert row["error"] == {"before": pytest.approx(0.7), "control": None, "after": pytest.approx(0.175)}
    assert row["error_of_first"]["after"] == pytest.approx(0.07)
    # Written again, as by a run that goes on, it is the same.
    note_round(run, 1, PERSONS, seed=7, trained_on=3)
    assert read_rounds(run) == [first, row]
    page = summarise(run, PERSONS, rounds=2)
    assert page.rows[0]["after"] == pytest.approx(0.07) and "after: 2 rounds" in page.table_note
    assert list(page.rounds[1].values())[:3] == ["2", 2, 1] and "control" not in page.rounds[1]


def test_held_out_errors_are_those_of_as_many_rounds(run):
    def scored(error):
        values = {"MPJPE [mm]": np.array([error, error + 2])}
        nothing = np.zeros((2, 1))
        return Evaluation(
            ("a", "b"), values, ("a", "b"), ("", ""), nothing, nothing > 0, ("pelvis",), "mm", {"description": "smpl24"}
        )

    note_held_out(run, {"before": scored(100.0), "after": scored(90.0)}, rounds=1)
    row = summarise(run, PERSONS).rows[-1]
    assert row == {"persons": "held out: MPJPE [mm]", "count": "2", "before": 101.0, "after": 91.0}
    assert len(summarise(run, PERSONS, rounds=2).rows) == 0  # nothing of two rounds is there yet
    note_held_out(run, {"before": scored(100.0)}, rounds=3)
    assert len(summarise(run, PERSONS).rows) == 2
