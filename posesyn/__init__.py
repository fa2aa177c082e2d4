"""posesyn: find the images on which a 3D human pose estimator fails, synthesize training data for exactly those poses
and retrain the estimator on it.

Public names load on first use, so that ``import posesyn`` is quick and loads no torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from posesyn import body as body
    from posesyn import data as data
    from posesyn import detectors as detectors
    from posesyn import estimators as estimators
    from posesyn import export as export
    from posesyn import geometry as geometry
    from posesyn import metrics as metrics
    from posesyn import report as report
    from posesyn import skeletons as skeletons
    from posesyn import synthesis as synthesis
    from posesyn import training as training
    from posesyn.body import load_body as load_body
    from posesyn.detectors import find_persons as find_persons
    from posesyn.detectors import load_detector as load_detector
    from posesyn.errors import PosesynError as PosesynError
    from posesyn.estimators import load_estimator as load_estimator
    from posesyn.estimators.adapters import CallableEstimator as CallableEstimator
    from posesyn.interfaces import EstimatorSpec as EstimatorSpec
    from posesyn.interfaces import TargetEstimator as TargetEstimator
    from posesyn.storage.reports import ErrorReport as ErrorReport
    from posesyn.synthesis.extraction.extractor import ErrorExtractor as ErrorExtractor
    from posesyn.synthesis.filtering.clip_filter import ClipFilter as ClipFilter
    from posesyn.synthesis.motion.synthesizer import MotionSynthesizer as MotionSynthesizer
    from posesyn.synthesis.rendering.renderer import AnimationRenderer as AnimationRenderer
    from posesyn.types import Clip as Clip
    from posesyn.types import Motion as Motion
    from posesyn.types import Person as Person
    from posesyn.types import PoseBatch as PoseBatch
    from posesyn.types import ScoredPerson as ScoredPerson
else:
    __getattr__, _, _names = lazy_names(__name__)
    __all__ = ["__version__", *_names]

    def __dir__() -> list[str]:
        return sorted(__all__)

    if "IPython" in sys.modules:  # a notebook: the small package tells it how values look
        __getattr__("report")
