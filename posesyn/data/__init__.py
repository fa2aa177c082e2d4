"""Data sets as sequences of persons, one file per format; person crops. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AgoraPersons": "agora",
        "BedlamPersons": "bedlam",
        "CocoKeypoints": "coco",
        "Crop": "crops",
        "CropAugmentation": "crops",
        "CropBatch": "crops",
        "Emdb": "emdb",
        "H36MPoses": "h36m",
        "H36MSequence": "h36m",
        "Jhmdb": "jhmdb",
        "LspExtended": "lspet",
        "MotionCaptions": "motion_captions",
        "Mpi3dhpTest": "mpi_inf_3dhp",
        "Mpi3dhpTrain": "mpi_inf_3dhp",
        "MpiiKeypoints": "mpii",
        "RenderedClips": "rendered",
        "SpinPersons": "spin",
        "ThreeDPW": "threedpw",
        "bvh_to_motion": "bvh",
        "crop_person": "crops",
        "crop_persons": "crops",
        "load_mocap": "motion_captions",
        "load_motion": "motions",
        "open_dataset": "formats",
        "read_bvh": "bvh",
        "save_motion": "motions",
        "write_bvh": "bvh_writer",
    },
)
