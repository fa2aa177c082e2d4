"""PoseAug: an augmentor that learns, with a lifter's error as feedback, to make harder but plausible pose pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.synthesis.augmentation.augmentor import Augmented as Augmented
    from posesyn.synthesis.augmentation.augmentor import Augmentor as Augmentor
    from posesyn.synthesis.augmentation.augmentor import ViewRange as ViewRange
    from posesyn.synthesis.augmentation.bones import project_normalised as project_normalised
    from posesyn.synthesis.augmentation.joint_range import JointLimits as JointLimits
    from posesyn.synthesis.augmentation.joint_range import JointRange as JointRange
    from posesyn.synthesis.augmentation.losses import FeedbackWeights as FeedbackWeights
    from posesyn.synthesis.augmentation.losses import PartDiscriminator as PartDiscriminator
    from posesyn.synthesis.augmentation.losses import ProjectionDiscriminator as ProjectionDiscriminator
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
