"""What an evaluation can be told; loads nothing heavy until it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posesyn.errors import InputError

if TYPE_CHECKING:
    from posesyn.training.body_truth import FittedBodies, JointRegressor


@dataclass(frozen=True)
class EvaluationSettings:
    """How an estimator is scored.

    Args:
        protocol: A name of ``posesyn.training.protocols.PROTOCOLS`` (``smpl24``, ``3dpw-spin14``, ``3dhp-official17``,
            ``lspet-pckh`` ...).
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

    def load_bodies(self) -> FittedBodies | None:
        """The bodies, loaded when first needed."""
        from posesyn.training.body_truth import FittedBodies

        return None if self.bodies is None else FittedBodies(self.bodies)

    def load_regressor(self, bodies: FittedBodies | None) -> JointRegressor | None:
        """The joint regressor; its order is seen on the neutral body.

        Raises:
            InputError: A regressor without bodies.
        """
        from posesyn.training.body_truth import load_regressor

        if self.regressor is None:
            return None
        if bodies is None:
            raise InputError("a joint regressor needs the SMPL body it was made for", fix="give --settings.bodies")
        return load_regressor(self.regressor, bodies.body("neutral").v_template.numpy())
