"""Metrics: pure functions (metres or pixels in, millimetres or percent out) and torchmetrics classes around them.

No value is named P1 or P2: SPIN, HybrIK and the lifting papers mean different things by them. None comes from
torchmetrics' Procrustes, which scores a mirrored skeleton as perfect.
"""

from posesyn.metrics.keypoints2d import HEAD_SIZES, OKS_SIGMAS, head_size, oks, pck2d, pckh
from posesyn.metrics.motion import acceleration, acceleration_error, jitter, velocity_error
from posesyn.metrics.pose3d import AUC_THRESHOLDS, auc3d, mean_of_groups, mpjpe, n_mpjpe, pa_mpjpe, pck3d, pve
from posesyn.metrics.running import (
    AUC3D,
    MPJPE,
    NMPJPE,
    OKS,
    PAMPJPE,
    PCK2D,
    PCK3D,
    PVE,
    AccelerationError,
    PCKh,
    VelocityError,
)
from posesyn.metrics.statistics import Interval, PairedDifference, bootstrap_mean, paired_difference

__all__ = [
    "AUC3D",
    "AUC_THRESHOLDS",
    "HEAD_SIZES",
    "MPJPE",
    "NMPJPE",
    "OKS",
    "OKS_SIGMAS",
    "PAMPJPE",
    "PCK2D",
    "PCK3D",
    "PVE",
    "AccelerationError",
    "Interval",
    "PCKh",
    "PairedDifference",
    "VelocityError",
    "acceleration",
    "acceleration_error",
    "auc3d",
    "bootstrap_mean",
    "head_size",
    "jitter",
    "mean_of_groups",
    "mpjpe",
    "n_mpjpe",
    "oks",
    "pa_mpjpe",
    "paired_difference",
    "pck2d",
    "pck3d",
    "pckh",
    "pve",
    "velocity_error",
]
