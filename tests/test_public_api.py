"""The public names, and a fresh import that is light and quiet."""

from __future__ import annotations

import subprocess
import sys

import posesyn

HEAVY = ("torch", "pandas", "matplotlib", "torchvision", "pytorch_lightning", "smplx", "cv2", "scipy", "roma", "timm")


def _fresh(code: str) -> str:
    # -W error after the interpreter's own start-up: a warning of posesyn's import fails the test.
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_dir_lists_the_public_names():
    assert dir(posesyn) == sorted(posesyn.__all__)


def test_every_name_loads():
    for name in posesyn.__all__:
        assert getattr(posesyn, name) is not None, name


def test_unknown_name():
    assert not hasattr(posesyn, "no_such_name")


def test_fresh_import_is_light_and_without_warnings():
    # Time is not asserted: a loaded machine would fail it. What costs time is heavy imports, and those are asserted.
    assert _fresh(f"import sys, posesyn; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_types_and_skeletons_need_no_torch():
    modules = "posesyn.types, posesyn.interfaces, posesyn.skeletons.skeleton"
    assert _fresh(f"import sys, {modules}; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"
