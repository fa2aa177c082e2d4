"""The body: one module for the free body that is shipped and for licensed SMPL files, both driven by ``smplx.SMPL``."""

from __future__ import annotations

from posesyn.body.files import BodyArrays
from posesyn.body.model import Body, BodyOutput, load_body

__all__ = ["Body", "BodyArrays", "BodyOutput", "load_body"]
