"""What Lightning may print: its hints concern people who write Trainer code, not those who watch a progress bar."""

from __future__ import annotations

import logging
import warnings

_LOGGERS = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero")


def quiet_lightning() -> None:
    """Leaves the progress bars to speak, in this process."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "Found .* module.* in eval mode",
        "You have overridden `transfer_batch_to_device`",
        "The number of training batches",
        "The .*dataloader.* does not have many workers",
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")


def is_quiet() -> bool:
    """Whether :func:`quiet_lightning` holds here; processes that are started from this one do not inherit it."""
    return all(logging.getLogger(name).level >= logging.WARNING for name in _LOGGERS)
