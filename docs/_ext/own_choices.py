"""The directive ``own-choices``: a table per module of everything the source marks as our own choice."""

from __future__ import annotations

from pathlib import Path

from choice_collector import Choice, collect
from docutils import nodes
from docutils.parsers.rst import Directive

PACKAGE = Path(__file__).resolve().parents[2] / "posesyn"


class OwnChoices(Directive):
    def run(self) -> list[nodes.Node]:
        by_module: dict[str, list[Choice]] = {}
        for choice in collect(PACKAGE):
            by_module.setdefault(choice.module, []).append(choice)
        result: list[nodes.Node] = []
        for module, choices in by_module.items():
            result += [nodes.rubric(module, module), _table(choices)]
        return result


def _table(choices: list[Choice]) -> nodes.table:
    group = nodes.tgroup(cols=3)
    group += [nodes.colspec(colwidth=width) for width in (25, 25, 50)]
    head, body = nodes.thead(), nodes.tbody()
    head += _row(*(nodes.paragraph(text, text) for text in ("name", "value", "what the source says")))
    for choice in choices:
        name, value = _code(choice.name or "(module)"), _code(choice.value)
        body += _row(name, value, nodes.paragraph(choice.text, choice.text.replace("``", "")))
    group += [head, body]
    table = nodes.table(classes=["own-choices"])
    table += group
    return table


def _code(text: str) -> nodes.paragraph:
    paragraph = nodes.paragraph()
    if text:
        paragraph += nodes.literal(text, text)
    return paragraph


def _row(*cells: nodes.Node) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        entry = nodes.entry()
        entry += cell
        row += entry
    return row


def setup(app) -> dict[str, object]:
    app.add_directive("own-choices", OwnChoices)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
