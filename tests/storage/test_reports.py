"""What a report holds survives its folder, also that of an older report."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import posesyn
from posesyn.errors import InputError
from posesyn.storage import load_report
from posesyn.storage.reports import TABLE
from posesyn.types import ErrorReport, ScoredPerson
from tests.factories import make_batch, make_person, make_report, make_scored

FACTS = {
    "occluded": np.arange(17) == 3,
    "head_size": 12.5,
    "area": 99.0,
    "intrinsics": np.diag((500.0, 500.0, 1.0)),
    "image_width_height": (80, 60),
    "sequence": "s1",
    "subject": "S9",
    "action": "sit",
    "camera": "c1",
    "frame": 7,
    "valid": False,
    "box_is_tight": True,
}


def with_facts(index: int) -> ScoredPerson:
    person = make_person(f"p{index}", meta={"licence": "CC0"}, **(FACTS if index == 0 else {}))
    return ScoredPerson(person, make_batch((f"p{index}",)), 1.0 - index / 10, np.ones(17), np.ones(17, bool), index)


def test_typed_facts_survive(tmp_path):
    scored = (with_facts(0), with_facts(1))
    ErrorReport(scored, scored[:1], scored[1:]).save(tmp_path / "new")
    first, second = (item.person for item in load_report(tmp_path / "new").scored)
    for name, value in FACTS.items():
        np.testing.assert_array_equal(getattr(first, name), value)
    assert first.meta == second.meta == {"licence": "CC0"}
    assert second.frame is None and second.occluded is None and second.valid

    # A report of before: one column with everything that the data set said.
    table = pd.read_parquet(tmp_path / "new" / TABLE)
    old = [{**json.loads(row["facts"]), **json.loads(row["meta"])} for row in table.to_dict("records")]
    table.assign(meta=[json.dumps(one) for one in old]).drop(columns="facts").to_parquet(tmp_path / "new" / TABLE)
    first = load_report(tmp_path / "new").scored[0].person
    for name, value in FACTS.items():
        np.testing.assert_array_equal(getattr(first, name), value)
    assert first.meta == {"licence": "CC0"}
    # Of before persons said whether their boxes are tight: those are read as boxes around the whole person.
    for one in old:
        del one["box_is_tight"]
    table.assign(facts=[json.dumps(one) for one in old], meta="{}").to_parquet(tmp_path / "new" / TABLE)
    assert not load_report(tmp_path / "new").scored[0].person.box_is_tight


def test_a_report_as_a_table():
    report = make_report(12, 4, 3)
    table = report.to_pandas()
    assert len(table) == 12 and table["person_id"].tolist() == [item.person.person_id for item in report.scored]
    assert table["selection"].value_counts().to_dict() == {"": 5, "challenging": 4, "non_challenging": 3}
    worst = [int(np.argmax(np.where(item.joint_used, item.joint_errors, -1))) for item in report.scored]
    assert table["worst_joint"].tolist() == [posesyn.skeletons.get("coco17").joints[row] for row in worst]
    np.testing.assert_allclose(np.stack(table["keypoints_px"])[3], report.scored[3].person.keypoints_px.ravel())


def test_files_need_the_layer_of_files(monkeypatch, tmp_path):
    monkeypatch.setattr(ErrorReport, "writer", None)
    monkeypatch.setattr(ErrorReport, "reader", None)
    with pytest.raises(InputError, match=r"(?i)write reports.*import posesyn\.storage\.reports"):
        ErrorReport((make_scored(),), (), ()).save(tmp_path)
    with pytest.raises(InputError, match=r"(?i)read reports.*import posesyn\.storage\.reports"):
        ErrorReport.load(tmp_path)


def test_a_report_comes_back_by_its_own_name(tmp_path):
    code = f"""import posesyn as ps
report = ps.ErrorReport((), (), (), (("a", "no joint"),), {{"seed": 3}})
report.save({str(tmp_path / "r")!r})
again = ps.ErrorReport.load({str(tmp_path / "r")!r})
assert again.skipped == report.skipped and again.settings == report.settings and len(again) == 0"""
    # A process of its own: here the functions are in place already.
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    report = make_report(4, 2, 1)
    report.save(tmp_path)
    persons = [item.person for item in report.scored]
    again = ErrorReport.load(tmp_path, persons)
    assert [item.person for item in again.scored] == persons and again.selections == report.selections
    with pytest.raises(InputError, match="lacks a person of the report"):
        ErrorReport.load(tmp_path, persons[1:])
