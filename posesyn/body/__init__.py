"""The body: one module for the free body that is shipped and for licensed SMPL files, both driven by ``smplx.SMPL``."""

from __future__ import annotations

from posesyn.body.arrays import BodyArrays
from posesyn.body.loading import load_body
from posesyn.body.model import Body, BodyOutput

__all__ = ["Body", "BodyArrays", "BodyOutput", "load_body"]
