"""posesyn: find the images on which a 3D human pose estimator fails, synthesize training data for exactly those poses,
retrain the estimator and prove the gain.

Public names load on first use (PEP 562), so that ``import posesyn`` is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "AnimationRenderer": "posesyn.synthesis.rendering.renderer",
    "CallableEstimator": "posesyn.estimators.callable",
    "Clip": "posesyn.types",
    "ClipFilter": "posesyn.synthesis.filtering",
    "ErrorExtractor": "posesyn.synthesis.extraction",
    "ErrorReport": "posesyn.types",
    "EstimatorSpec": "posesyn.protocols",
    "Motion": "posesyn.types",
    "MotionSynthesizer": "posesyn.synthesis.motion.synthesizer",
    "Person": "posesyn.types",
    "PoseBatch": "posesyn.types",
    "PosesynError": "posesyn.errors",
    "ScoredPerson": "posesyn.types",
    "TargetEstimator": "posesyn.protocols",
    "load_body": "posesyn.body",
    "load_estimator": "posesyn.estimators",
}
_MODULES = ("body", "data", "estimators", "geometry", "metrics", "skeletons", "synthesis", "training")

__all__ = ["__version__", *_MODULES, *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"posesyn.{name}")
    else:
        raise AttributeError(f"module 'posesyn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
