"""Files: bounded image reading, safe checkpoints, atomic writing, run ledger, clip shards. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ClipCodec": "clip_codec",
        "ClipStore": "clip_store",
        "ClipWriter": "clip_writer",
        "ImageFile": "images",
        "RunLedger": "ledger",
        "atomic_file": "files",
        "decode_image": "images",
        "load_into": "checkpoints",
        "load_metadata": "checkpoints",
        "load_weights": "checkpoints",
        "read_npz": "files",
        "rng_of": "seeds",
        "save_weights": "checkpoints",
        "seed_of": "seeds",
        "write_clips": "clip_writer",
        "write_npz": "files",
    },
)
