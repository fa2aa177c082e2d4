"""Lightning modules and data modules. Names load on first use."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "FineTuningSettings": "settings",
    "MixedPoseDataModule": "mixed_data",
    "MotionTransformerModule": "motion",
    "MotionVQVAEModule": "motion",
    "PoseEstimatorModule": "pose_estimator",
    "evaluate": "evaluation",
    "fine_tune": "fine_tuning",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'posesyn.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"posesyn.training.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
