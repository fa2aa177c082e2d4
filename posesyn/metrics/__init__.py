"""Metrics: pure functions (metres or pixels in, millimetres or percent out) and torchmetrics classes around them.

No value is named P1 or P2: SPIN, HybrIK and the lifting papers mean different things by them. None comes from
torchmetrics' Procrustes, which scores a mirrored skeleton as perfect. Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.metrics.keypoints2d import HEAD_SIZES as HEAD_SIZES
    from posesyn.metrics.keypoints2d import OKS_SIGMAS as OKS_SIGMAS
    from posesyn.metrics.keypoints2d import head_size as head_size
    from posesyn.metrics.keypoints2d import oks as oks
    from posesyn.metrics.keypoints2d import pck2d as pck2d
    from posesyn.metrics.keypoints2d import pckh as pckh
    from posesyn.metrics.pose3d import AUC_THRESHOLDS as AUC_THRESHOLDS
    from posesyn.metrics.pose3d import acceleration as acceleration
    from posesyn.metrics.pose3d import acceleration_error as acceleration_error
    from posesyn.metrics.pose3d import auc3d as auc3d
    from posesyn.metrics.pose3d import jitter as jitter
    from posesyn.metrics.pose3d import mean_of_groups as mean_of_groups
    from posesyn.metrics.pose3d import mpjpe as mpjpe
    from posesyn.metrics.pose3d import n_mpjpe as n_mpjpe
    from posesyn.metrics.pose3d import pa_mpjpe as pa_mpjpe
    from posesyn.metrics.pose3d import pck3d as pck3d
    from posesyn.metrics.pose3d import pve as pve
    from posesyn.metrics.pose3d import velocity_error as velocity_error
    from posesyn.metrics.running import AUC3D as AUC3D
    from posesyn.metrics.running import MPJPE as MPJPE
    from posesyn.metrics.running import NMPJPE as NMPJPE
    from posesyn.metrics.running import OKS as OKS
    from posesyn.metrics.running import PAMPJPE as PAMPJPE
    from posesyn.metrics.running import PCK2D as PCK2D
    from posesyn.metrics.running import PCK3D as PCK3D
    from posesyn.metrics.running import PVE as PVE
    from posesyn.metrics.running import AccelerationError as AccelerationError
    from posesyn.metrics.running import PCKh as PCKh
    from posesyn.metrics.running import VelocityError as VelocityError
    from posesyn.metrics.statistics import Interval as Interval
    from posesyn.metrics.statistics import PairedDifference as PairedDifference
    from posesyn.metrics.statistics import bootstrap_mean as bootstrap_mean
    from posesyn.metrics.statistics import paired_difference as paired_difference
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
