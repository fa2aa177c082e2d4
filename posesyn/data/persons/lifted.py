"""Lifted 2D truth: the pose that explains a person's keypoints best, as 3D labels that are trusted in part.

Photographs have 2D truth only, and a network that is trained with it alone keeps the picture right and loses the depth.
:class:`~posesyn.body.pose_fitting.PoseFitter` finds poses that explain the keypoints; here the best one becomes
:class:`~posesyn.types.person.BodyLabels`, with a trust in 0..1: the share of the passes in which a training uses it.
PoseSyn (arXiv 2503.13025) has nothing like it; the labels and every constant are our own choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from posesyn import skeletons
from posesyn.body.inverse_kinematics import fit_pose
from posesyn.body.model import Body, load_body
from posesyn.body.pose_fitting import MIN_JOINTS, PoseFitter, limb_joints, open_distance
from posesyn.body.pose_refinement import Fitted
from posesyn.errors import InputError, PosesynError
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.interfaces import TargetEstimator
from posesyn.types import BodyLabels, Person, ScoredPerson
from posesyn.types.looks import short_repr

TOO_FEW = f"fewer than {MIN_JOINTS} joints of its limbs are visible"
# Metres between the hypotheses at which the best one is trusted in 37 of 100 passes. On 240 persons of validation
# subjects (4 px of noise) 0.06 / 0.08 / 0.1 take the mean error of what is trained on from 83 mm (PA-MPJPE, all alike)
# to 69 / 74 / 77, with a mean trust of 0.21 / 0.38 / 0.52, before the next factor. `benchmarks/lifted_labels.py`.
OPEN_REACH = 0.08
# The same for the mean distance of the keypoints, in units of the person's size; careful annotations have 0.02. It
# tells annotations that no body explains.
REPROJECTION_REACH = 0.06
# Of the posterior among the hypotheses. The cost is too sure of the best one: on the same persons the rank correlation
# between their distance and the true PA-MPJPE is 0.40 at 1, 0.53 at 2, 0.60 at 5 and 0.58 at 20.
TEMPERATURE = 5.0
_FIELDS = ("pose_rotmat", "transl_cam", "joints_cam", "intrinsics")


def trust_of(fitted: Fitted) -> float:
    """How far the best hypothesis can be trusted, in 0..1.

    ``exp(-(d / 0.08)² - (r / 0.06)²)``: d, :func:`~posesyn.body.pose_fitting.open_distance`, is how much the hypotheses
    disagree, in metres; r is the reprojection error of the best one in units of the person's size.
    """
    apart, off = open_distance(fitted, TEMPERATURE) / OPEN_REACH, float(fitted.reprojection[0]) / REPROJECTION_REACH
    return min(float(np.exp(-(apart**2) - off**2)), 0.999)  # never the 1 of truth


class BodyLabeller:
    """Labels of one person after the other, from its 2D truth and an estimator's prediction.

    Args:
        fitter: Finds the pose; None takes the shipped pose library and its settings.
        body: The body that is posed, with its mean shape; None takes the shipped one.

    The body has mean size: a child is labelled as an adult further away. The camera of the labels looks at the pelvis,
    with the focal length and distance of the fit; a photo's own camera is not known.
    """

    def __init__(self, fitter: PoseFitter | None = None, body: Body | None = None) -> None:
        self.fitter, self.body = fitter or PoseFitter(), body or load_body(size="small")

    def __repr__(self) -> str:
        return short_repr(self, body=self.body.name)

    def labels(self, scored: ScoredPerson) -> BodyLabels | None:
        """The best hypothesis as labels; None where too few limb joints are visible (``MIN_JOINTS``).

        Raises:
            InputError: The prediction has NaN or infinite values.
        """
        fitted = self.fitter.fit(scored)
        return None if fitted is None else self.labels_of(fitted)

    @torch.no_grad()
    def labels_of(self, fitted: Fitted) -> BodyLabels:
        """The best of the hypotheses as labels."""
        view, (focal, x, y, depth) = fitted.views[0], fitted.cameras[0]
        # One frame has no neighbours to take the twist of its limbs from.
        found = fit_pose(fitted.points[:1, :22], self.body, twist_smoothing=0.0)
        pose = rotvec_to_matrix(torch.from_numpy(found.pose_rotvec[0]).double()).numpy()
        pose[0] = view @ pose[0]
        rest = self.body.rest_joints(torch.zeros(1, 10))[0, 0].double().numpy()
        transl = view @ (rest + found.transl[0]) + [0.0, 0.0, depth] - rest
        rotmat, betas, placed = (
            torch.from_numpy(np.asarray(value, np.float32))[None] for value in (pose, np.zeros(10), transl)
        )
        joints = self.body(rotmat, betas, placed).joints[0].numpy()
        camera = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]], np.float32)
        return BodyLabels(rotmat[0].numpy(), betas[0].numpy(), placed[0].numpy(), joints, camera, trust_of(fitted))


def check_liftable(persons: Sequence[Person], estimator: TargetEstimator) -> None:
    """Passes if somebody without labels has a skeleton that poses can be fitted to, and the estimator's helps with it.

    Raises:
        InputError: It is not so; nothing but annotations was read.
    """
    skeleton = estimator.spec.skeleton
    present = skeletons.mapping(skeleton, "smpl45") >= 0
    if limb_joints(skeleton) < MIN_JOINTS or not (present[0] or present[[1, 2]].all()):
        raise InputError(
            "the estimator's skeleton has too few joints to help lift 2D truth",
            where=f"estimator '{estimator.spec.name}'",
            expected=f"hips or pelvis, and {MIN_JOINTS} joints of the limbs",
            got=f"'{skeleton}'",
            fix="leave lifted labels out",
        )
    seen: set[str] = set()
    for row in range(len(persons)):
        person = persons[row]
        if person.labels is None and person.skeleton not in seen:
            seen.add(person.skeleton)
            if limb_joints(person.skeleton) >= MIN_JOINTS:
                return
    raise InputError(
        "the data set's 2D truth cannot be lifted",
        expected=f"persons without 3D labels, with {MIN_JOINTS} joints of the limbs",
        got=f"skeletons {sorted(seen)}" if seen else "3D labels for everybody",
        fix="leave lifted labels out",
    )


def lift(persons: Sequence[Person], estimator: TargetEstimator, labeller: BodyLabeller) -> dict[int, BodyLabels | str]:
    """Row → labels of the persons who have none, or why there are none.

    Args:
        persons: Few enough for one call of the estimator.
        estimator: Its prediction decides among poses that fit the picture alike.
        labeller: See there.
    """
    found: dict[int, BodyLabels | str] = {}
    for row, person in enumerate(persons):
        if person.labels is not None:
            continue
        if limb_joints(person.skeleton) < MIN_JOINTS:
            found[row] = f"its skeleton '{person.skeleton}' has too few joints of the limbs"
        elif not person.visible.sum() >= MIN_JOINTS:
            found[row] = TOO_FEW
    rows = [row for row, person in enumerate(persons) if person.labels is None and row not in found]
    for row, prediction in zip(rows, _predictions([persons[row] for row in rows], estimator)):
        if isinstance(prediction, str):
            found[row] = prediction
            continue
        nothing = np.zeros(len(persons[row].visible))
        scored = ScoredPerson(persons[row], prediction, 0.0, nothing, nothing.astype(bool))
        try:
            found[row] = labeller.labels(scored) or TOO_FEW
        except InputError as error:
            found[row] = error.what
    return found


def _predictions(persons: Sequence[Person], estimator: TargetEstimator) -> list[Any]:
    """One prediction per person, or why there is none."""
    if not persons:
        return []
    try:
        batch = replace(estimator.predict(persons), vertices_cam=None)
        return [batch[row] for row in range(len(persons))]
    except PosesynError as error:
        # One damaged image or empty box must not cost the others their labels.
        if len(persons) == 1:
            return [error.what]
        return [answer for person in persons for answer in _predictions([person], estimator)]


def label_arrays(found: Mapping[int, BodyLabels | str], persons: Sequence[Person], first: int) -> dict[str, np.ndarray]:
    """What :func:`lift` found as arrays for one npz; ``first`` is the place of ``persons`` in the whole data set."""
    lifted = {row: labels for row, labels in sorted(found.items()) if isinstance(labels, BodyLabels)}
    missed = {row: reason for row, reason in sorted(found.items()) if isinstance(reason, str)}
    shapes = {"pose_rotmat": (24, 3, 3), "transl_cam": (3,), "joints_cam": (45, 3), "intrinsics": (3, 3)}
    return {
        "rows": np.array([first + row for row in lifted], np.int64),
        "person_ids": np.array([persons[row].person_id for row in lifted], np.str_),
        "trust": np.array([labels.trust for labels in lifted.values()], np.float32),
        **{
            name: np.array([getattr(labels, name) for labels in lifted.values()], np.float32).reshape(-1, *shapes[name])
            for name in _FIELDS
        },
        "missed_ids": np.array([persons[row].person_id for row in missed], np.str_),
        "missed_reasons": np.array(list(missed.values()), np.str_),
    }


class LiftedPersons(Sequence[Person]):
    """A data set whose persons without 3D labels have lifted ones, as far as they could be lifted.

    Args:
        persons: Any data set, or several joined.
        arrays: Of :func:`label_arrays`.

    Attributes:
        trust: (N,) of those who were lifted.
        missed: (person_id, reason) of those who could not be; they stay as they are.

    Raises:
        InputError: The arrays are those of another data set.
    """

    def __init__(self, persons: Sequence[Person], arrays: Mapping[str, np.ndarray]) -> None:
        self._persons, self._arrays = persons, {name: np.asarray(arrays[name]) for name in ("trust", *_FIELDS)}
        self._places = {int(row): place for place, row in enumerate(arrays["rows"])}
        for row, name in zip(self._places, arrays["person_ids"]):
            if not row < len(persons) or persons[row].person_id != name:
                raise InputError("lifted labels belong to another data set", where="LiftedPersons", got=f"'{name}'")
        self.missed = tuple(zip(arrays["missed_ids"].tolist(), arrays["missed_reasons"].tolist()))

    @property
    def trust(self) -> np.ndarray:
        return self._arrays["trust"]

    def __len__(self) -> int:
        return len(self._persons)

    def __repr__(self) -> str:
        return f"LiftedPersons({len(self)} persons, {len(self._places)} lifted, {len(self.missed)} not)"

    def __getitem__(self, index: int | slice) -> Person | list[Person]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self._person(row) for row in range(*index.indices(len(self)))]
        return self._person(range(len(self))[index])

    def _person(self, row: int) -> Person:
        person, place = self._persons[row], self._places.get(row)
        if place is None:
            return person
        truth = {name: self._arrays[name][place] for name in _FIELDS}
        trust = float(self._arrays["trust"][place])
        return replace(person, labels=BodyLabels(betas=np.zeros(10, np.float32), trust=trust, **truth))
