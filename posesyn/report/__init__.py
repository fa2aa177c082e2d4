"""Overlays, animations, plots and self-contained HTML reports. Names load on first use, as in :mod:`posesyn`."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
