"""Lightning modules and data modules. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.training.estimators.fine_tuning import fine_tune as fine_tune
    from posesyn.training.estimators.mixed_data import MixedPoseDataModule as MixedPoseDataModule
    from posesyn.training.estimators.module import PoseEstimatorModule as PoseEstimatorModule
    from posesyn.training.lifters.lifter import LifterModule as LifterModule
    from posesyn.training.lifters.lifter import score as score
    from posesyn.training.lifters.poseaug import PoseAugModule as PoseAugModule
    from posesyn.training.lifters.run import train_lifter as train_lifter
    from posesyn.training.lifters.run import train_poseaug as train_poseaug
    from posesyn.training.prior.modules import MotionTransformerModule as MotionTransformerModule
    from posesyn.training.prior.modules import MotionVQVAEModule as MotionVQVAEModule
    from posesyn.training.prior.run import train_prior as train_prior
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
