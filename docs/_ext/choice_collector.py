"""Collects every constant and default that the source marks as "our own choice": no list to keep up to date by hand."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = re.compile(r"\bown\s+choices?\b", re.IGNORECASE)
# Words by which a comment says that it speaks of more than the next constant.
_SEVERAL = re.compile(r"\bown\s+choices\b|\ball\b|\bboth\b", re.IGNORECASE)
_ENTRY = re.compile(r"^\s*([A-Za-z_][\w, *]*):\s+\S")
_LONGEST_VALUE = 120


@dataclass(frozen=True)
class Choice:
    """One choice: the module, what is chosen, its value (or nothing), and the sentence that calls it a choice."""

    module: str
    name: str
    value: str
    text: str


def collect(package: Path) -> list[Choice]:
    """All marked choices of a package folder, by module name and then by place in the file."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        source = path.read_text("utf-8")
        if MARK.search(source):
            found += [*_from_comments(module, source), *_from_docstrings(module, ast.parse(source))]
    return found


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _from_comments(module: str, source: str) -> Iterator[Choice]:
    lines = source.splitlines()
    blocks: list[tuple[int, int, list[str]]] = []  # first row, last row, texts
    trailing: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, text = token.start[0], token.string.lstrip("#: ").strip()
        if lines[row - 1].lstrip().startswith("#"):
            if blocks and blocks[-1][1] == row - 1:
                blocks[-1] = (blocks[-1][0], row, [*blocks[-1][2], text])
            else:
                blocks.append((row, row, [text]))
        else:
            trailing.append((row, text))
    commented = {row for row, text in trailing if MARK.search(text)}
    assignments, enclosing = {}, {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            assignments[node.lineno] = node
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            enclosing.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.name))
    for _, last, texts in blocks:
        text = " ".join(texts)
        if not MARK.search(text):
            continue
        # A comment speaks of the next constant, or of all up to a blank line or another comment.
        row, rows = last + 1, []
        while row in assignments and row not in commented and (not rows or _SEVERAL.search(text)):
            rows.append(assignments[row])
            row = (assignments[row].end_lineno or row) + 1
        for node in rows:
            yield Choice(module, _target(node), _one_line(ast.unparse(node.value)), text)
        if not rows:
            yield Choice(module, enclosing.get(last + 1, ""), "", text)
    for row, text in trailing:
        if MARK.search(text):
            start = max((line for line in assignments if line <= row), default=0)
            node = assignments.get(start)
            if node is not None and row <= (node.end_lineno or start):
                yield Choice(module, _target(node), _one_line(ast.unparse(node.value)), text)
            else:
                yield Choice(module, enclosing.get(row, ""), "", text)


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return ", ".join(ast.unparse(target) for target in targets).strip("()")


def _from_docstrings(module: str, tree: ast.Module) -> Iterator[Choice]:
    def visit(node: ast.AST, name: str) -> Iterator[Choice]:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            defaults = _defaults(node)
            paragraphs = list(_paragraphs(ast.get_docstring(node) or ""))
            whole = _is_dataclass(node) and any(not one and MARK.search(text) for one, text in paragraphs)
            for argument, text in paragraphs:
                # Settings that are a choice as a whole are listed field by field.
                if MARK.search(text) or (whole and argument):
                    value = ", ".join(defaults[one] for one in re.split(r",\s*", argument) if one in defaults)
                    yield Choice(module, ".".join(filter(None, (name, argument))), _one_line(value), text)
        for child in ast.iter_child_nodes(node):
            inner = getattr(child, "name", "") if isinstance(child, (ast.ClassDef, ast.FunctionDef)) else ""
            # Arguments of a class are those of its __init__.
            inner = "" if inner == "__init__" else inner
            yield from visit(child, ".".join(filter(None, (name, inner))))

    yield from visit(tree, "")


def _is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(one) for one in node.decorator_list)


def _paragraphs(docstring: str) -> Iterator[tuple[str, str]]:
    """(argument or "", text) of each paragraph and each entry of an Args or Attributes list."""
    argument, words = "", []
    in_list = False
    for line in [*docstring.splitlines(), ""]:
        entry = _ENTRY.match(line) if in_list and line.startswith("    ") and not line.startswith("     ") else None
        if entry or not line.strip():
            if words:
                yield argument, " ".join(words)
            argument, words = "", []
        if line.strip() in ("Args:", "Attributes:"):
            in_list = True
        elif line.strip():
            in_list = in_list and line.startswith(" ")
            if entry:
                argument, line = entry.group(1), line.split(":", 1)[1]
            words.append(line.strip())


def _defaults(node: ast.AST) -> dict[str, str]:
    """Argument or field → default as source text."""
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(arguments[len(arguments) - len(node.args.defaults) :], node.args.defaults))
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults) if d is not None]
        return {argument.arg: ast.unparse(default) for argument, default in pairs}
    if isinstance(node, ast.ClassDef):
        found = {
            ast.unparse(item.target): ast.unparse(item.value)
            for item in node.body
            if isinstance(item, ast.AnnAssign) and item.value is not None
        }
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                found.update(_defaults(item))
        return found
    return {}
