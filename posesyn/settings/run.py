"""What a whole run can be told: the settings of its stages, and the seed."""

from __future__ import annotations

from dataclasses import dataclass, field

from posesyn.settings.base import check_least
from posesyn.settings.stages import ExtractionSettings, FilterSettings, RenderingSettings
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.settings.training import FineTuningSettings


@dataclass(frozen=True)
class RunSettings:
    """A run: one part per stage, each the same object that the stage takes when it is used alone.

    Args:
        extraction: Who is picked.
        synthesis: How their motions are made.
        rendering: What is drawn of them.
        filtering: Which frames are kept.
        training: How the estimator is retrained; ``steps=0`` ends the run after the filter.
        seed: Decides everything that is drawn.
    """

    extraction: ExtractionSettings = field(default_factory=ExtractionSettings)
    synthesis: SynthesisSettings = field(default_factory=SynthesisSettings)
    rendering: RenderingSettings = field(default_factory=RenderingSettings)
    filtering: FilterSettings = field(default_factory=FilterSettings)
    training: FineTuningSettings = field(default_factory=FineTuningSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, seed=0)
