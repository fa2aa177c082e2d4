"""Scores of an estimator on labelled persons, by a named protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from posesyn import metrics, skeletons
from posesyn.errors import InputError
from posesyn.evaluation import protocols
from posesyn.evaluation.bodies import FittedBodies, JointRegressor
from posesyn.evaluation.protocols import PROTOCOLS, Protocol
from posesyn.evaluation.results import Evaluation
from posesyn.interfaces import TargetEstimator
from posesyn.progress import ProgressBar
from posesyn.types import Person, PoseBatch, batched, joint_truth

PROTOCOL = protocols.PROTOCOLS["smpl24"].description


def evaluate(
    estimator: TargetEstimator,
    persons: Sequence[Person],
    batch_size: int = 64,
    *,
    protocol: str | Protocol = "smpl24",
    regressor: JointRegressor | None = None,
    bodies: FittedBodies | None = None,
    progress: bool = False,
) -> Evaluation:
    """Runs ``estimator`` on every person of the protocol and compares.

    Args:
        persons: Labelled data; persons that the protocol leaves out are listed in the result.
        batch_size: Persons per call of the estimator.
        protocol: A name in :data:`posesyn.evaluation.protocols.PROTOCOLS`, or one of your own.
        regressor: From :func:`posesyn.evaluation.bodies.load_regressor`, for protocols on meshes.
        bodies: The data set's gendered bodies, for protocols whose truth is a mesh.
        progress: Show a bar.

    Raises:
        InputError: No persons, none of the protocol, a person without the labels it needs, or an estimator or regressor
            that lacks what it compares.

    Example:
        >>> standing = ps.Motion("stand", np.zeros((2, 24, 3)), np.zeros((2, 3)), np.zeros(10), fps=20.0)
        >>> clips = ps.AnimationRenderer(image_size=64).render([standing], progress=False).to_list()
        >>> evaluation = evaluate(ps.load_estimator("hmr_small"), ps.data.RenderedClips(clips))
        >>> evaluation.mpjpe_mm.shape
        (2,)
    """
    if len(persons) == 0:
        raise InputError("evaluate needs at least one labelled person", got="an empty sequence")
    rule = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    scorer = _Scorer(estimator, rule, regressor, bodies)
    taken, skipped = [], list(getattr(persons, "skipped", ()))
    for row, person in enumerate(persons):
        reason = rule.left_out(person) or scorer.unusable(person)
        if reason is None:
            taken.append(row)
        else:
            skipped.append((person.person_id, reason))
    if not taken:
        got = f"{len(skipped)} left out, the first because {skipped[0][1]}"
        raise InputError(f"no person belongs to protocol '{rule.name}'", got=got)
    parts = []
    with ProgressBar(len(taken), "evaluate", "person", shown=progress) as bar:
        for rows in batched(taken, batch_size):
            chunk = [persons[row] for row in rows]
            parts.append(scorer.score(chunk))
            bar.update(len(chunk))
    return _joined(parts, rule, scorer, skipped, estimator)


class _Scorer:
    """One protocol applied to one estimator."""

    def __init__(
        self, estimator: TargetEstimator, rule: Protocol, regressor: JointRegressor | None, bodies: FittedBodies | None
    ) -> None:
        self.estimator, self.rule, self.regressor, self.bodies = estimator, rule, regressor, bodies
        if rule.regressor is not None:
            fits = regressor is not None and (regressor.skeleton == "smpl54") == (rule.regressor == "extra")
            if not fits:
                what = f"protocol '{rule.name}' needs the '{rule.regressor}' joint regressor"
                got = None if regressor is None else regressor.source
                raise InputError(what, got=got, fix="pass regressor=load_regressor(path, template)")
        if rule.truth == "mesh" and bodies is None:
            fix = "pass bodies=FittedBodies(smpl_folder)"
            raise InputError(f"protocol '{rule.name}' needs the data set's bodies", fix=fix)
        self.source = regressor.skeleton if rule.predicted == "mesh" and regressor else estimator.spec.skeleton
        self.select = skeletons.mapping(rule.space, rule.joints)
        self.root = [skeletons.get(rule.space).index(joint) for joint in rule.root]
        self._require(self.source, f"estimator '{estimator.spec.name}'")

    def _require(self, source: str, where: str) -> None:
        """Refuses a joint set that lacks a joint of the protocol, prediction and truth alike."""
        rows = skeletons.mapping(source, self.rule.space)
        needed = sorted({*self.select.tolist(), *self.root} - {-1})
        missing = [skeletons.get(self.rule.space).joints[row] for row in needed if rows[row] < 0]
        if missing or (self.select < 0).any():
            raise InputError(
                "the estimator's skeleton lacks joints that the protocol needs",
                where=where,
                expected=f"all joints of '{self.rule.joints}'",
                got=f"'{source}' without {missing}",
                fix="evaluate it with a protocol of its own joints: 'poseaug16' for lifters",
            )

    def approximate(self) -> list[str]:
        """Compared joints for which the estimator's nearest joint stands in."""
        exact = skeletons.mapping(self.source, self.rule.space, approximate=False)
        names = skeletons.get(self.rule.space).joints
        return [names[row] for row in self.select if exact[row] < 0]

    def unusable(self, person: Person) -> str | None:
        """Why a person's labels are not enough for the protocol. Raises where it has none at all."""
        rule = self.rule
        if rule.two_d:
            _, present = skeletons.convert(person.keypoints_px, person.skeleton, rule.joints, person.visible)
            if not present.any():
                return "none of its joints is annotated"
            if protocols.PCKH in rule.metrics:
                _, usable = self._head_sizes([person])
                return None if usable[0] else "its head size is unknown"
            return None
        truth = person.fit if rule.truth == "mesh" else joint_truth(person)
        if truth is None:
            raise InputError(
                "evaluate needs 3D labels",
                where=f"person '{person.person_id}'",
                expected="a body fit" if rule.truth == "mesh" else "3D joints",
                fix="use a labelled data set, e.g. RenderedClips",
            )
        if rule.truth == "mesh":
            return None
        _, present = skeletons.convert(truth.joints_cam, truth.skeleton, rule.space, truth.valid)
        if not present[self.root].all():
            return "its root joint is not labelled"
        return None if present[self.select].any() else "none of its joints is labelled"

    def score(self, persons: Sequence[Person]) -> dict[str, Any]:
        """Values of one batch."""
        prediction = self.estimator.predict(persons)
        if self.rule.two_d:
            return {**self._score_2d(persons, prediction), **_names(persons)}
        space, meshes, pelvis = self._predicted(prediction)
        truth, valid, true_meshes, true_pelvis = self._truth(persons)
        roots = None
        if self.root:
            roots = [points[:, self.root].mean(1, keepdims=True) for points in (space, truth)]
            space, truth = space - roots[0], truth - roots[1]
        pred, true, used = space[:, self.select], truth[:, self.select], valid[:, self.select]
        values = {}
        for name in self.rule.metrics:
            if name == protocols.PVE:
                values[name] = self._pve((meshes, true_meshes), roots, (pelvis, true_pelvis))
            else:
                values[name] = np.asarray(_METRICS[name](pred, true, used, reduce="none"))
        errors = 1000 * np.linalg.norm(pred - true, axis=-1)
        return {"values": values, "errors": np.where(used, errors, 0), "used": used, **_names(persons)}

    def _predicted(self, prediction: PoseBatch) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Joints of the protocol's space (B, J, 3), and mesh and SMPL pelvis where the protocol looks at a mesh."""
        meshes, joints45, pelvis = None, None, None
        if self.rule.predicted == "mesh" or protocols.PVE in self.rule.metrics:
            meshes, joints45, pelvis = self._mesh(prediction)
        if self.rule.predicted == "mesh":
            return self._regress(meshes, joints45), meshes, pelvis
        joints = np.asarray(prediction.joints_cam, np.float64)
        return skeletons.convert(joints, prediction.skeleton, self.rule.space)[0], meshes, pelvis

    def _mesh(self, prediction: PoseBatch) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """The predicted mesh, else the neutral body posed as predicted; its 45 joints if known, and its pelvis."""
        if prediction.vertices_cam is not None:
            joints = prediction.joints_cam if prediction.skeleton == "smpl45" else None
            smpl, _ = skeletons.convert(prediction.joints_cam, prediction.skeleton, "smpl24")
            return np.asarray(prediction.vertices_cam, np.float64), joints, smpl[:, 0].astype(np.float64)
        if self.bodies is None or prediction.pose_rotmat is None or prediction.betas is None:
            raise InputError(
                f"protocol '{self.rule.name}' needs the estimator's mesh",
                where=f"estimator '{self.estimator.spec.name}'",
                fix="let predict return vertices_cam, pass bodies=..., or take a protocol on joints",
            )
        meshes, joints = self.bodies.neutral(prediction.pose_rotmat, prediction.betas, prediction.transl_cam)
        return meshes.astype(np.float64), joints, joints[:, 0].astype(np.float64)

    def _truth(self, persons: Sequence[Person]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Joints of the protocol's space, which of them are known, the mesh and its SMPL pelvis."""
        if self.rule.truth == "mesh":
            meshes, joints45 = self.bodies.pose([person.fit for person in persons])  # type: ignore[union-attr]
            if self.regressor is None or self.rule.regressor is None:
                points = skeletons.convert(joints45.astype(np.float64), "smpl45", self.rule.space)[0]
            else:
                points = self._regress(meshes.astype(np.float64), joints45)
            return points, np.ones(points.shape[:2], bool), meshes, joints45[:, 0].astype(np.float64)
        truths = [joint_truth(person) for person in persons]
        pairs = [
            skeletons.convert(t.joints_cam.astype(np.float64), t.skeleton, self.rule.space, t.valid) for t in truths
        ]
        points, present = (np.stack(part) for part in zip(*pairs))
        return points, present, None, None

    def _regress(self, meshes: np.ndarray, joints45: np.ndarray | None) -> np.ndarray:
        points = self.regressor(meshes, joints45)  # type: ignore[misc]
        return skeletons.convert(points, self.regressor.skeleton, self.rule.space)[0]  # type: ignore[union-attr]

    def _pve(self, meshes, roots, pelves) -> np.ndarray:
        """Pairs of prediction and truth, each aligned at the point that the protocol names."""
        at_space = self.rule.mesh_root == "space" and roots is not None
        return metrics.pve(*meshes, *([root[:, 0] for root in roots] if at_space else pelves), reduce="none")

    def _head_sizes(self, persons: Sequence[Person]) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (B,), and whether they are known."""
        skeleton = self.rule.head or self.rule.joints
        return metrics.head_size(*self._keypoints(persons, skeleton), skeleton)  # type: ignore[return-value]

    def _keypoints(self, persons: Sequence[Person], skeleton: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        target = skeleton or self.rule.joints
        pairs = [skeletons.convert(p.keypoints_px, p.skeleton, target, p.visible) for p in persons]
        points, seen = (np.stack(part) for part in zip(*pairs))
        return points.astype(np.float64), seen

    def _score_2d(self, persons: Sequence[Person], prediction: PoseBatch) -> dict[str, Any]:
        keypoints = np.asarray(prediction.keypoints_px, np.float64)
        pred, has = skeletons.convert(keypoints, prediction.skeleton, self.rule.joints)
        true, used = self._keypoints(persons)
        used &= has
        boxes = np.stack([person.box_xyxy for person in persons]).astype(np.float64)
        longer = (boxes[:, 2:] - boxes[:, :2]).max(1)
        values = {}
        for name in self.rule.metrics:
            if name == protocols.PCKH:
                sizes, _ = self._head_sizes(persons)
                values[name] = metrics.pckh(pred, true, used, skeleton=self.rule.joints, head_size=sizes, reduce="none")
            else:
                threshold = 0.05 if name == protocols.PCK005 else 0.1
                values[name] = metrics.pck2d(pred, true, longer, used, threshold=threshold, reduce="none")
        return {"values": values, "errors": np.where(used, np.linalg.norm(pred - true, axis=-1), 0), "used": used}


_METRICS: dict[str, Callable[..., Any]] = {
    protocols.MPJPE: metrics.mpjpe,
    protocols.PA_MPJPE: metrics.pa_mpjpe,
    protocols.N_MPJPE: metrics.n_mpjpe,
    protocols.PCK150: metrics.pck3d,
    protocols.AUC: metrics.auc3d,
}


def _names(persons: Sequence[Person]) -> dict[str, list[str]]:
    return {
        "ids": [person.person_id for person in persons],
        "groups": [str(p.sequence or p.track_id or p.image_id or p.person_id) for p in persons],
        "actions": [person.action or "" for person in persons],
    }


def _joined(parts: list[dict[str, Any]], rule: Protocol, scorer: _Scorer, skipped, estimator) -> Evaluation:
    def flat(key: str) -> tuple[str, ...]:
        return tuple(name for part in parts for name in part[key])

    settings = {
        **rule.written_out(),
        "estimator": estimator.spec.name,
        "estimator_skeleton": estimator.spec.skeleton,
        "approximate_joints": [] if rule.two_d else scorer.approximate(),
        "joint_regressor": None if scorer.regressor is None else scorer.regressor.source,
        "joint_regressor_order": None if scorer.regressor is None else scorer.regressor.skeleton,
        "ground_truth_body": None if rule.truth != "mesh" else scorer.bodies.folder,
    }
    return Evaluation(
        flat("ids"),
        {name: np.concatenate([part["values"][name] for part in parts]) for name in rule.metrics},
        flat("groups"),
        flat("actions"),
        np.concatenate([part["errors"] for part in parts]).astype(np.float32),
        np.concatenate([part["used"] for part in parts]),
        skeletons.get(rule.joints).joints,
        "px" if rule.two_d else "mm",
        settings,
        tuple(skipped),
    )
