"""Overlays, animations, plots and self-contained HTML reports. Names load on first use, as in :mod:`posesyn`."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "RunSummary": "summary",
    "animation_uri": "animation",
    "clip_overlay": "overlays",
    "clip_to_webp": "animation",
    "draw_persons": "overlays",
    "draw_skeleton": "overlays",
    "encode_figure": "embedding",
    "encode_image": "embedding",
    "error_by_rank": "plots",
    "error_histogram": "plots",
    "figure_uri": "embedding",
    "image_uri": "embedding",
    "joint_error_bars": "plots",
    "mask_overlay": "overlays",
    "mean_joint_errors": "plots",
    "motion_to_webp": "animation",
    "person_crop_overlay": "overlays",
    "side_view": "overlays",
    "write_extraction_report": "html",
    "write_run_report": "html",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'posesyn.report' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"posesyn.report.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
