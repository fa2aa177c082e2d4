"""The public names, and a fresh import that is light and quiet."""

from __future__ import annotations

import subprocess
import sys

import posesyn

NAMES = {
    "__version__",
    "AnimationRenderer",
    "CallableEstimator",
    "Clip",
    "ClipFilter",
    "ErrorExtractor",
    "ErrorReport",
    "EstimatorSpec",
    "Motion",
    "MotionSynthesizer",
    "Person",
    "PoseBatch",
    "PosesynError",
    "ScoredPerson",
    "TargetEstimator",
    "body",
    "data",
    "estimators",
    "geometry",
    "load_body",
    "load_estimator",
    "metrics",
    "skeletons",
    "synthesis",
    "training",
}
HEAVY = ("torch", "pandas", "matplotlib", "torchvision", "pytorch_lightning", "smplx", "cv2", "scipy", "roma", "timm")


def _fresh(code: str) -> str:
    # -W error after the interpreter's own start-up: a warning of posesyn's import fails the test.
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_names_are_pinned():
    assert set(posesyn.__all__) == NAMES and set(dir(posesyn)) == NAMES


def test_every_name_loads():
    for name in NAMES:
        assert getattr(posesyn, name) is not None, name


def test_unknown_name():
    assert not hasattr(posesyn, "no_such_name")


def test_fresh_import_is_light_and_without_warnings():
    # Time is not asserted: a loaded machine would fail it. What costs time is heavy imports, and those are asserted.
    assert _fresh(f"import sys, posesyn; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_types_and_skeletons_need_no_torch():
    modules = "posesyn.types, posesyn.interfaces, posesyn.skeletons.skeleton"
    assert _fresh(f"import sys, {modules}; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"
