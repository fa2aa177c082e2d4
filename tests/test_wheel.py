"""A wheel, installed where no checkout is: it has its assets, its command and its types."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.integration, pytest.mark.skipif(os.name != "posix", reason="the paths are those of POSIX")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by the project's own backend from a copy, since setuptools leaves folders in what it builds."""
    # Not imported here: it refuses to be where another package has imported the standard library's distutils.
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "posesyn", source / "posesyn", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = out.glob("posesyn-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel alone; the dependencies are those of this one, which a path file adds."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, env=_environment(), timeout=300)
    (site,) = folder.glob("lib/python*/site-packages")
    # Only the folder: path files inside it, which would lead to an editable checkout, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "PIP_"))}
    return {**kept, "HF_HUB_OFFLINE": "1"}


def _run(command: list[object], folder: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=_environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("posesyn/")}
    files = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "posesyn").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert inside == files


def test_the_command_starts(installed, tmp_path):
    assert "--seeds" in _run([installed / "bin/posesyn", "demo", "--help"], tmp_path)


def test_shipped_models_load(installed, tmp_path):
    code = (
        "import posesyn as ps; print(ps.__file__); ps.load_estimator(); ps.load_body(); "
        "print(type(ps.MotionSynthesizer.from_pretrained()).__name__)"
    )
    file, name = _run([installed / "bin/python", "-c", code], tmp_path).splitlines()[-2:]
    assert Path(file).is_relative_to(installed) and name == "MotionSynthesizer"
