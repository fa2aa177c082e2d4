"""Data sets as sequences of persons, one file per format; person crops. Names load on first use."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "CocoKeypoints": "coco",
    "Crop": "crops",
    "CropAugmentation": "crops",
    "CropBatch": "crops",
    "MotionCaptions": "motion_captions",
    "MpiiKeypoints": "mpii",
    "RenderedClips": "rendered",
    "bvh_to_motion": "bvh",
    "crop_person": "crops",
    "crop_persons": "crops",
    "load_mocap": "motion_captions",
    "load_motion": "motions",
    "read_bvh": "bvh",
    "save_motion": "motions",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'posesyn.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"posesyn.data.{_PUBLIC[name]}"), name)
