"""Data sets as sequences of persons, one file per format; person crops. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.data.crop_augmentation import CropAugmentation as CropAugmentation
    from posesyn.data.crops import Crop as Crop
    from posesyn.data.crops import CropBatch as CropBatch
    from posesyn.data.crops import crop_person as crop_person
    from posesyn.data.crops import crop_persons as crop_persons
    from posesyn.data.motions.amass import load_motion as load_motion
    from posesyn.data.motions.amass import save_motion as save_motion
    from posesyn.data.motions.bvh import bvh_to_motion as bvh_to_motion
    from posesyn.data.motions.bvh import write_bvh as write_bvh
    from posesyn.data.motions.bvh_file import read_bvh as read_bvh
    from posesyn.data.motions.captions import MotionCaptions as MotionCaptions
    from posesyn.data.motions.captions import load_mocap as load_mocap
    from posesyn.data.persons.coco import CocoKeypoints as CocoKeypoints
    from posesyn.data.persons.formats import open_dataset as open_dataset
    from posesyn.data.persons.jhmdb import Jhmdb as Jhmdb
    from posesyn.data.persons.lspet import LspExtended as LspExtended
    from posesyn.data.persons.mpi_inf_3dhp import Mpi3dhpTest as Mpi3dhpTest
    from posesyn.data.persons.mpi_inf_3dhp import Mpi3dhpTrain as Mpi3dhpTrain
    from posesyn.data.persons.mpii import MpiiKeypoints as MpiiKeypoints
    from posesyn.data.persons.rendered import RenderedClips as RenderedClips
    from posesyn.data.persons.spin_bedlam import AgoraPersons as AgoraPersons
    from posesyn.data.persons.spin_bedlam import BedlamPersons as BedlamPersons
    from posesyn.data.persons.spin_bedlam import SpinPersons as SpinPersons
    from posesyn.data.persons.threedpw_emdb import Emdb as Emdb
    from posesyn.data.persons.threedpw_emdb import ThreeDPW as ThreeDPW
    from posesyn.data.pose_pairs.h36m import H36MPoses as H36MPoses
    from posesyn.data.pose_pairs.h36m import H36MSequence as H36MSequence
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
