"""3D pose estimators: one file per model, loaded by name. Names load on first use."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "HMR": "hmr",
    "CallableEstimator": "callable",
    "EstimatorKeypointDetector": "detector",
    "LossWeights": "losses",
    "estimator_names": "registry",
    "load_estimator": "registry",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'posesyn.estimators' has no attribute {name!r}")
    return getattr(importlib.import_module(f"posesyn.estimators.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
