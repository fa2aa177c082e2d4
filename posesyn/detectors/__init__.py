"""Detectors of 2D keypoints, by name. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.detectors.callable import CallableDetector as CallableDetector
    from posesyn.detectors.movenet import MoveNet as MoveNet
    from posesyn.detectors.persons import FoundPersons as FoundPersons
    from posesyn.detectors.persons import find_persons as find_persons
    from posesyn.detectors.persons import person_finder as person_finder
    from posesyn.detectors.registry import DETECTORS as DETECTORS
    from posesyn.detectors.registry import load_detector as load_detector
    from posesyn.detectors.vitpose import ViTPose as ViTPose
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
