"""``meta`` is provenance: nothing in the package is decided by it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import posesyn

ROOT = Path(posesyn.__file__).parent
ALLOWED = {
    # The writer takes back the scaling and lifting that the reader of the same format noted.
    "data/motions/bvh.py",
}
READS = {"get", "pop", "items", "keys", "values", "setdefault", "__getitem__"}


def is_meta(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "meta"


def reads(source: str) -> list[int]:
    """Lines that look into a ``meta``, or give it another name under which it could be looked into."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if (
            (isinstance(node, ast.Subscript) and is_meta(node.value))
            or (isinstance(node, ast.Attribute) and node.attr in READS and is_meta(node.value))
            or (isinstance(node, ast.Compare) and any(map(is_meta, node.comparators)))
            or (isinstance(node, ast.Assign) and is_meta(node.value))
            or (isinstance(node, ast.For) and is_meta(node.iter))
        ):
            found.append(node.lineno)
    return found


def test_nothing_is_decided_by_meta():
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{line}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).as_posix() not in ALLOWED
        for line in reads(path.read_text())
    }
    assert not found, "make what is read a field of Person, Motion or Clip"


def test_the_exceptions_are_still_needed():
    assert all(reads((ROOT / name).read_text()) for name in ALLOWED)


@pytest.mark.parametrize(
    "code",
    ["p.meta['a']", "p.meta.get('a')", "'a' in p.meta", "m = p.meta", "for k in p.meta: pass", "q.p.meta.items()"],
)
def test_reading_is_seen(code):
    assert reads(code) == [1]
    assert not reads("Person(meta={**p.meta, 'a': 1})")
