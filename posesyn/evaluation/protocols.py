"""Named evaluation protocols: which persons, joints, root and alignment. Each names the code that it follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.registry import Registry
from posesyn.types import Person

MPJPE, PA_MPJPE, N_MPJPE, PVE = "MPJPE [mm]", "PA-MPJPE [mm]", "N-MPJPE [mm]", "PVE [mm]"
PCK150, AUC = "PCK@150 [%]", "AUC [%]"
PCKH, PCK005, PCK01 = "PCKh@0.6 [%]", "PCK@0.05 [%]", "PCK@0.1 [%]"
METRICS_3D, METRICS_2D = (MPJPE, PA_MPJPE, N_MPJPE, PVE, PCK150, AUC), (PCKH, PCK005, PCK01)
HIGHER_IS_BETTER = frozenset({PCK150, AUC, *METRICS_2D})


@dataclass(frozen=True)
class Protocol:
    """Everything that decides a number. All of it is written into the result.

    Attributes:
        name: Name.
        description: Where it comes from and what to know.
        joints: Joints that are compared (a skeleton).
        space: Skeleton in which the root is removed, before ``joints`` are selected from it.
        root: Joints of ``space`` whose mean is removed from prediction and truth; () removes nothing.
        metrics: Of :data:`METRICS_3D` or of :data:`METRICS_2D`, not both.
        predicted: ``"joints"`` takes the estimator's joints, converted by name; ``"mesh"`` its mesh times
            ``regressor``.
        truth: ``"joints"`` those of the data set; ``"mesh"`` the posed gendered body, times ``regressor`` where
            one is named, else its own joints; ``"keypoints"`` the 2D annotation.
        regressor: ``"h36m"`` (17 joints) or ``"extra"`` (9 joints beside the body's 45), where a mesh is used.
        mesh_root: Where meshes are aligned for PVE: ``"space"`` (``root``) or ``"smpl"`` (SMPL pelvis).
        subjects, cameras: Only persons of one of these names; () takes all.
        every: Only each n-th frame, counted from the first.
        first_frame: Number of the first frame in the file names.
        valid_only: Only persons whose ``valid`` is not False.
        inside_only: Only persons with every joint inside the image.
        head: Skeleton in which the head size of PCKh is measured, where ``joints`` has no head; None takes ``joints``.
    """

    name: str
    description: str
    joints: str
    space: str
    root: tuple[str, ...]
    metrics: tuple[str, ...] = (MPJPE, PA_MPJPE)
    predicted: Literal["joints", "mesh"] = "joints"
    truth: Literal["joints", "mesh", "keypoints"] = "joints"
    regressor: Literal["h36m", "extra"] | None = None
    mesh_root: Literal["space", "smpl"] = "space"
    subjects: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    every: int = 1
    first_frame: int = 0
    valid_only: bool = False
    inside_only: bool = False
    head: str | None = None

    def __post_init__(self) -> None:
        where = f"protocol '{self.name}'"
        space = skeletons.get(self.space)
        for joint in self.root:
            space.index(joint)
        known = METRICS_2D if self.two_d else METRICS_3D
        if not self.metrics or set(self.metrics) - set(known):
            raise InputError("unknown metrics", where=where, expected=known, got=self.metrics)
        if (self.predicted == "mesh") != (self.regressor is not None):
            raise InputError("joints of a mesh need a regressor, and only they do", where=where)
        if PVE in self.metrics and self.truth != "mesh":
            raise InputError("PVE needs the truth's mesh", where=where)
        if self.every < 1:
            raise InputError("every must be at least 1", where=where, got=self.every)

    @property
    def two_d(self) -> bool:
        """Whether keypoints in the image are compared."""
        return self.truth == "keypoints"

    def left_out(self, person: Person) -> str | None:
        """Why a person is no part of the protocol, or None."""
        if self.valid_only and not person.valid:
            return "its frame is marked invalid"
        for key, wanted in (("subject", self.subjects), ("camera", self.cameras)):
            value = getattr(person, key)
            if wanted and value not in wanted:
                return f"{key} {value} is not one of {', '.join(wanted)}"
        if self.every > 1:
            if person.frame is None:
                return "its frame number is unknown"
            if (person.frame - self.first_frame) % self.every:
                return f"not every {self.every}th frame"
        if self.inside_only:
            size = person.image_width_height
            if size is None:
                return "the size of its image is unknown"
            inside = (person.keypoints_px >= 0).all(-1) & (person.keypoints_px < np.array(size)).all(-1)
            if not (inside & person.visible).all():
                return "a joint is outside the image"
        return None

    def written_out(self) -> dict[str, Any]:
        """All settings as JSON values, with the joints and the alignment in words."""
        space = skeletons.get(self.space)
        rows = skeletons.mapping(self.space, self.joints, approximate=False)
        alignment = {
            MPJPE: "root removed, nothing else" if self.root else "none",
            PA_MPJPE: "similarity per person, no reflection",
            N_MPJPE: "root removed, best scale per person",
            PVE: "meshes moved to their root",
            PCK150: "root removed; strictly below 150 mm",
            AUC: "root removed; mean of 31 thresholds from 0 to 150 mm",
            PCKH: "threshold 0.6 head sizes (see metrics.HEAD_SIZES)",
            PCK005: "threshold 0.05 of the longer side of the box",
            PCK01: "threshold 0.1 of the longer side of the box",
        }
        return {
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()},
            "joint_names": [space.joints[row] if row >= 0 else None for row in rows],
            "alignment": {metric: alignment[metric] for metric in self.metrics},
        }


_H36M_14: dict[str, Any] = {"joints": "eval14", "space": "h36m17", "predicted": "mesh", "regressor": "h36m"}
_SPIN14: dict[str, Any] = {**_H36M_14, "root": ("pelvis",)}
_H36M_TEST: dict[str, Any] = {**_SPIN14, "subjects": ("S9", "S11"), "first_frame": 1}
_FRONTAL: dict[str, Any] = {**_H36M_TEST, "cameras": ("60457274",)}
_MESHES: dict[str, Any] = {"metrics": (MPJPE, PA_MPJPE, PVE), "truth": "mesh"}
_SMPL24: dict[str, Any] = {"joints": "smpl24", "space": "smpl24", "root": ("pelvis",)}

_BUILT_IN = (
    Protocol("smpl24", "24 SMPL joints, root = pelvis; PA: similarity without reflection per person; mean over persons",
             **_SMPL24),
    Protocol("3dpw-spin14", "SPIN, VIBE: valid frames; gendered truth and neutral prediction times the H36M regressor, "
             "pelvis = row 0, 14 joints", **_SPIN14, **_MESHES, valid_only=True),
    Protocol("3dpw-crowdnet14", "3DCrowdNet: as 3dpw-spin14, meshes aligned at the SMPL pelvis",
             **_SPIN14, **_MESHES, mesh_root="smpl", valid_only=True),
    Protocol("3dpw-wham14", "WHAM: as 3dpw-spin14, root = midpoint of the hips",
             **_H36M_14, root=("right_hip", "left_hip"), **_MESHES, valid_only=True),
    Protocol("3dpw-hmr2-14", "HMR2: J19 joints regressed beside the body's, root = MPII pelvis, 14 joints",
             "eval14", "spin24", ("pelvis",), predicted="mesh", truth="mesh", regressor="extra", valid_only=True),
    Protocol("3dpw-smpl24", "24 SMPL joints that the files state; not the protocol of most tables, which take 14",
             **_SMPL24, valid_only=True),
    Protocol("emdb-spin14", "as 3dpw-spin14, on the file's good frames", **_SPIN14, **_MESHES, valid_only=True),
    Protocol("h36m-spin14-all-cameras",
             "SPIN's camera set 'P1': S9 and S11, all cameras, every 5th frame, 14 joints; truth = joints of the file",
             **_H36M_TEST, every=5),
    Protocol("h36m-spin14-frontal", "SPIN's camera set 'P2': as h36m-spin14-all-cameras, camera 60457274 only",
             **_FRONTAL, every=5),
    Protocol("h36m-crowdnet14", "3DCrowdNet: S9 and S11, camera 60457274, every 64th frame, 14 joints",
             **_FRONTAL, every=64),
    Protocol("3dhp-official17",
             "MPI-INF-3DHP: valid frames of TS1 … TS6, univ_annot3, 17 joints, root = joint 14; no alignment beyond it",
             "3dhp17", "3dhp17", ("pelvis",), (PCK150, AUC, MPJPE), valid_only=True),
    Protocol("3dhp-spin17", "SPIN: frames with a joint outside the image are dropped; 17 joints",
             "3dhp17", "3dhp17", ("pelvis",), valid_only=True, inside_only=True),
    Protocol("3dhp-hybrik14",
             "HybrIK: 14 joints, PCK and AUC without pelvis, spine and head; mean over persons, not over joint groups",
             "lsp14", "3dhp17", ("pelvis",), (PCK150, AUC), valid_only=True),
    Protocol("agora-smpl24",
             "AGORA's B-MPJPE and B-MVE on given boxes: SMPL, 24 joints, pelvis aligned; no matching, so no F1 or NMJE",
             **_SMPL24, **_MESHES, mesh_root="smpl"),
    Protocol("poseaug16", "PoseAug: 16 joints, root = pelvis", "poseaug16", "poseaug16", ("pelvis",),
             (MPJPE, PA_MPJPE, PCK150, AUC)),
    Protocol("limbs12", "12 joints that nearly every estimator has, shoulders to ankles, root = midpoint of the hips",
             "limbs12", "limbs12", ("left_hip", "right_hip"), (MPJPE, PA_MPJPE)),
    Protocol("lspet-pckh", "PoseSyn: PCKh@0.6 on LSP's 14 joints, head size = head top to neck (own choice)",
             "lsp14", "lsp14", (), (PCKH,), truth="keypoints"),
    Protocol("lspet-pckh12", "as lspet-pckh, without neck and head top, which not every estimator has",
             "limbs12", "limbs12", (), (PCKH,), truth="keypoints", head="lsp14"),
    Protocol("jhmdb-pckh", "PoseSyn: PCKh@0.6 on JHMDB's 15 joints, head size = 2 x face to neck (own choice)",
             "jhmdb15", "jhmdb15", (), (PCKH,), truth="keypoints"),
    Protocol("coco-pck", "HMR2: PCK at 0.05 and 0.1 of the longer side of the box, COCO's 17 joints",
             "coco17", "coco17", (), (PCK005, PCK01), truth="keypoints"),
)  # fmt: skip

PROTOCOLS: Registry[Protocol] = Registry(
    "protocol", {protocol.name: protocol for protocol in _BUILT_IN}, group="posesyn.protocols"
)
