"""Files: bounded image reading, safe checkpoints, atomic writing, run ledger, clip shards. Names load on first use."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "ClipCodec": "clip_codec",
    "ClipStore": "clip_store",
    "ClipWriter": "shards",
    "ImageFile": "images",
    "RunLedger": "ledger",
    "atomic_file": "atomic",
    "decode_image": "images",
    "load_into": "checkpoints",
    "load_metadata": "checkpoints",
    "load_weights": "checkpoints",
    "read_npz": "arrays",
    "sample_id": "ledger",
    "sample_seed": "ledger",
    "save_weights": "checkpoints",
    "write_clips": "shards",
    "write_npz": "arrays",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'posesyn.storage' has no attribute {name!r}")
    return getattr(importlib.import_module(f"posesyn.storage.{_PUBLIC[name]}"), name)
