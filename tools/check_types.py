"""Checks types: the strict part of the package has no error, the rest not more than the baseline, which only falls.

What is strict stands in pyproject.toml (the overrides with ``disallow_untyped_defs``), the baseline under
``[tool.check_types]``. Arguments go to mypy: ``python tools/check_types.py --cache-dir /tmp/mypy``.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mypy import api

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
_ERROR = re.compile(r"^(?P<file>[^:]+\.py):\d+(:\d+)?: error: ")


def is_strict(file: str, patterns: Iterable[str]) -> bool:
    """Whether a file, ``posesyn/types/clip.py``, is one of the modules, ``posesyn.types.*`` or ``posesyn.lazy``."""
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return any(module == p or (p.endswith(".*") and (module + ".").startswith(p.removesuffix("*"))) for p in patterns)


def verdict(errors: Sequence[str], patterns: Sequence[str], baseline: int) -> tuple[bool, list[str]]:
    """Whether the check passes, and the lines to print. ``errors`` are mypy's lines."""
    found = [(line, is_strict(match["file"], patterns)) for line in errors if (match := _ERROR.match(line))]
    strict = [line for line, inside in found if inside]
    rest = [line for line, inside in found if not inside]
    lines = [*strict, f"types: {len(strict)} errors in the strict part, {len(rest)} in the rest (baseline {baseline})"]
    if len(rest) > baseline:
        lines = [*rest, *lines, "more errors than before: mend yours, the baseline never rises"]
    elif len(rest) < baseline:
        lines.append(f"fewer errors than before: set [tool.check_types] baseline = {len(rest)} in pyproject.toml")
    return not strict and len(rest) <= baseline, lines


def main() -> int:
    config = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]
    patterns = [
        pattern
        for override in config["mypy"]["overrides"]
        if override.get("disallow_untyped_defs")
        for pattern in override["module"]
    ]
    out, err, status = api.run(["--config-file", str(PYPROJECT), *sys.argv[1:]])
    # 2: mypy itself failed, for example at a syntax error.
    if status > 1 or err:
        print(out, err, file=sys.stderr)
        return 2
    passed, lines = verdict(out.splitlines(), patterns, config["check_types"]["baseline"])
    print("\n".join(lines))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
