"""Overlays, animations, plots and self-contained HTML reports. Names load on first use, as in :mod:`posesyn`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.report.animation import animation_uri as animation_uri
    from posesyn.report.animation import clip_to_webp as clip_to_webp
    from posesyn.report.animation import motion_to_webp as motion_to_webp
    from posesyn.report.cards import RunSummary as RunSummary
    from posesyn.report.cards import clips_to_show as clips_to_show
    from posesyn.report.embedding import encode_figure as encode_figure
    from posesyn.report.embedding import encode_image as encode_image
    from posesyn.report.embedding import figure_uri as figure_uri
    from posesyn.report.embedding import image_uri as image_uri
    from posesyn.report.figures import augmentation_figure as augmentation_figure
    from posesyn.report.figures import grid_figure as grid_figure
    from posesyn.report.figures import joint_heat_figure as joint_heat_figure
    from posesyn.report.figures import mesh_figure as mesh_figure
    from posesyn.report.figures import mesh_overlay as mesh_overlay
    from posesyn.report.figures import pck_curve as pck_curve
    from posesyn.report.figures import scored_grid as scored_grid
    from posesyn.report.figures import side_view_figure as side_view_figure
    from posesyn.report.figures import skeleton_figure as skeleton_figure
    from posesyn.report.notebook import clip_html as clip_html
    from posesyn.report.notebook import motion_html as motion_html
    from posesyn.report.notebook import person_html as person_html
    from posesyn.report.notebook import persons_html as persons_html
    from posesyn.report.notebook import register as register
    from posesyn.report.notebook import report_html as report_html
    from posesyn.report.notebook import show as show
    from posesyn.report.overlays import clip_overlay as clip_overlay
    from posesyn.report.overlays import draw_persons as draw_persons
    from posesyn.report.overlays import draw_predictions as draw_predictions
    from posesyn.report.overlays import draw_skeleton as draw_skeleton
    from posesyn.report.overlays import mask_overlay as mask_overlay
    from posesyn.report.overlays import person_crop_overlay as person_crop_overlay
    from posesyn.report.overlays import side_view as side_view
    from posesyn.report.pages import write_extraction_pages as write_extraction_pages
    from posesyn.report.pages import write_extraction_report as write_extraction_report
    from posesyn.report.pages import write_run_report as write_run_report
    from posesyn.report.plots import error_by_rank as error_by_rank
    from posesyn.report.plots import error_histogram as error_histogram
    from posesyn.report.plots import joint_error_bars as joint_error_bars
    from posesyn.report.plots import learning_curves as learning_curves
    from posesyn.report.plots import mean_joint_errors as mean_joint_errors
    from posesyn.report.recordings import save_persons_rerun as save_persons_rerun
    from posesyn.report.recordings import save_rerun as save_rerun
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
    __getattr__("register")()  # a notebook that loads this package shows values as pictures from then on
