"""3D pose estimators: one file per model, loaded by name. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.estimators.adapters import CallableEstimator as CallableEstimator
    from posesyn.estimators.adapters import EstimatorKeypointDetector as EstimatorKeypointDetector
    from posesyn.estimators.crowdnet.network import CrowdNet as CrowdNet
    from posesyn.estimators.crowdnet.pose_noise import PoseNoise as PoseNoise
    from posesyn.estimators.hmr import HMR as HMR
    from posesyn.estimators.hmr2.network import HMR2 as HMR2
    from posesyn.estimators.hybrik.network import HybrIK as HybrIK
    from posesyn.estimators.losses import LossWeights as LossWeights
    from posesyn.estimators.losses import TrainingRecipe as TrainingRecipe
    from posesyn.estimators.registry import ESTIMATORS as ESTIMATORS
    from posesyn.estimators.registry import load_estimator as load_estimator
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
