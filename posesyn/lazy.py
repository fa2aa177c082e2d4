"""Names of a package that load on first use (PEP 562), so that importing posesyn loads neither torch nor pandas."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str], submodules: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Args:
        package: ``__name__`` of the package.
        modules: Public name → module that defines it, relative to the package (``"coco"``).
        submodules: Modules that are public names themselves.
    """
    names = sorted({*modules, *submodules})

    def load(name: str) -> Any:
        if name in modules:
            value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        elif name in submodules:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # The next access finds it without coming here.
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: names, names
