"""Names of a package that load on first use (PEP 562), so that importing posesyn loads neither torch nor pandas.

The package lists its public names once, as imports that only type checkers and editors run::

    if TYPE_CHECKING:
        from posesyn.data.persons.coco import CocoKeypoints as CocoKeypoints
    else:
        __getattr__, __dir__, __all__ = lazy_names(__name__)

:func:`lazy_names` reads that block from the package's source, so what runs is what the type checker saw; there is no
second list that could differ. Behind ``else`` a type checker does not see ``__getattr__``, which would make every
misspelt name ``Any``. (``lazy_loader.attach_stub`` of scientific-python/lazy-loader does the same with a stub.)
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from typing import Any


def type_checking_imports(source: str, package: str) -> dict[str, str]:
    """Public name → module that defines it, from the ``if TYPE_CHECKING:`` block of a package's source.

    A name that is imported from the package itself (``from posesyn import data as data``) is one of its submodules.
    Only absolute imports of the form ``from module import name as name`` count: the repeated name is how type checkers
    are told that a name is public (PEP 484).
    """
    found = {}
    for block in ast.parse(source).body:
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            for node in block.body:
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.update({a.name: node.module for a in node.names if a.asname == a.name})
    if not found:
        raise ImportError(f"{package} has no public names under 'if TYPE_CHECKING:'; its source is incomplete")
    return found


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Args:
        package: ``__name__`` of the package, whose source imports its public names under ``if TYPE_CHECKING:``.

    Raises:
        ImportError: The source is not there (an installation of byte code only).
    """
    here = sys.modules[package]
    read = getattr(getattr(here.__spec__, "loader", None), "get_source", None)
    source = read(package) if read else None
    if source is None:
        raise ImportError(f"{package} needs its source files, which this installation leaves out", name=package)
    modules = type_checking_imports(source, package)
    names = sorted(modules)

    def load(name: str) -> Any:
        if name not in modules:
            # With name and obj Python adds "Did you mean: ...".
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=here)
        module = modules[name]
        if module == package:
            value = importlib.import_module(f"{package}.{name}")
        else:
            value = getattr(importlib.import_module(module), name)
        # The next access finds it without coming here.
        setattr(here, name, value)
        return value

    return load, lambda: names, names
