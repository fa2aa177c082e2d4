"""Scoring estimators by named protocols. Names load on first use."""

from __future__ import annotations

from posesyn.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "PROTOCOLS": "protocols",
        "evaluate": "scoring",
    },
)
