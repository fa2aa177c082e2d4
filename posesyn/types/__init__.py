"""Plain, frozen values that pass between the stages. NumPy only, so that they pickle and need no torch.

Units: metres, pixels, an integer pixel is the pixel's centre. Frames: ``cam`` is the OpenCV camera (x right, y down,
z forward) of the full image; ``world`` is right-handed with y up and the floor at y = 0.
Shape letters: B batch, T frames, J joints, H W image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.types.clip import Clip as Clip
    from posesyn.types.motion import Motion as Motion
    from posesyn.types.motion import ViewRequest as ViewRequest
    from posesyn.types.person import GENDERS as GENDERS
    from posesyn.types.person import ArrayImage as ArrayImage
    from posesyn.types.person import BodyFit as BodyFit
    from posesyn.types.person import BodyLabels as BodyLabels
    from posesyn.types.person import Gender as Gender
    from posesyn.types.person import ImageSource as ImageSource
    from posesyn.types.person import JointTruth as JointTruth
    from posesyn.types.person import Person as Person
    from posesyn.types.person import Persons as Persons
    from posesyn.types.person import batched as batched
    from posesyn.types.person import gender_of as gender_of
    from posesyn.types.person import joint_truth as joint_truth
    from posesyn.types.scores import ErrorReport as ErrorReport
    from posesyn.types.scores import PoseBatch as PoseBatch
    from posesyn.types.scores import ScoredPerson as ScoredPerson
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
