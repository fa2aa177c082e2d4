"""The checks of ``make lint`` say what they promise, and the hooks before a commit are the same ones."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STRICT = ["posesyn", "posesyn.lazy", "posesyn.types.*"]


@pytest.fixture(scope="module")
def check_types():
    pytest.importorskip("mypy")
    spec = importlib.util.spec_from_file_location("check_types", ROOT / "tools" / "check_types.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("file", "strict"),
    [
        ("posesyn/__init__.py", True),
        ("posesyn/lazy.py", True),
        ("posesyn/types/__init__.py", True),
        ("posesyn/types/clip.py", True),
        ("posesyn/types_of_bodies.py", False),
        ("posesyn/data/crops.py", False),
    ],
)
def test_the_strict_part(check_types, file, strict):
    assert check_types.is_strict(file, STRICT) is strict


def test_the_baseline_may_only_fall(check_types):
    rest = [f"posesyn/data/crops.py:{line}: error: wrong  [arg-type]" for line in (3, 9)]
    note = "posesyn/lazy.py:3: note: error: none"
    assert check_types.verdict([*rest, note], STRICT, 2)[0]
    passed, lines = check_types.verdict(rest, STRICT, 1)
    assert not passed and rest[1] in lines and "(baseline 1)" in lines[-2]
    passed, lines = check_types.verdict(rest, STRICT, 3)
    assert passed and "baseline = 2" in lines[-1]
    passed, lines = check_types.verdict(["posesyn/types/clip.py:1: error: bad  [misc]"], STRICT, 5)
    assert not passed and "clip.py:1" in lines[0]


def test_the_hooks_are_the_checks_of_make_lint():
    makefile = (ROOT / "Makefile").read_text()
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    commands = {line.strip().removeprefix("$(RUN)/") for line in lint.splitlines()}
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"entry: (.*)", hooks)) == commands
    assert set(re.findall(r"language: (.*)", hooks)) == {"system"}, (
        "a hook that downloads its tool runs another version"
    )


def test_only_the_command_line_prints(tmp_path):
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "T20" in rules["select"]
    allowed = [name for name, ignored in rules["per-file-ignores"].items() if "T20" in ignored]
    assert [name for name in allowed if name.startswith("posesyn")] == ["posesyn/cli/**", "posesyn/demo/**"]
    (tmp_path / "loud.py").write_text('print("noise")\n')
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*ruff, str(tmp_path / "loud.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "T201" in done.stdout
