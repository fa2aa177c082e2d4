"""Lazy packages: one list of public names, which the running program and a type checker read alike."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import posesyn
from posesyn.lazy import lazy_names, type_checking_imports

ROOT = Path(posesyn.__file__).parent
PACKAGES = sorted(
    ".".join(file.relative_to(ROOT.parent).parent.parts)
    for file in ROOT.rglob("__init__.py")
    if "= lazy_names(__name__)" in file.read_text()
)

# Libraries are skipped: their types are of no matter here, and reading them takes minutes.
LIBRARIES = (
    "torch torchvision pytorch_lightning torchmetrics numpy transformers matplotlib PIL cv2 av timm jsonargparse"
)
CONFIG = f"""
[mypy]
ignore_errors = true
ignore_missing_imports = true
follow_imports = silent
[mypy-{",".join(name + ".*" for name in LIBRARIES.split())}]
follow_imports = skip
[mypy-probe]
ignore_errors = false
"""


def test_the_packages_are_found():
    assert {"posesyn", "posesyn.data", "posesyn.training", "posesyn.report"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_the_object_of_its_module(package):
    module = importlib.import_module(package)
    source = Path(module.__file__).read_text()
    listed = type_checking_imports(source, package)
    assert set(listed) == set(module.__all__) - {"__version__"} and set(dir(module)) == set(module.__all__)
    for name, origin in listed.items():
        value = importlib.import_module(f"{package}.{name}") if origin == package else None
        assert getattr(module, name) is (value or getattr(importlib.import_module(origin), name)), name
        assert name in vars(module), "the second access must not load again"


def test_names_load_only_when_they_are_used():
    first, second = "posesyn.data.persons.coco", "posesyn.data.persons.threedpw_emdb"
    code = (
        f"import sys, posesyn.data as d; assert {first!r} not in sys.modules; d.CocoKeypoints; "
        f"assert {first!r} in sys.modules and {second!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_wrong_name_is_answered_with_the_right_one():
    with pytest.raises(AttributeError, match="module 'posesyn' has no attribute 'ErrorExtracter'") as error:
        posesyn.ErrorExtracter  # noqa: B018
    assert error.value.name == "ErrorExtracter" and error.value.obj is posesyn
    code = "import posesyn; posesyn.ErrorExtracter"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "Did you mean: 'ErrorExtractor'?" in result.stderr


def test_only_public_imports_of_the_block_count():
    source = """
from a import b as b
if TYPE_CHECKING:
    from p import sub as sub
    from p.x import One as One, private
    from p.y import Two as Other
    from .z import Three as Three
"""
    assert type_checking_imports(source, "p") == {"sub": "p", "One": "p.x"}


def test_a_package_without_its_list_or_source_says_so(monkeypatch, tmp_path):
    with pytest.raises(ImportError, match="p has no public names under 'if TYPE_CHECKING:'"):
        type_checking_imports("x = 1", "p")
    module = type(sys)("bytecode_only")
    module.__spec__ = None
    monkeypatch.setitem(sys.modules, "bytecode_only", module)
    with pytest.raises(ImportError, match="bytecode_only needs its source files"):
        lazy_names("bytecode_only")


@pytest.mark.integration
def test_a_type_checker_knows_every_public_name(tmp_path):
    api = pytest.importorskip("mypy.api")
    wanted = [(p, n) for p in PACKAGES for n in importlib.import_module(p).__all__ if n != "__version__"]
    lines = [f"import {package}" for package in PACKAGES] + [f"reveal_type({p}.{n})" for p, n in wanted]
    (tmp_path / "probe.py").write_text("\n".join([*lines, "posesyn.ErrorExtracter"]) + "\n")
    (tmp_path / "mypy.ini").write_text(CONFIG)
    out, err, _ = api.run(
        ["--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path), str(tmp_path / "probe.py")]
    )
    assert not err
    revealed = re.findall(r'probe\.py:\d+: note: Revealed type is "(.*)"', out)
    assert len(revealed) == len(wanted), out[-2000:]
    assert [f"{p}.{n}" for (p, n), kind in zip(wanted, revealed) if kind == "Any"] == []
    assert 'has no attribute "ErrorExtracter"' in out, "a misspelt name must be an error for a type checker"
