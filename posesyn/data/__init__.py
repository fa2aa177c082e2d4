"""Data sets as sequences of persons, one file per format; person crops. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AgoraPersons": "persons.bedlam",
        "BedlamPersons": "persons.bedlam",
        "CocoKeypoints": "persons.coco",
        "Crop": "crops",
        "CropAugmentation": "crops",
        "CropBatch": "crops",
        "Emdb": "persons.emdb",
        "H36MPoses": "pose_pairs.h36m",
        "H36MSequence": "pose_pairs.h36m",
        "Jhmdb": "persons.jhmdb",
        "LspExtended": "persons.lspet",
        "MotionCaptions": "motions.captions",
        "Mpi3dhpTest": "persons.mpi_inf_3dhp",
        "Mpi3dhpTrain": "persons.mpi_inf_3dhp",
        "MpiiKeypoints": "persons.mpii",
        "RenderedClips": "persons.rendered",
        "SpinPersons": "persons.spin",
        "ThreeDPW": "persons.threedpw",
        "bvh_to_motion": "motions.bvh",
        "crop_person": "crops",
        "crop_persons": "crops",
        "load_mocap": "motions.captions",
        "load_motion": "motions.amass",
        "open_dataset": "persons.formats",
        "read_bvh": "motions.bvh",
        "save_motion": "motions.amass",
        "write_bvh": "motions.bvh",
    },
)
