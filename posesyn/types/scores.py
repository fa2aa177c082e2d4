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
    """

    scored: tuple[ScoredPerson, ...]
    challenging: tuple[ScoredPerson, ...]
    non_challenging: tuple[ScoredPerson, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scored)
