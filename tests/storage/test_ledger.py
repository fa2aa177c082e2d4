from __future__ import annotations

import subprocess
import sys

import pytest

from posesyn.errors import InputError, RunError
from posesyn.storage.ledger import Finished, RunLedger, changed_keys, check_budget


def test_resume_is_plan_minus_ledger(tmp_path):
    with RunLedger(tmp_path / "run", {"seed": 0}) as ledger:
        ledger.plan("render", ["c", "a", "b"])
        ledger.commit("render", [Finished("a", "a.tar", "00")])
        assert ledger.pending("render") == ["c", "b"]
    with RunLedger(tmp_path / "run", {"seed": 0}, error_budget=1) as ledger:
        ledger.plan("render", ["c", "a", "b"])
        ledger.quarantine("render", "c", "broken <b>")
        assert ledger.pending("render") == ["b"]
        assert ledger.finished("render") == {"a": Finished("a", "a.tar", "00")}
        assert ledger.pending("other stage") == []
    assert '"reason": "broken <b>"' in (tmp_path / "run" / "quarantine.jsonl").read_text()
    assert (tmp_path / "run" / "plan.jsonl").read_text().count("\n") == 3


def test_other_settings_are_refused_by_name(tmp_path):
    RunLedger(tmp_path, {"seed": 0, "render": {"size": [256, 256], "fps": 20}, "old": 1}).close()
    RunLedger(tmp_path, {"seed": 0, "render": {"size": (256, 256), "fps": 20}, "old": 1}).close()
    with pytest.raises(RunError, match=r"changed new \(absent -> 2\), old \(1 -> absent\), render\.fps \(20 -> 30\)"):
        RunLedger(tmp_path, {"seed": 0, "render": {"size": (256, 256), "fps": 30}, "new": 2})


def test_a_folder_of_another_layout_is_refused(tmp_path):
    RunLedger(tmp_path, {"layout": 2}).close()
    with pytest.raises(RunError, match=r"this one cannot continue.*layout 3.*layout 2.*Name another folder"):
        RunLedger(tmp_path, {"layout": 3})


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match=r"other files.*thesis\.tex"):
        RunLedger(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_plan_is_refused(tmp_path):
    with RunLedger(tmp_path, {}) as ledger:
        ledger.plan("x", ["a", "b"])
        with pytest.raises(RunError, match="position 1"):
            ledger.plan("x", ["a", "c"])
        with pytest.raises(InputError, match="twice"):
            ledger.plan("y", ["a", "a"])
        ledger.plan("y", ["a", "c"])


def test_a_second_process_is_refused(tmp_path):
    with RunLedger(tmp_path, {}), pytest.raises(RunError, match="another process"):
        RunLedger(tmp_path, {})
    with RunLedger(tmp_path, {}):
        code = "import sys; from posesyn.storage.ledger import RunLedger; RunLedger(sys.argv[1], {})"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert other.returncode and "RunError" in other.stderr and "another process" in other.stderr
    RunLedger(tmp_path, {}).close()


def test_the_error_budget(tmp_path):
    with RunLedger(tmp_path, {}, error_budget=0.5) as ledger:
        ledger.plan("x", list("abcd"))
        ledger.quarantine("x", "a", "bad")
        ledger.quarantine("x", "b", "bad")
        with pytest.raises(RunError, match=r"at most 2 of 4.*no good"):
            ledger.quarantine("x", "c", "no good")
    check_budget(1, 3, 0.1, "x", "")  # a fraction tolerates at least one
    with pytest.raises(RunError):
        check_budget(1, 3, 0, "x", "")


def test_a_damaged_ledger(tmp_path):
    RunLedger(tmp_path, {}).close()
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to be one" * 10)
    with pytest.raises(RunError, match="ledger is damaged"):
        RunLedger(tmp_path, {})


def test_side_files_of_a_killed_run_are_removed(tmp_path):
    RunLedger(tmp_path, {}).close()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / ".0123.partial").write_bytes(b"half")
    RunLedger(tmp_path, {}).close()
    assert list((tmp_path / "parts").iterdir()) == []


def test_changed_keys_of_nested_settings():
    assert changed_keys({"a": {"b": 1}}, {"a": {"b": 2}}) == ["a.b (1 -> 2)"]
    assert changed_keys({"a": 1}, {"a": 1}) == []
