"""Files: bounded image reading, safe checkpoints, atomic writing, run ledger, clip shards. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.storage.checkpoints import load_into as load_into
    from posesyn.storage.checkpoints import load_metadata as load_metadata
    from posesyn.storage.checkpoints import load_weights as load_weights
    from posesyn.storage.checkpoints import save_weights as save_weights
    from posesyn.storage.clip_codec import ClipCodec as ClipCodec
    from posesyn.storage.clip_store import ClipStore as ClipStore
    from posesyn.storage.clip_writer import ClipWriter as ClipWriter
    from posesyn.storage.files import atomic_file as atomic_file
    from posesyn.storage.files import read_npz as read_npz
    from posesyn.storage.files import write_npz as write_npz
    from posesyn.storage.images import ImageFile as ImageFile
    from posesyn.storage.images import decode_image as decode_image
    from posesyn.storage.ledger import RunLedger as RunLedger
    from posesyn.storage.reports import load_report as load_report
    from posesyn.storage.reports import save_report as save_report
    from posesyn.storage.seeds import rng_of as rng_of
    from posesyn.storage.seeds import seed_of as seed_of

else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
