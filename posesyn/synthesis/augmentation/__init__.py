"""PoseAug: an augmentor that learns, with a lifter's error as feedback, to make harder but plausible pose pairs."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Augmented": "augmentor",
        "Augmentor": "augmentor",
        "FakePool": "fake_pool",
        "FeedbackWeights": "losses",
        "JointLimits": "plausibility",
        "JointRange": "joint_range",
        "PartDiscriminator": "discriminators",
        "ProjectionDiscriminator": "discriminators",
        "ViewRange": "views",
        "project_normalised": "projection",
    },
)
