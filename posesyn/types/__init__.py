"""Plain, frozen values that pass between the stages. NumPy only, so that they pickle and need no torch.

Units: metres, pixels, an integer pixel is the pixel's centre. Frames: ``cam`` is the OpenCV camera (x right, y down,
z forward) of the full image; ``world`` is right-handed with y up and the floor at y = 0.
Shape letters: B batch, T frames, J joints, H W image.
"""

from posesyn.types.clip import Clip
from posesyn.types.labels import GENDERS, BodyFit, BodyLabels, Gender, JointTruth, gender_of
from posesyn.types.motion import Motion, ViewRequest
from posesyn.types.person import ArrayImage, ImageSource, Person, Persons, batched, joint_truth
from posesyn.types.poses import PoseBatch
from posesyn.types.scores import ErrorReport, ScoredPerson

__all__ = [
    "GENDERS",
    "ArrayImage",
    "BodyFit",
    "BodyLabels",
    "Clip",
    "ErrorReport",
    "Gender",
    "ImageSource",
    "JointTruth",
    "Motion",
    "Person",
    "Persons",
    "PoseBatch",
    "ScoredPerson",
    "ViewRequest",
    "batched",
    "gender_of",
    "joint_truth",
]
