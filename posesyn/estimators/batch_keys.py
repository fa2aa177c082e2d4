"""Checks on training batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posesyn.errors import InputError


def require(batch: Mapping[str, Any], needed: tuple[str, ...]) -> None:
    """Raises InputError naming the keys that a batch lacks."""
    missing = [name for name in needed if name not in batch]
    if missing:
        raise InputError(
            "a training batch lacks what the losses need",
            expected=list(needed),
            got=f"no {', '.join(missing)}",
            fix="make batches with posesyn.training.batches.collate",
        )
