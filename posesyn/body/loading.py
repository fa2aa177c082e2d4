"""``load_body``: the free body by name, a licensed SMPL body by path."""

from __future__ import annotations

from pathlib import Path

import torch

from posesyn.body.free_body import ASSETS, SIZES, read_free_body
from posesyn.body.model import Body
from posesyn.body.smpl_file import find_smpl_file, read_smpl_file
from posesyn.errors import InputError


def load_body(
    path_or_name: str | Path = "anny",
    size: str = "full",
    gender: str = "neutral",
    dtype: torch.dtype = torch.float32,
) -> Body:
    """Loads a body.

    Args:
        path_or_name: ``anny``, the free body that posesyn ships; ``smpl``, a licensed SMPL body at the place named by
            the environment variable ``POSESYN_SMPL``; or the path of a SMPL ``.pkl`` or ``.npz`` file or of a folder
            of them.
        size: ``full`` (13,718 vertices) or ``small`` (1,200 vertices, for crops of about 128 pixels; same joints, same
            betas). SMPL has its 6,890 vertices only.
        gender: ``neutral``, ``male`` or ``female``: which file of a folder. The free body holds both sexes in its
            betas.
        dtype: Floating type of the module.

    Raises:
        InputError: Unknown size or gender.
        FileError: The file is missing, damaged or no SMPL model; for a missing one the message says where to get it.
        UnsafeFileError: The file asks to run code. Nothing was run.
    """
    if size not in SIZES:
        raise InputError("unknown body size", where="load_body", expected=" or ".join(SIZES), got=size)
    if path_or_name == "anny":
        if gender != "neutral":
            raise InputError(
                "the free body has no separate genders",
                where="load_body",
                expected="gender='neutral'",
                got=gender,
                fix="both sexes lie in the span of its betas",
            )
        return Body(read_free_body(ASSETS / f"body_{size}.npz"), "anny", dtype)
    if size != "full":
        raise InputError(
            "only the free body has a small version", where=f"load_body({str(path_or_name)!r})", got=size,
            fix='leave size at "full"',
        )  # fmt: skip
    path = find_smpl_file(None if path_or_name == "smpl" else path_or_name, gender)
    return Body(read_smpl_file(path), str(path), dtype)
