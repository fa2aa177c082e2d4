"""The stages: extraction, motion synthesis, rendering, filtering. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AnimationRenderer": "rendering.renderer",
        "ClipFilter": "filtering",
        "ErrorExtractor": "extraction",
        "MotionSynthesizer": "motion.synthesizer",
        "load_report": "extraction_report",
        "save_report": "extraction_report",
    },
)
