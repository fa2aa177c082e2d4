"""Named statistics that bring motion features to unit size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from posesyn.errors import CheckpointError, InputError

FEATURE_DIM = 263
# Dimensions that share one std: HumanML3D motion_representation.py (root yaw, velocity, height, positions, rotations,
# velocities, contacts).
STD_GROUPS = (slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 67), slice(67, 193), slice(193, 259), slice(259, 263))


@dataclass(frozen=True, eq=False)
class Normalizer:
    """(features - mean) / std and back.

    Files of statistics with the same name differ between projects (HumanML3D and MDM by 25 times on the root), so a
    normalizer carries a name and is stored with the model that was trained with it.

    Attributes:
        name: Where the numbers come from, e.g. ``"posesyn-cmu-train"``.
        mean: (263,) float32.
        std: (263,) float32, all positive.
    """

    name: str
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        for field, kind, lowest in (("mean", "finite", -np.inf), ("std", "finite positive", 0.0)):
            value = np.asarray(getattr(self, field), np.float32)
            if value.shape != (FEATURE_DIM,) or not np.isfinite(value).all() or (value <= lowest).any():
                what = f"Normalizer.{field} must be {FEATURE_DIM} {kind} numbers"
                raise InputError(what, where=f"normalizer '{self.name}'", got=value.shape)
            object.__setattr__(self, field, value)

    @classmethod
    def from_features(cls, name: str, features: Sequence[np.ndarray]) -> Normalizer:
        """Statistics over all frames of (T, 263) arrays, the std averaged within each of seven groups.

        A group that never varies (nobody turns in the data) gets std 1, our own choice, so that it stays finite.

        Raises:
            InputError: No frame, wrong shape, or NaN.
        """
        where = f"normalizer '{name}'"
        for index, motion in enumerate(features):
            if np.ndim(motion) != 2 or np.shape(motion)[1] != FEATURE_DIM or not np.isfinite(motion).all():
                where, got = f"{where}, motion {index}", np.shape(motion)
                raise InputError("statistics need finite features", where=where, expected="(T, 263)", got=got)
        if not sum(map(len, features)):
            raise InputError("statistics need at least one frame", where=where)
        frames = np.concatenate(features).astype(np.float64)
        std = frames.std(axis=0)
        for group in STD_GROUPS:
            std[group] = std[group].mean()
        return cls(name, frames.mean(axis=0), np.where(std > 1e-8, std, 1.0))

    def fingerprint(self) -> str:
        """Ten hexadecimal digits that depend on the numbers alone, not on the name."""
        return hashlib.sha256(self.mean.tobytes() + self.std.tobytes()).hexdigest()[:10]

    def require_same(self, other: Normalizer, where: object = "Normalizer") -> None:
        """:class:`CheckpointError` unless ``other`` holds the same numbers (to 1e-5 of a std), whatever its name."""
        shift = np.abs(self.mean - other.mean) / self.std
        ratio = other.std / self.std
        if shift.max() > 1e-5 or np.abs(ratio - 1).max() > 1e-5:
            raise CheckpointError(
                "these are statistics of another normaliser",
                where=where,
                expected=f"'{self.name}' ({self.fingerprint()})",
                got=f"'{other.name}' ({other.fingerprint()}): means differ by up to {shift.max():.3g} std, "
                f"std by factors of {ratio.min():.3g} to {ratio.max():.3g}",
                fix="normalise with the statistics that the model was trained with; they travel inside its file",
            )

    def normalize(self, features):
        """(..., 263) metres and radians → (..., 263) of unit size; NumPy or torch."""
        mean, std = self._statistics(features)
        return (features - mean) / std

    def denormalize(self, features):
        """The inverse of :meth:`normalize`."""
        mean, std = self._statistics(features)
        return features * std + mean

    def _statistics(self, features):
        if features.shape[-1] != FEATURE_DIM:
            where, got = f"normalizer '{self.name}'", features.shape[-1]
            raise InputError("features have the wrong size", where=where, expected=FEATURE_DIM, got=got)
        if isinstance(features, torch.Tensor):
            return (torch.as_tensor(v, dtype=features.dtype, device=features.device) for v in (self.mean, self.std))
        return self.mean, self.std
