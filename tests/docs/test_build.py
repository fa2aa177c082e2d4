"""The documentation builds without a warning (needs the extra ``docs``)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.integration
def test_documentation_builds_without_warnings(tmp_path):
    for package in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(package, reason="the extra 'docs' is not installed")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "doctrees"]
    # The notebook has a test of its own.
    environment = {**os.environ, "POSESYN_DOCS_EXECUTE": "off"}
    done = subprocess.run([*command, DOCS, tmp_path / "html"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "our own choice" in (tmp_path / "html" / "choices.html").read_text("utf-8").lower()
