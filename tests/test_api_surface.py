"""Public names and their signatures are pinned in ``api_surface.json``, so that none changes unnoticed.

After a change that is meant, write the file anew and look at its difference: ``python -m tests.test_api_surface``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

PINNED = Path(__file__).with_name("api_surface.json")
PACKAGES = [
    "", "body", "data", "estimators", "estimators.lifters", "evaluation", "export", "geometry", "interfaces", "metrics",
    "report", "settings", "skeletons", "storage", "synthesis", "synthesis.augmentation", "training", "types",
]  # fmt: skip


def signature(value: Any) -> str:
    """As text that is the same on every machine: no addresses, no paths of one installation."""
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<(?:function|class|built-in function) '?([\w.]+)'?(?: at 0x[0-9a-f]+)?>", r"\1", text)
    return re.sub(r"<factory>|(?:Posix|Windows)Path\('[^']*'\)", "...", text)


def members(kind: type) -> dict[str, str]:
    """What users call: the constructor and the public methods and properties that a class of posesyn defines."""
    found = {"()": signature(kind)}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("posesyn"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_"):
                continue
            if isinstance(value, property):
                found[name] = "property"
            elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
                found[name] = signature(getattr(kind, name))
    return dict(sorted(found.items()))


def described(value: Any) -> Any:
    if isinstance(value, ModuleType):
        own = (v for v in vars(value).values() if getattr(v, "__module__", None) == value.__name__)
        public = {v.__name__: described(v) for v in own if hasattr(v, "__name__") and not v.__name__.startswith("_")}
        return dict(sorted(public.items()))
    if inspect.isclass(value):
        return members(value)
    return signature(value) if callable(value) and hasattr(value, "__name__") else type(value).__name__


def public_names(module: ModuleType) -> list[str]:
    """``__all__``; a single file without it: what it defines itself."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def surface() -> dict[str, Any]:
    """Package → public name → signature, or for a class its members' signatures."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f"posesyn.{package}".rstrip("."))
        values = {name: getattr(module, name) for name in public_names(module)}
        # A package named in PACKAGES is described there, not once more in the package above it.
        listed = {f"posesyn.{name}" for name in PACKAGES}
        found[module.__name__] = {
            name: "module" if isinstance(value, ModuleType) and value.__name__ in listed else described(value)
            for name, value in values.items()
        }
    return found


def flat(tree: dict[str, Any], above: str = "") -> dict[str, str]:
    leaves = {}
    for name, value in tree.items():
        path = f"{above} {name}".strip()
        leaves.update(flat(value, path) if isinstance(value, dict) else {path: value})
    return leaves


def test_public_names_and_signatures_are_those_written_down():
    wanted, got = flat(json.loads(PINNED.read_text())), flat(surface())
    lines = [
        f"{path}: {wanted.get(path, 'not there')} -> {got.get(path, 'gone')}"
        for path in sorted({*wanted, *got})
        if wanted.get(path) != got.get(path)
    ]
    assert not lines, "the public face changed; if it is meant: python -m tests.test_api_surface\n" + "\n".join(lines)


if __name__ == "__main__":
    PINNED.write_text(json.dumps(surface(), indent=1) + "\n")
