"""Tells IPython how posesyn's values look in a notebook. Loads nothing: the pictures are drawn when a cell asks."""

from __future__ import annotations

import sys
from typing import Any

# Module and class; a subclass of one of them (a reader of a data format) is shown the same way.
_SHOWN = (
    ("posesyn.types.motion", "Motion"),
    ("posesyn.types.clip", "Clip"),
    ("posesyn.types.person", "Person"),
    ("posesyn.types.scores", "ScoredPerson"),
    ("posesyn.types.scores", "ErrorReport"),
    ("posesyn.data.persons.base", "AnnotatedPersons"),
    ("posesyn.data.persons.rendered", "RenderedClips"),
)


def register(formatter: Any = None) -> bool:
    """Makes notebooks show motions, clips, persons, reports and data sets as pictures.

    ``import posesyn`` calls it where IPython runs already, and so does ``import posesyn.report``.

    Args:
        formatter: IPython's formatter of ``text/html``; None takes that of the running shell.

    Returns:
        Whether there was one to tell.
    """
    if formatter is None:
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else getattr(ipython, "get_ipython", lambda: None)()
        formatter = None if shell is None else shell.display_formatter.formatters["text/html"]
    if formatter is None:
        return False
    for module, name in _SHOWN:
        formatter.for_type_by_name(module, name, _html)
    return True


def _html(value: Any) -> str:
    from posesyn.report.notebook import value_html

    return value_html(value)
