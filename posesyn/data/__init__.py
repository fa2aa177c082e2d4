"""Data sets as sequences of persons, one file per format; person crops. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
