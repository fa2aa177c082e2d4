"""Fits poses to a person's 2D truth: which examples look like it, and how they are bent until they match.

The fitting and its constants are our own choice.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from posesyn import skeletons
from posesyn.body.pose_library import POINTS, ROWS, PoseLibrary, shipped_library
from posesyn.body.pose_refinement import Evidence, Fitted, Refinement
from posesyn.errors import InputError
from posesyn.geometry.devices import exact_device, resolve_device
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.metrics.pose2d_error import person_size
from posesyn.metrics.pose3d import pa_mpjpe
from posesyn.settings.synthesis import FittingSettings
from posesyn.types import ScoredPerson

MIN_JOINTS = 6  # keypoints at hips, shoulders and limbs; fewer say too little about 66 coordinates
# Keypoints at which views are compared, and whose number MIN_JOINTS counts.
_LIMBS = tuple(
    POINTS.index(f"{side}_{part}")
    for side in ("left", "right")
    for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
)
_COMPARED = (*_LIMBS, *range(POINTS.index("nose"), len(POINTS)), POINTS.index("neck"), POINTS.index("head"))
_FLIP_Y = np.diag([1.0, -1.0, -1.0])  # level camera (y down) from world (y up)


def limb_joints(skeleton: str) -> int:
    """How many of the 12 joints at hips, shoulders and limbs a skeleton has, stand-ins included.

    >>> limb_joints("coco17")
    12
    """
    found = {int(row) for row in skeletons.mapping("smpl45", skeleton)}
    return sum(ROWS[point] in found for point in _LIMBS)


class PoseFitter:
    """Fits poses to the keypoints of persons, one person at a time.

    Args:
        library: Examples and spread; None takes the shipped ones.
        settings: See :class:`FittingSettings`.
        device: Where it is computed, in float64 (on the CPU for Apple's GPUs, which have none).
    """

    def __init__(
        self,
        library: PoseLibrary | None = None,
        settings: FittingSettings | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device, self.settings = exact_device(resolve_device(device)), settings or FittingSettings()
        self.library = (library or shipped_library()).to(self.device)
        self.views = _views(self.settings).to(self.device)
        seen = torch.einsum("vij,npj->ivnp", self.views, self.library.points[:, list(_COMPARED)])
        self._table = seen.flatten(1, 2).contiguous()  # (3, views * examples, points)

    def evidence(self, scored: ScoredPerson) -> Evidence | None:
        """What can be used of a person, or None where fewer than :data:`MIN_JOINTS` limb joints are visible.

        Raises:
            InputError: The prediction has NaN or infinite values.
        """
        person, settings = scored.person, self.settings
        keypoints, noise = np.zeros((len(POINTS), 2)), np.full(len(POINTS), np.inf)
        rows = {source: point for point, source in enumerate(ROWS)}
        exact = skeletons.mapping("smpl45", person.skeleton, approximate=False)
        for joint, source in enumerate(skeletons.mapping("smpl45", person.skeleton)):
            point = rows.get(int(source))
            if point is None or not person.visible[joint]:
                continue
            name = skeletons.get(person.skeleton).joints[joint]
            poor = exact[joint] < 0 and not any(part in name for part in ("hip", "shoulder", "pelvis"))
            own = settings.stand_in_noise if poor else settings.keypoint_noise
            if own < noise[point]:
                keypoints[point], noise[point] = person.keypoints_px[joint], own
        known = np.isfinite(noise)
        size = person_size(person.body_box_xyxy, person.keypoints_px, person.visible)
        if known[list(_LIMBS)].sum() < MIN_JOINTS or not size > 0:
            return None
        centre = keypoints[known].mean(0)
        keypoints[known] = (keypoints[known] - centre) / size
        joints = np.asarray(scored.prediction.joints_cam[0], np.float64)
        points, present = skeletons.convert(joints, scored.prediction.skeleton, "smpl45")
        points, present = points[list(ROWS)], present[list(ROWS)]
        if not np.isfinite(points[present]).all():
            where = f"the prediction of '{person.person_id}'"
            raise InputError("the predicted joints have NaN or infinite values", where=where)
        root = points[0] if present[0] else points[[1, 2]].mean(0)
        frame = np.array([*centre, size], np.float64)
        found = (keypoints, noise, np.where(present[:, None], points - root, 0.0), present, frame)
        return Evidence(*(torch.from_numpy(array).to(self.device) for array in found))

    @torch.no_grad()
    def fit(self, scored: ScoredPerson) -> Fitted | None:
        """Hypotheses for one person, best first; None where too few limb joints are visible (:data:`MIN_JOINTS`).

        Raises:
            InputError: As :meth:`evidence`.
        """
        evidence = self.evidence(scored)
        if evidence is None:
            return None
        examples, views = self.search(evidence)
        return Refinement(self.library, self.settings, evidence, examples, self.views[views]).run()

    def search(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Examples (S,) and views (S,) that look like the keypoints, best first, no two alike."""
        settings, rows = self.settings, list(_COMPARED)
        weight = (1 / evidence.noise[rows].square()).float()
        weight = weight / weight.sum()
        centred = (evidence.keypoints[rows] - (weight[:, None] * evidence.keypoints[rows]).sum(0)).float()
        wanted = (weight * centred.square().sum(1)).sum()
        predicted = evidence.predicted[rows].float()
        predicted = predicted / predicted.sum()
        goal = evidence.prediction[rows].float() * predicted[:, None]
        mean, along, near = [], 0.0, 0.0
        for axis in range(2):
            columns = torch.stack([weight, weight * centred[:, axis], goal[:, axis]], 1)
            products = self._table[axis] @ columns
            mean.append(products[:, 0])
            along, near = along + products[:, 1], near + products[:, 2]
        near = near + self._table[2] @ goal[:, 2]
        level, whole = self._squares
        flat = level @ weight - mean[0].square() - mean[1].square()
        along = along.clamp_min(1e-9)
        scale = along / flat.clamp_min(1e-9)
        residual = wanted - along * scale
        best = residual.topk(64, largest=False).indices
        residual = residual / scale[best].median().square()
        apart = whole @ predicted - 2 * near
        score = residual + settings.prediction_share * apart
        return self._distinct(score.topk(400, largest=False).indices)

    @cached_property
    def _squares(self) -> tuple[Tensor, Tensor]:
        level = self._table[:2].square().sum(0)
        return level, level + self._table[2].square()

    def _distinct(self, order: Tensor) -> tuple[Tensor, Tensor]:
        posed = self._table[:, order].permute(1, 2, 0)
        distance = (posed[:, None] - posed[None]).square().sum(-1).mean(-1).sqrt()
        free, kept = torch.ones(len(order), dtype=torch.bool, device=order.device), []
        while len(kept) < self.settings.starts and bool(free.any()):
            row = int(free.float().argmax())
            kept.append(row)
            free &= distance[row] > self.settings.distinct
        chosen = order[kept]
        examples = len(self.library.points)
        return chosen % examples, chosen // examples


def _views(settings: FittingSettings) -> Tensor:
    """(V, 3, 3) float32: turned about y, then seen by a camera at some height."""
    yaws = torch.arange(settings.yaw_steps, dtype=torch.float64) * (2 * torch.pi / settings.yaw_steps)
    turn = rotvec_to_matrix(yaws[:, None] * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    heights = torch.tensor(settings.elevations, dtype=torch.float64)
    # A camera above the horizon sees the world's up lean away from it: a turn about the camera's x.
    tilt = rotvec_to_matrix(heights[:, None] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    level = torch.from_numpy(_FLIP_Y)
    return (tilt[:, None] @ level @ turn[None]).flatten(0, 1).float()


def distance_mm(scored: ScoredPerson, fitted: Fitted, temperature: float) -> float:
    """Expected PA-MPJPE between the prediction and the poses that explain the 2D truth, in mm.

    The mean over the hypotheses, each in proportion to its posterior. It tells which predictions are wrong in depth,
    too, where the 2D error looks at the picture only. Our own measure.
    """
    joints = np.asarray(scored.prediction.joints_cam[0], np.float64)
    points, present = skeletons.convert(joints, scored.prediction.skeleton, "humanml3d22")
    poses = fitted.points[:, : len(present)][:, present]
    apart = pa_mpjpe(np.repeat(points[None, present], len(poses), 0), poses, reduce="none")
    weight = np.exp(-0.5 * (fitted.cost - fitted.cost.min()) / temperature)
    return float((weight * apart).sum() / weight.sum())


def open_distance(fitted: Fitted, temperature: float) -> float:
    """Expected distance in metres between the best hypothesis and the poses that explain the 2D truth as well.

    The mean over the hypotheses, each in proportion to its posterior, of the mean distance of the 22 joints in the
    camera's axes, pelvis at the origin: how far the picture leaves the pose open. Our own measure.
    """
    posed = np.einsum("hij,hpj->hpi", fitted.views, fitted.points[:, :22] - fitted.points[:, :1])
    apart = np.linalg.norm(posed - posed[:1], axis=-1).mean(-1)
    weight = np.exp(-0.5 * (fitted.cost - fitted.cost.min()) / temperature)
    return float((weight * apart).sum() / weight.sum())
