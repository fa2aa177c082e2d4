"""A wrong 3D pose and a right 2D one → several right-looking 3D poses, by a mixture prior and damped least squares.

The search over examples times views finds poses that look like the keypoints and are not far from the prediction: among
them are those with a limb to the front or to the back, which look alike. Each is then refined
(:mod:`~posesyn.synthesis.motion.pose_refinement`). All of this, and every constant, is our own choice (posesyn.md
section 9).

Each person is lifted alone, so that a batch of one gives what a batch of many gives.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.synthesis.motion.pose_library import POINTS, ROWS, PoseLibrary, shipped_library
from posesyn.synthesis.motion.pose_refinement import Evidence, Lifted, LiftingSettings, Refinement
from posesyn.synthesis.pose_error import person_size
from posesyn.types import ScoredPerson

MIN_JOINTS = 6  # keypoints at hips, shoulders and limbs; fewer say too little about 66 coordinates
# Keypoints at which views are compared, and whose number MIN_JOINTS counts.
_LIMBS = tuple(
    POINTS.index(f"{side}_{part}")
    for side in ("left", "right")
    for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
)
_COMPARED = (*_LIMBS, *range(POINTS.index("nose"), len(POINTS)), POINTS.index("neck"), POINTS.index("head"))
_FLIP_Y = np.diag([1.0, -1.0, -1.0])


class PoseLifter:
    """Lifts persons one at a time.

    Args:
        library: Examples and spread; None takes the shipped ones.
        settings: See :class:`LiftingSettings`.
    """

    def __init__(self, library: PoseLibrary | None = None, settings: LiftingSettings | None = None) -> None:
        self.library, self.settings = library or shipped_library(), settings or LiftingSettings()
        self.views = _views(self.settings)
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
        size = person_size(person.box_xyxy, person.keypoints_px, person.visible)
        if known[list(_LIMBS)].sum() < MIN_JOINTS or not size > 0:
            return None
        keypoints[known] = (keypoints[known] - keypoints[known].mean(0)) / size
        prediction = scored.prediction
        points, present = skeletons.convert(
            np.asarray(prediction.joints_cam[0], np.float64), prediction.skeleton, "smpl45"
        )
        points, present = points[list(ROWS)], present[list(ROWS)]
        if not np.isfinite(points[present]).all():
            raise InputError(
                "the predicted joints have NaN or infinite values", where=f"the prediction of '{person.person_id}'"
            )
        root = points[0] if present[0] else points[[1, 2]].mean(0)
        return Evidence(
            torch.from_numpy(keypoints),
            torch.from_numpy(noise),
            torch.from_numpy(np.where(present[:, None], points - root, 0.0)),
            torch.from_numpy(present),
        )

    @torch.no_grad()
    def lift(self, scored: ScoredPerson) -> Lifted | None:
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
        square = self._squares()
        flat = square[0] @ weight - mean[0].square() - mean[1].square()
        along = along.clamp_min(1e-9)
        scale = along / flat.clamp_min(1e-9)
        residual = wanted - along * scale
        best = residual.topk(64, largest=False).indices
        residual = residual / scale[best].median().square()
        apart = square[1] @ predicted - 2 * near
        score = residual + settings.prediction_share * apart
        return self._distinct(score.topk(400, largest=False).indices)

    def _squares(self) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "_square_table"):
            level = self._table[:2].square().sum(0)
            self._square_table = level, level + self._table[2].square()
        return self._square_table

    def _distinct(self, order: Tensor) -> tuple[Tensor, Tensor]:
        posed = self._table[:, order].permute(1, 2, 0)
        distance = (posed[:, None] - posed[None]).square().sum(-1).mean(-1).sqrt()
        free, kept = torch.ones(len(order), dtype=torch.bool), []
        while len(kept) < self.settings.starts and bool(free.any()):
            row = int(free.float().argmax())
            kept.append(row)
            free &= distance[row] > self.settings.distinct
        chosen = order[kept]
        examples = len(self.library.points)
        return chosen % examples, chosen // examples


def _views(settings: LiftingSettings) -> Tensor:
    """(V, 3, 3) float32: turned about y, then seen by a camera at some height."""
    yaws = torch.arange(settings.yaw_steps, dtype=torch.float64) * (2 * torch.pi / settings.yaw_steps)
    turn = rotvec_to_matrix(yaws[:, None] * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    heights = torch.tensor(settings.elevations, dtype=torch.float64)
    # A camera above the horizon sees the world's up lean away from it: a turn about the camera's x.
    tilt = rotvec_to_matrix(heights[:, None] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    level = torch.from_numpy(_FLIP_Y)
    return (tilt[:, None] @ level @ turn[None]).flatten(0, 1).float()


def split_view(view: np.ndarray) -> tuple[float, np.ndarray, float]:
    """A view (3, 3) as the person's yaw about the world's y axis and what the camera does.

    Returns:
        yaw, the camera (3, 3) such that ``view = camera @ diag(1, -1, -1) @ turn(yaw)``, and the camera's elevation
        above the horizon; radians.
    """
    yaw = float(np.arctan2(view[0, 2], view[0, 0]))
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    return yaw, view @ turn.T @ _FLIP_Y, float(np.arcsin(np.clip(-view[2, 1], -1.0, 1.0)))
