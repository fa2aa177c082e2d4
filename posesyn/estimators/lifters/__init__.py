"""Lifters: 2D keypoints of 16 joints → 3D joints. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.estimators.lifters.estimator import LifterEstimator as LifterEstimator
    from posesyn.estimators.lifters.graphs import SemGCNLifter as SemGCNLifter
    from posesyn.estimators.lifters.graphs import STGCNLifter as STGCNLifter
    from posesyn.estimators.lifters.keypoints import LiftedImage as LiftedImage
    from posesyn.estimators.lifters.keypoints import lift_keypoints as lift_keypoints
    from posesyn.estimators.lifters.lifter import LIFTERS as LIFTERS
    from posesyn.estimators.lifters.lifter import Lifter as Lifter
    from posesyn.estimators.lifters.lifter import load_lifter as load_lifter
    from posesyn.estimators.lifters.lifter import make_lifter as make_lifter
    from posesyn.estimators.lifters.mlp import MLPLifter as MLPLifter
    from posesyn.estimators.lifters.mlp import VideoPoseLifter as VideoPoseLifter
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
