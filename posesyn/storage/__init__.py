"""Files: bounded image reading, safe checkpoints, atomic writing, run ledger, clip shards. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
