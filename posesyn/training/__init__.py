"""Lightning modules and data modules. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "LifterModule": "lifters.lifter",
        "MixedPoseDataModule": "estimators.mixed_data",
        "MotionTransformerModule": "prior.modules",
        "MotionVQVAEModule": "prior.modules",
        "PoseAugModule": "lifters.poseaug",
        "PoseEstimatorModule": "estimators.fine_tuning",
        "fine_tune": "estimators.fine_tuning",
        "score": "lifters.lifter",
        "train_lifter": "lifters.lifter",
        "train_poseaug": "lifters.poseaug_run",
    },
)
