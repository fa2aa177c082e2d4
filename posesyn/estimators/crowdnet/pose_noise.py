"""2D poses as a detector gets them wrong: 3DCrowdNet's input in training (``common/utils/posefix.py``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posesyn import skeletons

_SKELETON = skeletons.get("coco17")
_MIRROR = np.array(_SKELETON.flip)
_HAS_MIRROR = np.arange(17) != _MIRROR
# COCO's constants (cocodataset/cocoapi).
_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
# Face, shoulders, elbows and wrists, hips, knees, ankles.
_FACE, _SHOULDERS, _ARMS, _HIPS, _KNEES, _ANKLES = (
    slice(0, 5), slice(5, 7), slice(7, 11), slice(11, 13), slice(13, 15), slice(15, 17),
)  # fmt: skip
KINDS = ("jitter", "miss", "inversion", "swap", "good")
_OVERLAP = 0.1
# Draws for one displacement, before the joint is left where it is; our own choice.
_TRIES = 30


@dataclass(frozen=True)
class PoseNoise:
    """Corrupts 2D poses of ``coco17``: each joint is jittered, missed, mirrored, swapped with a neighbour's, or good.

    Probabilities and radii are 3DCrowdNet's (after PoseFix). Unlike there, joints that a neighbour lacks are no
    candidates; there, they lie at (0, 0) and are. An error that has no place to go to (no mirror joint, no neighbour)
    becomes a good joint.

    Attributes:
        seed: Of the draws.
    """

    seed: int = 0

    def corrupt(
        self, keypoints: np.ndarray, visible: np.ndarray, rng: np.random.Generator,
        neighbours: np.ndarray | None = None, neighbours_visible: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """One pose.

        Args:
            keypoints: (17, 2) pixels.
            visible: (17,) bool; other joints stay as they are.
            rng: Source of the draws.
            neighbours, neighbours_visible: (M, 17, 2) pixels and (M, 17) bool of the other persons in the image; those
                whose box hardly touches are left out.

        Returns:
            Pose (17, 2) float32, and (17,) the index into :data:`KINDS` of what was done.
        """
        points, visible = np.asarray(keypoints, np.float64), np.asarray(visible, bool)
        done = np.full(17, KINDS.index("good"))
        if not visible.any():
            return points.astype(np.float32), done
        low, high = points[visible].min(0), points[visible].max(0)
        # Tight box of the pose in pixels; our own choice where the source says box.
        area = max(float(np.prod(high - low)), 1.0)
        others, others_visible = _overlapping(points, visible, neighbours, neighbours_visible)
        radius = {ks: _radius(ks, area) for ks in (0.1, 0.5, 0.85)}
        candidates, real, kind_of = _candidates(points, visible, others, others_visible)
        chances = _chances(int(visible.sum()), len(others), kind_of, real)
        drawn = (rng.random((17, 1)) > np.cumsum(chances, 1)).sum(1).clip(max=len(KINDS) - 1)
        order = rng.random(real.shape)
        rings = rng.random((17, _TRIES)), rng.random((17, _TRIES)) * 2 * np.pi
        result = points.copy()
        for index, kind in enumerate(KINDS):
            moved, found = _displace(kind, candidates, real, kind_of, order, rings, radius)
            use = visible & (drawn == index) & found
            result[use], done[use] = moved[use], index
        return result.astype(np.float32), done


def _radius(ks: float, area: float) -> np.ndarray:
    """(17,) pixels at which the keypoint similarity to a joint has fallen to ``ks``."""
    return np.sqrt(-2 * area * (2 * _SIGMAS) ** 2 * np.log(ks))


def _overlapping(
    points: np.ndarray, visible: np.ndarray, others: np.ndarray | None, others_visible: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Persons whose tight box has an IoU of 0.1 or more with the pose's."""
    if others is None or not len(others):
        return np.zeros((0, 17, 2)), np.zeros((0, 17), bool)
    others = np.asarray(others, np.float64)
    shown = np.ones(others.shape[:2], bool) if others_visible is None else np.asarray(others_visible, bool)
    far = np.where(shown[..., None], others, np.inf), np.where(shown[..., None], others, -np.inf)
    low, high = far[0].min(1), far[1].max(1)
    own_low, own_high = points[visible].min(0), points[visible].max(0)
    shared = np.clip(np.minimum(high, own_high) - np.maximum(low, own_low), 0, None).prod(-1)
    known = shown.any(1)
    size = np.where(known[:, None], high - low, 0).prod(-1)
    union = size + np.prod(own_high - own_low) - shared
    keep = known & (shared >= _OVERLAP * np.maximum(union, 1e-9))
    return others[keep], shown[keep]


_OWN, _MIRRORED, _FOREIGN = 0, 1, 2


def _candidates(
    points: np.ndarray, visible: np.ndarray, others: np.ndarray, others_visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per joint the points it could be taken for: itself, its mirror joint, the neighbours' joints and mirror joints.

    Returns (17, C, 2) points, (17, C) which of them exist, (C,) their kind.
    """
    foreign = np.concatenate((others, others[:, _MIRROR])).transpose(1, 0, 2)
    foreign_real = np.concatenate((others_visible, others_visible[:, _MIRROR] & _HAS_MIRROR)).T
    places = np.concatenate((points[:, None], points[_MIRROR][:, None], foreign), axis=1)
    own = np.stack((visible, visible[_MIRROR] & _HAS_MIRROR), axis=1)
    kinds = np.array([_OWN, _MIRRORED] + [_FOREIGN] * foreign.shape[1])
    return places, np.concatenate((own, foreign_real), axis=1), kinds


def _chances(valid: int, overlapping: int, kind_of: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(17, 5) probability of each of :data:`KINDS`."""
    crowded = (valid <= 10 and overlapping > 0) or (valid <= 15 and overlapping >= 3)
    chances = np.zeros((17, len(KINDS)))
    jitter, miss, inversion, swap = (chances[:, column] for column in range(4))
    jitter[:] = 0.15
    jitter[[0, 13, 14, 15, 16]] = 0.10
    jitter[_HIPS] = 0.20
    jitter += 0.05 if valid <= 10 else 0
    face, middle, rest = (0.15, 0.20, 0.25) if valid <= 5 else (0.10, 0.13, 0.15) if valid <= 10 else (0.02, 0.05, 0.10)
    miss[:] = rest
    miss[_FACE], miss[_SHOULDERS], miss[_ANKLES] = face, middle, middle
    inversion[_FACE], inversion[5:11], inversion[11:] = 0.01, 0.03, 0.06
    swap[_FACE], swap[5:11], swap[11:] = (0.02, 0.15, 0.10) if crowded else (0.01, 0.06, 0.03)
    inversion[~real[:, kind_of == _MIRRORED].any(1)] = 0
    swap[~real[:, kind_of == _FOREIGN].any(1)] = 0
    chances[:, -1] = 1 - chances[:, :-1].sum(1)
    return chances


def _displace(
    kind: str, places: np.ndarray, real: np.ndarray, kind_of: np.ndarray, order: np.ndarray,
    rings: tuple[np.ndarray, np.ndarray], radius: dict[float, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(17, 2) displaced points and (17,) whether one was found that no other candidate is closer to."""
    wanted = {"inversion": _MIRRORED, "swap": _FOREIGN}.get(kind, _OWN)
    allowed = real if kind == "miss" else real & (kind_of == wanted)
    center = np.where(allowed, order, -1).argmax(1)
    far, near, none = radius[0.5], radius[0.85], 0 * radius[0.5]
    rings_of = {"jitter": (near, far), "miss": (far, radius[0.1]), "good": (none, near)}
    inner, outer = rings_of.get(kind, (none, far))
    share, angle = rings
    distance = inner[:, None] + share * (outer - inner)[:, None]
    step = distance[..., None] * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    tried = places[np.arange(17), center][:, None] + step
    away = np.linalg.norm(tried[:, :, None] - places[:, None], axis=-1)
    away = np.where(real[:, None], away, np.inf)
    others = np.where(np.arange(places.shape[1]) == center[:, None, None], np.inf, away)
    if kind == "miss":
        good = away.min(-1) >= radius[0.5][:, None] * (1 - 1e-9)
    else:
        good = distance <= others.min(-1)
    first = good.argmax(1)
    return tried[np.arange(17), first], good.any(1) & allowed.any(1)
