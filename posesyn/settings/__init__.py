"""One dataclass per stage: what it can be told. Plain data that loads nothing heavy and opens no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.settings.lifters import CameraRig as CameraRig
    from posesyn.settings.lifters import LifterChoice as LifterChoice
    from posesyn.settings.lifters import LifterSettings as LifterSettings
    from posesyn.settings.lifters import PoseAugSettings as PoseAugSettings
    from posesyn.settings.lifters import PosePairSettings as PosePairSettings
    from posesyn.settings.stages import CaptionerSettings as CaptionerSettings
    from posesyn.settings.stages import DataSettings as DataSettings
    from posesyn.settings.stages import EstimatorSettings as EstimatorSettings
    from posesyn.settings.stages import ExtractionSettings as ExtractionSettings
    from posesyn.settings.stages import FilterSettings as FilterSettings
    from posesyn.settings.stages import RenderingSettings as RenderingSettings
    from posesyn.settings.stages import RunSettings as RunSettings
    from posesyn.settings.synthesis import FittingSettings as FittingSettings
    from posesyn.settings.synthesis import SynthesisSettings as SynthesisSettings
    from posesyn.settings.training import CaptionedMotionSettings as CaptionedMotionSettings
    from posesyn.settings.training import EvaluationSettings as EvaluationSettings
    from posesyn.settings.training import FineTuningSettings as FineTuningSettings
    from posesyn.settings.training import PriorSettings as PriorSettings
    from posesyn.settings.training import TrainerSettings as TrainerSettings
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
