"""PoseAug: an augmentor that learns, with a lifter's error as feedback, to make harder but plausible pose pairs."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Augmented": "augmentor",
        "Augmentor": "augmentor",
        "FeedbackWeights": "losses",
        "JointLimits": "joint_range",
        "JointRange": "joint_range",
        "PartDiscriminator": "discriminators",
        "ProjectionDiscriminator": "discriminators",
        "ViewRange": "augmentor",
        "project_normalised": "bones",
    },
)
