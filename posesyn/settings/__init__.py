"""One dataclass per stage: what it can be told. Plain data that loads nothing heavy and opens no file."""

from posesyn.settings.inputs import CaptionerSettings, DataSettings, EstimatorSettings
from posesyn.settings.lifters import CameraRig, LifterChoice, LifterSettings, PoseAugSettings, PosePairSettings
from posesyn.settings.prior import CaptionedMotionSettings, PriorSettings
from posesyn.settings.stages import ExtractionSettings, FilterSettings, RenderingSettings, RunSettings
from posesyn.settings.synthesis import FittingSettings, SynthesisSettings
from posesyn.settings.training import EvaluationSettings, FineTuningSettings, TrainerSettings

__all__ = [
    "CameraRig",
    "CaptionedMotionSettings",
    "CaptionerSettings",
    "DataSettings",
    "EstimatorSettings",
    "EvaluationSettings",
    "ExtractionSettings",
    "FilterSettings",
    "FineTuningSettings",
    "FittingSettings",
    "LifterChoice",
    "LifterSettings",
    "PoseAugSettings",
    "PosePairSettings",
    "PriorSettings",
    "RenderingSettings",
    "RunSettings",
    "SynthesisSettings",
    "TrainerSettings",
]
