"""Lines ``% modules: data.persons storage`` of the reference become a heading and the docstrings of each module.

Pages name packages, not files: a file that is added, moved or split is on its page without anybody listing it.
"""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "posesyn"
_LINE = re.compile(r"^% modules: (.+)$", re.MULTILINE)
_BLOCK = "## {name}\n\n```{{eval-rst}}\n.. automodule:: posesyn.{name}\n```\n"


def modules(name: str) -> list[str]:
    """The modules of a package, by path, or the module itself; names without ``posesyn.``.

    A package's own file holds only names of its modules, so it is not among them.

    Raises:
        ValueError: There is no such module.
    """
    path = PACKAGE / Path(*name.split("."))
    if path.with_suffix(".py").is_file():
        return [name]
    found = sorted(file for file in path.rglob("*.py") if file.name != "__init__.py")
    if not found:
        raise ValueError(f"no module or package posesyn.{name}")
    return [".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in found]


def named(page: str) -> list[str]:
    """All modules that a page's lines stand for, in order."""
    return [module for line in _LINE.findall(page) for name in line.split() for module in modules(name)]


def expand(page: str) -> str:
    """The page with a heading and ``automodule`` for each module."""
    return _LINE.sub(lambda line: "\n".join(_BLOCK.format(name=name) for name in named(line.group())), page)


def _on_source(app, docname: str, source: list[str]) -> None:
    if docname.startswith("reference/"):
        source[0] = expand(source[0])


def setup(app) -> dict[str, object]:
    app.connect("source-read", _on_source)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
