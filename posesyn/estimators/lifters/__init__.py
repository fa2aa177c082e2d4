"""Lifters: 2D keypoints of 16 joints → 3D joints. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "LIFTERS": "registry",
        "Lifter": "lifter",
        "LifterEstimator": "estimator",
        "LiftedImage": "keypoints",
        "MLPLifter": "mlp",
        "STGCNLifter": "graphs",
        "SemGCNLifter": "graphs",
        "VideoPoseLifter": "mlp",
        "lift_keypoints": "keypoints",
        "load_lifter": "registry",
        "make_lifter": "registry",
    },
)
