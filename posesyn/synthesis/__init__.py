"""The stages: extraction, motion synthesis, rendering, filtering. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AnimationRenderer": "rendering.renderer",
        "ClipFilter": "filtering.clip_filter",
        "ErrorExtractor": "extraction.extractor",
        "MotionSynthesizer": "motion.synthesizer",
        "load_report": "extraction.report_files",
        "save_report": "extraction.report_files",
    },
)
