"""Results as files for other programs, one file per format. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.export.predictions import save_predictions as save_predictions
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
