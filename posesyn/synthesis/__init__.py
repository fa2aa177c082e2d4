"""The stages: extraction, motion synthesis, rendering, filtering. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.synthesis.extraction.extractor import ErrorExtractor as ErrorExtractor
    from posesyn.synthesis.filtering.clip_filter import ClipFilter as ClipFilter
    from posesyn.synthesis.motion.synthesizer import MotionSynthesizer as MotionSynthesizer
    from posesyn.synthesis.rendering.renderer import AnimationRenderer as AnimationRenderer
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
