"""Lightning trainings that Ctrl-C and SIGTERM end as they end anything else."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytorch_lightning as pl


def fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule | None = None,
    checkpoint: Path | None = None,
) -> None:
    """``Trainer.fit`` that lets Ctrl-C through: Lightning ends the process instead and ignores further signals.

    Args:
        trainer, module: As in ``Trainer.fit``.
        data: None where the module has its own data loaders.
        checkpoint: To go on from; no code of the file runs.

    Raises:
        KeyboardInterrupt: The training was interrupted.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
    if trainer.interrupted:
        raise KeyboardInterrupt
