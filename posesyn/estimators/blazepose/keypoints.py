"""BlazePose as a detector of 2D keypoints: what :data:`posesyn.detectors.registry.DETECTORS` names.

They stand with the network, since detectors and estimators do not import each other: the registry only knows the place.
"""

from __future__ import annotations

import os

from posesyn.estimators.adapters import EstimatorKeypointDetector
from posesyn.estimators.blazepose.estimator import NAMES, BlazePose

Checkpoint = str | os.PathLike[str] | None


def blazepose(checkpoint: Checkpoint) -> EstimatorKeypointDetector:
    """The size ``full``."""
    return _detector("blazepose", checkpoint)


def blazepose_lite(checkpoint: Checkpoint) -> EstimatorKeypointDetector:
    """The smallest."""
    return _detector("blazepose_lite", checkpoint)


def blazepose_heavy(checkpoint: Checkpoint) -> EstimatorKeypointDetector:
    """The largest."""
    return _detector("blazepose_heavy", checkpoint)


def _detector(name: str, checkpoint: Checkpoint) -> EstimatorKeypointDetector:
    if checkpoint is None:
        return EstimatorKeypointDetector(BlazePose.fetched(name))
    return EstimatorKeypointDetector(BlazePose(NAMES[name]).load_checkpoint(checkpoint)).eval()
