"""Overlays, animations, plots and self-contained HTML reports. Names load on first use, as in :mod:`posesyn`."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "RunSummary": "cards",
        "animation_uri": "animation",
        "augmentation_figure": "augmentation",
        "clip_overlay": "overlays",
        "clips_to_show": "cards",
        "clip_to_webp": "animation",
        "draw_persons": "overlays",
        "draw_skeleton": "overlays",
        "encode_figure": "embedding",
        "encode_image": "embedding",
        "error_by_rank": "plots",
        "error_histogram": "plots",
        "figure_uri": "embedding",
        "grid_figure": "figures",
        "image_uri": "embedding",
        "joint_heat_figure": "figures",
        "joint_error_bars": "plots",
        "learning_curves": "augmentation",
        "mask_overlay": "overlays",
        "mean_joint_errors": "plots",
        "mesh_figure": "figures",
        "mesh_overlay": "figures",
        "motion_html": "notebook",
        "motion_to_webp": "animation",
        "pck_curve": "figures",
        "person_crop_overlay": "overlays",
        "save_persons_rerun": "recordings",
        "save_rerun": "recordings",
        "scored_grid": "figures",
        "show": "notebook",
        "side_view": "overlays",
        "side_view_figure": "figures",
        "skeleton_figure": "figures",
        "write_extraction_pages": "pages",
        "write_extraction_report": "pages",
        "write_run_report": "pages",
    },
)
