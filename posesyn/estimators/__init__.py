"""3D pose estimators: one file per model, loaded by name. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "HMR": "hmr",
        "HMR2": "hmr2.network",
        "CallableEstimator": "adapters",
        "CrowdNet": "crowdnet.network",
        "HybrIK": "hybrik.network",
        "PoseNoise": "crowdnet.pose_noise",
        "TrainingRecipe": "losses",
        "EstimatorKeypointDetector": "adapters",
        "LossWeights": "losses",
        "estimator_names": "registry",
        "load_estimator": "registry",
    },
)
