"""What extraction finds: scored persons, and the two selections among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posesyn.types.person import Person, PoseBatch


@dataclass(frozen=True)
class ScoredPerson:
    """A person, the frozen estimator's prediction on it and the error between the two.

    Attributes:
        prediction: PoseBatch of one person.
        error: Weighted, normalised 2D error (see ``ErrorExtractor``); 0 is perfect.
        joint_errors: (J,) error per joint of ``person.skeleton``; meaningless where ``joint_used`` is False.
        joint_used: (J,) bool, joints that entered the error.
        rank: 0 for the largest error of the data set.
        disagreement_mm: Mean distance between several estimators' poses (see ``ErrorExtractor``), if asked for.

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


@dataclass(frozen=True)
class ErrorReport:
    """Result of ``ErrorExtractor.extract``: all scored persons (largest error first) and the two selections.

    ``skipped`` lists (person_id, reason) of persons that could not be scored; nothing is dropped in silence.

    Example:
        >>> report = ErrorReport((), (), (), skipped=(("coco/7#1", "no visible joint"),))
        >>> len(report), report.skipped[0][1]
        (0, 'no visible joint')
    """

    scored: tuple[ScoredPerson, ...]
    challenging: tuple[ScoredPerson, ...]
    non_challenging: tuple[ScoredPerson, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scored)
