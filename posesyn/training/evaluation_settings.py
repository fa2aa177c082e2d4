"""What an evaluation can be told; loads nothing heavy until it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from posesyn.errors import InputError


@dataclass(frozen=True)
class EvaluationSettings:
    """How an estimator is scored.

    Args:
        protocol: A name of ``posesyn.training.protocols.PROTOCOLS`` (``smpl24``, ``3dpw-spin14``, ``3dhp-official17``,
            ``lspet-pckh``, ``poseaug16`` for lifters ...).
        regressor: ``J_regressor_h36m*.npy`` or ``J_regressor_extra.npy``, for protocols on meshes.
        bodies: Folder of the licensed SMPL files, for protocols whose truth is a mesh.
        batch_size: Persons per forward pass.
        resamples: Draws of the bootstrap over sequences; our own choice.
        level: Share of the draws inside the intervals.
        seed: Decides the draws.
    """

    protocol: str = "smpl24"
    regressor: Path | None = None
    bodies: Path | None = None
    batch_size: int = 64
    resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.resamples < 1 or not 0 < self.level < 1:
            raise InputError("batch_size and resamples must be at least 1, and level in (0, 1)", where="settings")
        if self.regressor is not None and self.bodies is None:
            raise InputError("a joint regressor needs the SMPL body it was made for", fix="give --settings.bodies")
