"""posesyn: find the images on which a 3D human pose estimator fails, synthesize training data for exactly those poses,
retrain the estimator and prove the gain.

Public names load on first use, so that ``import posesyn`` is quick and loads no torch.
"""

from __future__ import annotations

from posesyn.lazy import lazy_names

__version__ = "0.1.0"

__getattr__, _, _names = lazy_names(
    __name__,
    {
        "AnimationRenderer": "synthesis.rendering.renderer",
        "CallableEstimator": "estimators.adapters",
        "Clip": "types",
        "ClipFilter": "synthesis.filtering.clip_filter",
        "ErrorExtractor": "synthesis.extraction.extractor",
        "ErrorReport": "types",
        "EstimatorSpec": "interfaces",
        "Motion": "types",
        "MotionSynthesizer": "synthesis.motion.synthesizer",
        "Person": "types",
        "PoseBatch": "types",
        "PosesynError": "errors",
        "ScoredPerson": "types",
        "TargetEstimator": "interfaces",
        "load_body": "body",
        "load_estimator": "estimators",
    },
    ("body", "data", "estimators", "geometry", "metrics", "skeletons", "synthesis", "training"),
)
__all__ = ["__version__", *_names]


def __dir__() -> list[str]:
    return sorted(__all__)
