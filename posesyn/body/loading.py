"""``load_body``: the free body by name, a licensed SMPL body by path."""

from __future__ import annotations

from pathlib import Path

import torch

from posesyn.body.free_body import ASSETS, SIZES, read_free_body
from posesyn.body.model import Body
from posesyn.errors import InputError


def load_body(
    path_or_name: str | Path = "anny",
    size: str = "full",
    gender: str = "neutral",
    dtype: torch.dtype = torch.float32,
) -> Body:
    """Loads a body.

    Args:
        path_or_name: ``anny``, the free body that posesyn ships.
        size: ``full`` (13,718 vertices) or ``small`` (1,200 vertices, for crops of about 128 pixels).
        gender: Only for folders of SMPL files; the free body holds all genders in its betas.
        dtype: Floating type of the module.
    """
    if size not in SIZES:
        raise InputError("unknown body size", expected=" or ".join(SIZES), got=size)
    return Body(read_free_body(ASSETS / f"body_{size}.npz"), "anny", dtype)
