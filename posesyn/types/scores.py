"""What estimators say about persons, and what extraction finds: scored persons and the two selections among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.types.looks import short_repr
from posesyn.types.person import Person

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class PoseBatch:
    """What an estimator says about B persons. Only the first four fields are needed from a foreign estimator.

    Attributes:
        person_ids: B names, in the order of the persons passed to ``predict``.
        skeleton: Joint order of ``joints_cam`` and ``keypoints_px``.
        joints_cam: (B, J, 3) float32 metres, camera frame of the full image (root-relative is enough for extraction).
        keypoints_px: (B, J, 2) float32, the projection of ``joints_cam`` into the full image.
        pose_rotmat: (B, 24, 3, 3) local SMPL rotations, root in the camera frame, or None.
        betas: (B, 10) or None.
        transl_cam: (B, 3) SMPL translation in the full-image camera, or None.
        intrinsics: (B, 3, 3) of the full image, or None.
        vertices_cam: (B, V, 3) or None.
        scores: (B, J) float32, 0 to 1: how sure it is that each of ``keypoints_px`` is seen there; None where it does
            not say.

    Example:
        >>> batch = PoseBatch(("a", "b"), "coco17", np.zeros((2, 17, 3)), np.zeros((2, 17, 2)))
        >>> len(batch), batch[1].person_ids
        (2, ('b',))
    """

    person_ids: tuple[str, ...]
    skeleton: str
    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    pose_rotmat: np.ndarray | None = None
    betas: np.ndarray | None = None
    transl_cam: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    vertices_cam: np.ndarray | None = None
    scores: np.ndarray | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        batch, joints = len(self.person_ids), len(skeletons.get(self.skeleton).joints)
        shapes = {
            "joints_cam": (batch, joints, 3),
            "keypoints_px": (batch, joints, 2),
            "pose_rotmat": (batch, 24, 3, 3),
            "betas": (batch, 10),
            "transl_cam": (batch, 3),
            "intrinsics": (batch, 3, 3),
            "scores": (batch, joints),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name not in ("joints_cam", "keypoints_px"):
                continue
            if np.shape(value) != shape:
                where = f"an estimator's output, skeleton '{self.skeleton}'"
                raise InputError(
                    f"PoseBatch.{name} has the wrong shape", where=where, expected=shape, got=np.shape(value)
                )

    def __len__(self) -> int:
        return len(self.person_ids)

    def __getitem__(self, index: int | slice) -> PoseBatch:
        """One person (or several) as a PoseBatch that keeps the batch axis."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "skeleton"}
        return replace(self, **{name: value[rows] for name, value in given.items() if value is not None})


@dataclass(frozen=True, eq=False, repr=False)
class ScoredPerson:
    """A person, the frozen estimator's prediction on it and the error between the two.

    Attributes:
        prediction: PoseBatch of one person.
        error: Weighted, normalised 2D error (see ``ErrorExtractor``); 0 is perfect.
        joint_errors: (J,) error per joint of ``person.skeleton``; meaningless where ``joint_used`` is False.
        joint_used: (J,) bool, joints that entered the error.
        rank: 0 for the largest error of the data set.
        disagreement_mm: Mean distance between several estimators' poses (see ``ErrorExtractor``), if asked for.
        lifted_mm: Distance of the predicted pose from those that explain the 2D truth, if ranked by it.

    Example:
        >>> image, box = ps.types.ArrayImage(np.zeros((48, 64, 3), np.uint8)), np.array([8, 4, 56, 44])
        >>> person = Person("a", image, box, np.full((17, 2), 20.0), np.ones(17), "coco17")
        >>> prediction = PoseBatch(("a",), "coco17", np.zeros((1, 17, 3)), np.zeros((1, 17, 2)))
        >>> ScoredPerson(person, prediction, 0.4, np.full(17, 0.4), np.ones(17, bool), rank=0).error
        0.4
    """

    person: Person
    prediction: PoseBatch
    error: float
    joint_errors: np.ndarray
    joint_used: np.ndarray
    rank: int = -1
    disagreement_mm: float | None = None
    lifted_mm: float | None = None

    __repr__ = short_repr

    @property
    def worst_joint(self) -> str:
        """Name of the joint with the largest error."""
        joints = skeletons.get(self.person.skeleton).joints
        return joints[int(np.argmax(np.where(self.joint_used, self.joint_errors, -1)))]


@dataclass(frozen=True, eq=False, repr=False)
class ErrorReport:
    """Result of ``ErrorExtractor.extract``: all scored persons (largest error first) and the two selections.

    ``skipped`` lists (person_id, reason) of persons that could not be scored; nothing is dropped in silence.

    Example:
        >>> report = ErrorReport((), (), (), skipped=(("coco/7#1", "no visible joint"),))
        >>> len(report), report.skipped[0][1]
        (0, 'no visible joint')
    """

    # Files are the layer above's: posesyn.storage.reports puts its two functions here.
    writer: ClassVar[Callable[[ErrorReport, str | os.PathLike[str]], None] | None] = None
    reader: ClassVar[Callable[[str | os.PathLike[str], Sequence[Person] | None], ErrorReport] | None] = None

    scored: tuple[ScoredPerson, ...]
    challenging: tuple[ScoredPerson, ...]
    non_challenging: tuple[ScoredPerson, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.scored)

    @property
    def selections(self) -> dict[str, str]:
        """``"challenging"`` or ``"non_challenging"`` by person_id; who is in neither is missing."""
        found = {item.person.person_id: "challenging" for item in self.challenging}
        return found | {item.person.person_id: "non_challenging" for item in self.non_challenging}

    def to_pandas(self) -> pd.DataFrame:
        """One row per scored person, largest error first; arrays are flat lists."""
        import pandas as pd  # `import posesyn` needs no pandas

        chosen = self.selections
        return pd.DataFrame([_row(item, chosen.get(item.person.person_id, "")) for item in self.scored])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a table, a summary and the predictions, which :meth:`load` reads.

        Args:
            folder: Made if it is missing.

        Raises:
            FileError: The folder cannot be written.
            InputError: The predictions do not all have one joint set, or nothing that writes files was imported.
        """
        if ErrorReport.writer is None:
            raise InputError("nobody knows how to write reports yet", fix="import posesyn.storage.reports first")
        ErrorReport.writer(self, folder)

    @staticmethod
    def load(folder: str | os.PathLike[str], persons: Sequence[Person] | None = None) -> ErrorReport:
        """Reads what :meth:`save` (or ``posesyn extract``) wrote.

        Args:
            folder: The report's folder.
            persons: The data set. None rebuilds the persons from the table; images are then read from where they were.

        Raises:
            FileError: Missing or damaged files.
            InputError: ``persons`` lacks a scored person, or nothing that reads files was imported.
        """
        if ErrorReport.reader is None:
            raise InputError("nobody knows how to read reports yet", fix="import posesyn.storage.reports first")
        return ErrorReport.reader(folder, persons)


_COPIED = ("track_id", "sequence", "subject", "action", "camera", "frame", "skeleton")
# Columns that a report has only where they were asked for.
MEASURES = ("disagreement_mm", "lifted_mm")


def _row(item: ScoredPerson, selection: str) -> dict[str, Any]:
    person = item.person
    return {
        "rank": item.rank,
        "person_id": person.person_id,
        "error": float(item.error),
        "selection": selection,
        "worst_joint": item.worst_joint,
        "joints_used": int(np.sum(item.joint_used)),
        "image_id": person.image_id,
        "image_name": person.image.name,
        **{name: getattr(person, name) for name in _COPIED},
        "box_xyxy": [float(x) for x in person.box_xyxy],
        "box_is_tight": person.box_is_tight,
        "keypoints_px": [float(x) for x in person.keypoints_px.ravel()],
        "visible": [bool(x) for x in person.visible],
        "joint_errors": [float(x) for x in item.joint_errors],
        "joint_used": [bool(x) for x in item.joint_used],
        "captions": list(person.captions),
        **{name: float(value) for name in MEASURES if (value := getattr(item, name)) is not None},
    }
