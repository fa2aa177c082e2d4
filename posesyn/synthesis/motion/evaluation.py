"""Figures of merit of generated motions: pure functions over embeddings and joints (NumPy).

Definitions follow text-to-motion (Guo et al. 2022) except where a docstring says otherwise.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from posesyn.errors import InputError
from posesyn.synthesis.motion.features import FPS

FEET = (7, 10, 8, 11)  # ankles and toes
_TOES = (10, 11)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of Gaussians fitted to two sets of embeddings (N, D) and (M, D).

    ``|mean1 - mean2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``. Biased upwards for few rows: compare sets of one size.

    Raises:
        InputError: Fewer than two rows, or other widths.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise InputError(
            "the Fréchet distance needs two sets of embeddings",
            where="frechet_distance",
            expected="(N >= 2, D) twice",
            got=(first.shape, second.shape),
        )
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The root of a product of covariances has the eigenvalues of a symmetric matrix: no complex leftovers.
    root = linalg.sqrtm(covariances[0])
    root = np.real(root)
    values = np.linalg.eigvalsh(root @ covariances[1] @ root)
    shift = np.square(first.mean(0) - second.mean(0)).sum()
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(np.clip(values, 0, None)).sum()
    return float(max(shift + trace, 0.0))


def retrieval_precision(
    motions: np.ndarray, texts: np.ndarray, labels: np.ndarray, pool: int = 32, repeats: int = 50, seed: int = 0
) -> np.ndarray:
    """R-precision: (3,) shares of motions among whose 1, 2, 3 nearest captions of a pool is a right one.

    Args:
        motions, texts: (N, D) embeddings of motions and of their captions.
        labels: (N,) captions with the same label count as the same (in small data sets many are alike; where all
            differ this is the published figure).
        pool: Captions to choose from, one's own included. Random pools, ``repeats`` times all motions.

    Raises:
        InputError: Fewer motions than the pool, or arrays of different length.
    """
    motions, texts, labels = np.asarray(motions), np.asarray(texts), np.asarray(labels)
    if not len(motions) == len(texts) == len(labels) or len(motions) < pool:
        raise InputError(
            "R-precision needs as many motions as the pool has captions",
            where="retrieval_precision",
            expected=f"at least {pool}, as many captions and labels",
            got=(len(motions), len(texts), len(labels)),
        )
    rng = np.random.default_rng(seed)
    distances = np.linalg.norm(motions[:, None] - texts[None], axis=-1)
    hits = np.zeros(3)
    for _ in range(repeats):
        for row in range(len(motions)):
            others = rng.permutation(np.delete(np.arange(len(motions)), row))[: pool - 1]
            chosen = np.concatenate([[row], others])
            order = chosen[np.argsort(distances[row, chosen], kind="stable")][:3]
            right = np.cumsum(labels[order] == labels[row]) > 0
            hits[: len(right)] += right
    return hits / (repeats * len(motions))


def matching_distance(motions: np.ndarray, texts: np.ndarray) -> float:
    """MM-distance: mean distance between the embeddings of motions and of their captions, (N, D) each."""
    return float(np.linalg.norm(np.asarray(motions) - np.asarray(texts), axis=-1).mean())


def diversity(motions: np.ndarray, pairs: int = 300, seed: int = 0) -> float:
    """Mean distance of ``pairs`` random pairs of different embeddings (N >= 2, D)."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(motions), size=pairs)
    second = (first + rng.integers(1, len(motions), size=pairs)) % len(motions)
    return float(np.linalg.norm(np.asarray(motions)[first] - np.asarray(motions)[second], axis=-1).mean())


def foot_skating(joints: np.ndarray, height: float = 0.05, slide: float = 0.025) -> float:
    """Share of foot contacts that slide: toes low in two frames in a row that move further than ``slide`` between them.

    The floor is the lowest joint of the motion; metres and horizontal metres per frame of 1/20 s, the thresholds of GMD
    (Karunratanakul et al. 2023). 0 where no toe touches the floor.

    Args:
        joints: (T, 22, 3) metres, y up.
    """
    joints = np.asarray(joints)
    toes = joints[:, _TOES] - [0.0, joints[..., 1].min(), 0.0]
    low = (toes[1:, :, 1] < height) & (toes[:-1, :, 1] < height)
    moved = np.linalg.norm(np.diff(toes, axis=0)[..., [0, 2]], axis=-1)
    return float((low & (moved > slide)).sum() / max(low.sum(), 1))


def mean_speed(joints: np.ndarray) -> float:
    """Mean joint speed of (T, 22, 3) at 20 fps, m/s."""
    return float(np.linalg.norm(np.diff(np.asarray(joints), axis=0), axis=-1).mean() * FPS)


def mean_jerk(joints: np.ndarray) -> float:
    """Mean size of the third difference of (T, 22, 3) at 20 fps, m/s^3: large for jitter."""
    return float(np.linalg.norm(np.diff(np.asarray(joints), 3, axis=0), axis=-1).mean() * FPS**3)
