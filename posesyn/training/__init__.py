"""Lightning modules and data modules. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "FineTuningSettings": "settings",
        "LifterModule": "lifter",
        "LifterSettings": "poseaug_settings",
        "MixedPoseDataModule": "mixed_data",
        "MotionTransformerModule": "motion",
        "MotionVQVAEModule": "motion",
        "PoseAugModule": "poseaug",
        "PoseAugSettings": "poseaug_settings",
        "PoseEstimatorModule": "pose_estimator",
        "evaluate": "evaluation",
        "fine_tune": "fine_tuning",
        "score": "lifter",
        "train_lifter": "lifter",
        "train_poseaug": "poseaug_run",
    },
)
