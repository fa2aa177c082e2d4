"""The pose, view and camera that explain one person's keypoints best, from several starts at once.

Maximum a posteriori by damped Gauss-Newton: reprojection in full perspective (Cauchy), the predicted joints
(Geman-McClure), bone lengths, an upright camera at a usual distance, and the pose library's spread around an example.
At the optimum the curvature says what the picture leaves open, mostly depth. The choice of terms and every constant are
our own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from posesyn.body.pose_library import PARENTS, POINTS, PoseLibrary
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.settings.synthesis import FittingSettings

_CHILDREN = list(range(1, len(POINTS)))
_PARENTS = [PARENTS[child] for child in _CHILDREN]
_FARTHEST = 100.0  # metres at which a camera without perspective is said to stand


class Fitted(NamedTuple):
    """H hypotheses of one person, best first.

    points: (H, 27, 3) metres, order ``POINTS``, pelvis at the origin, y up, roughly facing +z.
    views: (H, 3, 3) from there to the camera's axes.
    cost: (H,) of the fit, -2 log posterior up to a constant.
    spread: (H, D, 27, 3): directions in which the picture leaves the pose open; standard normal coefficients.
    view_spread: (H, D, 3): rotation vectors, in the camera's axes, that go with them.
    reprojection: (H,) weighted mean distance of the keypoints in units of the person's size.
    cameras: (H, 4) focal length in pixels, pixel (x, y) of the pelvis, at which the camera looks, its depth in metres.

    A joint at ``view @ point`` = (x, y, z) is seen at pixel + focal * (x, y) / (depth + z).
    """

    points: np.ndarray
    views: np.ndarray
    cost: np.ndarray
    spread: np.ndarray
    view_spread: np.ndarray
    reprojection: np.ndarray
    cameras: np.ndarray

    def draw(self, rng: np.random.Generator, temperature: float, width: float) -> tuple[int, np.ndarray, np.ndarray]:
        """A hypothesis in proportion to its posterior, and a pose near it: its number, points (27, 3), view (3, 3).

        ``temperature`` is that of the choice; ``width`` of the deviation: 0 takes the hypothesis as it is, 1 the full
        spread.
        """
        weight = np.exp(-0.5 * (self.cost - self.cost.min()) / temperature)
        row = int(rng.choice(len(weight), p=weight / weight.sum()))
        step = width * rng.standard_normal(self.spread.shape[1])
        turn = rotvec_to_matrix(torch.from_numpy(step @ self.view_spread[row])).numpy()
        return row, self.points[row] + np.einsum("d,dpc->pc", step, self.spread[row]), turn @ self.views[row]


class Evidence(NamedTuple):
    """What is known of one person. Keypoints in units of its size about their mean; float64.

    keypoints (27, 2), noise (27,) infinite where there is none, prediction (27, 3) in the camera's axes with the pelvis
    at the origin, predicted (27,) bool; frame (3,): pixels of the mean (x, y) and of the size.
    """

    keypoints: Tensor
    noise: Tensor
    prediction: Tensor
    predicted: Tensor
    frame: Tensor


class State(NamedTuple):
    """coefficients (S, K), views (S, 3, 3), rest (S, 4): log scale, shift x and y, closeness."""

    coefficients: Tensor
    views: Tensor
    rest: Tensor


class Refinement:
    """All starts of one person at once.

    Args:
        library: Examples and spread.
        settings: Noise levels and steps.
        evidence: Of the person.
        examples: (S,) rows of the library to start from.
        views: (S, 3, 3) from their axes to the camera's.
    """

    def __init__(
        self, library: PoseLibrary, settings: FittingSettings, evidence: Evidence, examples: Tensor, views: Tensor
    ) -> None:
        self.settings, self.evidence = settings, evidence
        self.mean, self.spread = library.points[examples].double(), library.spread.double().permute(1, 2, 0)
        bones = library.points[:, _CHILDREN] - library.points[:, _PARENTS]
        self.lengths = bones.double().norm(dim=-1).mean(0)
        self.seen = torch.nonzero(torch.isfinite(evidence.noise))[:, 0]
        self.told = torch.nonzero(evidence.predicted)[:, 0]
        starts, self.width = len(examples), self.spread.shape[-1]
        self.like: dict[str, Any] = {"dtype": torch.float64, "device": evidence.keypoints.device}
        nothing = torch.zeros(starts, self.width, **self.like)
        self.start = State(nothing, views.double(), torch.zeros(starts, 4, **self.like))
        self.start.rest[:, 3] = self.settings.closeness
        self._place()

    def _place(self) -> None:
        """Scale and shift of the starts by least squares, weak perspective."""
        posed = (self.mean @ self.start.views.transpose(1, 2))[:, self.seen]
        points = posed[..., :2] / (1 + self.settings.closeness * posed[..., 2:]).clamp_min(0.3)
        weight = 1 / self.evidence.noise[self.seen].square()
        weight = (weight / weight.sum())[:, None]
        centre, goal = (points * weight).sum(1), (self.evidence.keypoints[self.seen] * weight).sum(0)
        centred, wanted = points - centre[:, None], self.evidence.keypoints[self.seen] - goal
        scale = (centred * wanted * weight).sum((1, 2)) / (centred.square() * weight).sum((1, 2)).clamp_min(1e-9)
        scale = scale.clamp_min(1e-2)
        self.start.rest[:, 0] = scale.log()
        self.start.rest[:, 1:3] = goal - scale[:, None] * centre

    def points(self, state: State) -> Tensor:
        """(S, 27, 3)."""
        return self.mean + torch.einsum("pck,sk->spc", self.spread, state.coefficients)

    def residuals(self, state: State, slopes: bool = True) -> tuple[Tensor, Tensor | None, Tensor]:
        """Whitened residuals (S, R), their derivatives (S, R, K + 7) or None, and cost (S,).

        Unknowns in order: coefficients, turn of the view in the camera's axes (3), log scale, shift, closeness.
        Robust residuals are weighted for the next step; the cost is the robust one.
        """
        settings, count = self.settings, len(state.rest)
        points = self.points(state)
        posed = points @ state.views.transpose(1, 2)
        seen, keypoints = posed[:, self.seen], self.evidence.keypoints[self.seen]
        scale, shift, close = state.rest[:, 0].exp()[:, None], state.rest[:, None, 1:3], state.rest[:, 3, None]
        shrink = 1 / (1 + close * seen[..., 2]).clamp_min(0.3)
        flat = (scale * shrink)[..., None] * seen[..., :2]
        noise = self.evidence.noise[self.seen][:, None]
        off = (keypoints - flat - shift) / noise
        # Cauchy: an annotation ten standard deviations off is a mistake.
        square = off.square().sum(-1) / 10.0
        soft = (1 / (1 + square)).sqrt()[..., None]
        cost = 10.0 * torch.log1p(square).sum(1)

        wrong = (self.evidence.prediction[self.told] - posed[:, self.told]) / settings.prediction_noise
        reach = (settings.prediction_reach / settings.prediction_noise) ** 2
        square = wrong.square().sum(-1) / reach
        trust = (1 / (1 + square))[..., None]
        cost = cost + reach * (square / (1 + square)).sum(1)

        bones = points[:, _CHILDREN] - points[:, _PARENTS]
        lengths = bones.norm(dim=-1).clamp_min(1e-6)
        stretch = (self.lengths - lengths) / settings.bone_noise
        up = state.views[:, :, 1]
        tilt = torch.stack(
            [
                -up[:, 0] / settings.roll,
                (-np.sin(settings.elevation) - up[:, 2]) / settings.elevation_noise,
                (settings.closeness - state.rest[:, 3]) / settings.closeness_noise,
            ],
            1,
        )
        cost = cost + stretch.square().sum(1) + tilt.square().sum(1) + state.coefficients.square().sum(1)
        values = torch.cat([(soft * off).flatten(1), (trust * wrong).flatten(1), stretch, tilt, -state.coefficients], 1)
        if not slopes:
            return values, None, cost

        width, spread = self.width, self.spread
        turning = -_cross_matrix(posed)  # (S, 27, 3, 3): d posed / d turn
        moving = torch.einsum("sij,pjk->spik", state.views, spread)  # (S, 27, 3, K)
        camera = torch.zeros(count, len(self.seen), 2, 3, **self.like)
        camera[..., 0, 0] = camera[..., 1, 1] = scale * shrink
        camera[..., 2] = -(scale * shrink.square() * close)[..., None] * seen[..., :2]
        shifting = torch.eye(2, **self.like).expand(count, len(self.seen), 2, 2)
        closing = (-shrink * seen[..., 2])[..., None, None] * flat[..., None]
        parts = [camera @ moving[:, self.seen], camera @ turning[:, self.seen], flat[..., None], shifting, closing]
        of_keypoints = torch.cat(parts, -1) * (soft / noise)[..., None]
        of_prediction = torch.zeros(count, len(self.told), 3, width + 7, **self.like)
        of_prediction[..., : width + 3] = torch.cat([moving[:, self.told], turning[:, self.told]], -1)
        of_prediction *= trust[..., None] / settings.prediction_noise
        of_bones = torch.zeros(count, len(_CHILDREN), width + 7, **self.like)
        difference = spread[_CHILDREN] - spread[_PARENTS]
        of_bones[..., :width] = torch.einsum("sbc,bck->sbk", bones / lengths[..., None], difference)
        of_bones /= settings.bone_noise
        of_tilt = torch.zeros(count, 3, width + 7, **self.like)
        leaning = -_cross_matrix(up)
        of_tilt[:, 0, width : width + 3] = leaning[:, 0] / settings.roll
        of_tilt[:, 1, width : width + 3] = leaning[:, 2] / settings.elevation_noise
        of_tilt[:, 2, -1] = 1 / settings.closeness_noise
        of_prior = torch.zeros(count, width, width + 7, **self.like)
        of_prior[..., :width] = torch.eye(width, **self.like)
        slopes_of = [of_keypoints.flatten(1, 2), of_prediction.flatten(1, 2), of_bones, of_tilt, of_prior]
        return values, torch.cat(slopes_of, 1), cost

    def moved(self, state: State, step: Tensor) -> State:
        """The state after a step (S, K + 7)."""
        width = self.width
        rest = state.rest + step[:, width + 3 :]
        rest = torch.cat([rest[:, :3], rest[:, 3:].clamp(0.0, 1.2)], 1)
        turn = rotvec_to_matrix(step[:, width : width + 3])
        return State(state.coefficients + step[:, :width], turn @ state.views, rest)

    def run(self) -> Fitted:
        """Refined, sorted by cost, no two alike."""
        state, damping = self.start, torch.full((len(self.mean),), 0.3, **self.like)
        values, slopes, cost = self.residuals(state)
        identity = torch.eye(self.width + 7, **self.like)
        for _ in range(self.settings.iterations):
            gram = slopes.transpose(1, 2) @ slopes
            moment = slopes.transpose(1, 2) @ values[..., None]
            factor = torch.linalg.cholesky(gram + damping[:, None, None] * identity)
            step = torch.cholesky_solve(moment, factor)[..., 0]
            tried = self.moved(state, step)
            new_values, new_slopes, new_cost = self.residuals(tried)
            better = new_cost < cost
            damping = torch.where(better, damping / 4, damping * 6).clamp(1e-6, 1e6)
            state = State(*(torch.where(_like(better, n), n, o) for n, o in zip(tried, state)))
            values = torch.where(_like(better, new_values), new_values, values)
            slopes = torch.where(_like(better, new_slopes), new_slopes, slopes)
            cost = torch.where(better, new_cost, cost)
        return self._fitted(state, slopes, cost)

    def _fitted(self, state: State, slopes: Tensor, cost: Tensor) -> Fitted:
        points = self.points(state)
        posed = points @ state.views.transpose(1, 2)
        distance = (posed[:, None] - posed[None]).square().sum(-1).mean(-1).sqrt()
        kept: list[int] = []
        for row in cost.argsort(stable=True).tolist():
            apart = all(float(distance[row, other]) > self.settings.distinct / 2 for other in kept)
            if len(kept) < self.settings.hypotheses and apart:
                kept.append(row)
        gram = slopes[kept].transpose(1, 2) @ slopes[kept] + 1e-6 * torch.eye(self.width + 7, **self.like)
        identity = torch.eye(self.width + 7, **self.like).expand(len(kept), -1, -1)
        # Columns of the inverse transposed Cholesky factor: independent directions of one standard deviation.
        open_ways = torch.linalg.solve_triangular(torch.linalg.cholesky(gram).transpose(1, 2), identity, upper=True)
        spread = torch.einsum("pck,hkd->hdpc", self.spread, open_ways[:, : self.width])
        turns = open_ways[:, self.width : self.width + 3].transpose(1, 2)
        state = State(*(value[kept] for value in state))
        seen = self._reprojection(state, posed[kept]), self._cameras(state)
        found = (points[kept], state.views, cost[kept], spread, turns, *seen)
        return Fitted(*(value.cpu().numpy() for value in found))

    def _cameras(self, state: State) -> Tensor:
        depth = 1 / state.rest[:, 3].clamp_min(1 / _FARTHEST)
        size, centre = self.evidence.frame[2], self.evidence.frame[:2]
        focal = state.rest[:, 0].exp() * size * depth
        return torch.cat([focal[:, None], state.rest[:, 1:3] * size + centre, depth[:, None]], 1)

    def _reprojection(self, state: State, posed: Tensor) -> Tensor:
        seen = posed[:, self.seen]
        shrink = 1 / (1 + state.rest[:, 3, None] * seen[..., 2]).clamp_min(0.3)
        flat = (state.rest[:, 0].exp()[:, None] * shrink)[..., None] * seen[..., :2] + state.rest[:, None, 1:3]
        weight = 1 / self.evidence.noise[self.seen].square()
        return ((flat - self.evidence.keypoints[self.seen]).norm(dim=-1) * weight / weight.sum()).sum(1)


def _like(flag: Tensor, value: Tensor) -> Tensor:
    return flag.reshape(-1, *([1] * (value.ndim - 1)))


def _cross_matrix(vector: Tensor) -> Tensor:
    """(..., 3) → (..., 3, 3) with ``_cross_matrix(v) @ w = v x w``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
