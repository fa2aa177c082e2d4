"""Scores of an estimator on labelled persons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posesyn import metrics, skeletons
from posesyn.errors import InputError
from posesyn.protocols import TargetEstimator
from posesyn.types import Person, batched

PROTOCOL = "24 SMPL joints, root = pelvis; PA: similarity without reflection per person; mean over persons"


@dataclass(frozen=True)
class Evaluation:
    """Errors per person in millimetres, in the order of ``person_ids``.

    The protocol is the one named in :data:`PROTOCOL`; compare only numbers of one protocol.
    """

    person_ids: tuple[str, ...]
    mpjpe_mm: np.ndarray
    pa_mpjpe_mm: np.ndarray
    protocol: str = PROTOCOL

    def summary(self) -> dict[str, float]:
        """Means over persons."""
        return {
            "persons": len(self.person_ids),
            "MPJPE [mm]": float(self.mpjpe_mm.mean()),
            "PA-MPJPE [mm]": float(self.pa_mpjpe_mm.mean()),
        }


def evaluate(estimator: TargetEstimator, persons: Sequence[Person], batch_size: int = 64) -> Evaluation:
    """MPJPE and PA-MPJPE of ``estimator`` on persons that carry ``labels``.

    Raises:
        InputError: No persons, a person without 3D labels, or an estimator whose skeleton lacks a SMPL joint.
    """
    if len(persons) == 0:
        raise InputError("evaluate needs at least one labelled person", got="an empty sequence")
    to_smpl = skeletons.mapping(estimator.spec.skeleton, "smpl24")
    if (to_smpl < 0).any():
        missing = [name for name, row in zip(skeletons.get("smpl24").joints, to_smpl) if row < 0]
        raise InputError(
            "the estimator's skeleton lacks joints that the protocol needs",
            where=f"estimator '{estimator.spec.name}'",
            expected="all 24 SMPL joints",
            got=f"'{estimator.spec.skeleton}' without {missing}",
            fix="evaluate it with a protocol of its own joints",
        )
    ids, mpjpe, pa_mpjpe = [], [], []
    for chunk in batched(persons, batch_size):
        chunk = list(chunk)
        for person in chunk:
            if person.labels is None:
                raise InputError(
                    "evaluate needs 3D labels",
                    where=f"person '{person.person_id}'",
                    fix="use a labelled data set, e.g. RenderedClips",
                )
        predicted = estimator.predict(chunk).joints_cam[:, to_smpl]
        truth = np.stack([person.labels.joints_cam[:24] for person in chunk])
        predicted = predicted - predicted[:, :1]
        truth = truth - truth[:, :1]
        ids += [person.person_id for person in chunk]
        mpjpe.append(metrics.mpjpe(predicted, truth, reduce="none"))
        pa_mpjpe.append(metrics.pa_mpjpe(predicted, truth, reduce="none"))
    return Evaluation(tuple(ids), np.concatenate(mpjpe), np.concatenate(pa_mpjpe))
