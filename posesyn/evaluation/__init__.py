"""Scoring estimators by named protocols. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posesyn.lazy import lazy_names

if TYPE_CHECKING:
    from posesyn.evaluation.protocols import PROTOCOLS as PROTOCOLS
    from posesyn.evaluation.scoring import evaluate as evaluate
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
