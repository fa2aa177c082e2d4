"""What keeps a fine-tuned estimator from forgetting: the start as a teacher on real pictures, and a way back to it.

A network that is tuned with 2D truth alone keeps the picture right and loses the depth. PoseSyn does not say how it
avoids that (arXiv 2503.13025); everything here and its constants are our own choice.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posesyn.errors import InputError
from posesyn.interfaces import TrainableEstimator
from posesyn.storage.seeds import rng_of

# What a teacher's answer puts in the place of labels, where it gives it.
_ANSWERS = ("pose_rotmat", "betas", "joints", "transl_cam", "intrinsics")


class Teacher:
    """The frozen start: its predictions become the 3D labels of pictures that have none, where they can be trusted.

    A prediction is trusted with probability ``share * exp(-e / reach)``, where e is the mean distance between its
    projection and the visible 2D truth as a fraction of the crop's width: it teaches where it was right. The draw
    depends on the seed, the person and the batch only, so that a resumed training is the same. Losses need nothing new:
    a trusted person has labels (``has_labels``), another one has none. The 2D truth stays the annotators'.

    Args:
        estimator: Copied; it has ``pseudo_labels(batch)``, which the image networks of posesyn have.
        share, reach: See above.
        seed: Decides the draws.

    Raises:
        InputError: The estimator cannot teach.
    """

    def __init__(self, estimator: TrainableEstimator, share: float = 1.0, reach: float = 0.05, seed: int = 0) -> None:
        if not (isinstance(estimator, nn.Module) and hasattr(estimator, "pseudo_labels")):
            raise InputError("the estimator cannot teach itself", where=f"estimator '{estimator.spec.name}'",
                             expected="a torch module with pseudo_labels(batch)",
                             fix="set retain to 0, or give it that method")  # fmt: skip
        self.estimator: Any = copy.deepcopy(estimator).eval().requires_grad_(False)
        self.share, self.reach, self.seed = share, reach, seed

    def to(self, device: torch.device) -> Teacher:
        """Moves it."""
        self.estimator.to(device)
        return self

    @torch.no_grad()
    def complete(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with labels for the trusted persons who had none; see :mod:`posesyn.data.batches`."""
        unlabelled = ~batch["has_labels"]
        if not bool(unlabelled.any()):
            return dict(batch)
        found = self.estimator.pseudo_labels(batch)
        seen = batch["visible"] & found["known"] if "known" in found else batch["visible"]
        trusted = unlabelled & (self._draws(batch) < self._trust(found["joints_norm"], seen, batch))
        completed = {**batch, "has_labels": batch["has_labels"] | trusted}
        for name in _ANSWERS:
            if name in found:
                completed[name] = _where(trusted, found[name].to(batch[name]), batch[name])
        points = _where(batch["visible"], batch["keypoints_norm"], found["joints_norm"].to(batch["keypoints_norm"]))
        completed["joints_norm"] = _where(trusted, points, batch["joints_norm"])
        return completed

    def _trust(self, points: Tensor, seen: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """(B,) probabilities; persons without 2D truth are not trusted."""
        # The crop is 2 wide in these coordinates.
        apart = (points - batch["keypoints_norm"]).norm(dim=-1) / 2
        error = torch.where(seen, apart, torch.zeros_like(apart)).sum(1) / seen.sum(1).clamp_min(1)
        return torch.where(
            seen.any(1) & torch.isfinite(error), self.share * torch.exp(-error / self.reach), torch.zeros_like(error)
        )

    def _draws(self, batch: Mapping[str, Any]) -> Tensor:
        number = batch.get("batch_index", 0)
        names = batch["person_ids"]
        draws = [rng_of(self.seed, f"trust/{number}/{row}/{name}").random() for row, name in enumerate(names)]
        return torch.from_numpy(np.array(draws, np.float32)).to(batch["has_labels"].device)


def _where(mask: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(mask.reshape(*mask.shape, *[1] * (second.ndim - mask.ndim)), first, second)


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line from ``start`` (share 0) to ``end`` (share 1): WiSE-FT (Wortsman et al., CVPR 2022).

    Whole numbers, such as the counters of normalisation layers, are those of ``end``.

    Example:
        >>> between({"w": torch.zeros(1)}, {"w": torch.ones(1)}, 0.25)["w"].item()
        0.25
    """
    return {
        name: torch.lerp(start[name].to(value), value, share) if value.is_floating_point() else value
        for name, value in end.items()
    }
