"""The quickstart notebook runs as it is stored, shows pictures, and its foreign estimator stays short."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def stored() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_stored_without_outputs(stored):
    nbformat.validate(stored)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(stored))


def test_a_foreign_estimator_takes_at_most_twenty_lines(stored):
    (cell,) = (cell for cell in code_cells(stored) if "CallableEstimator(" in cell.source)
    tree = ast.parse(cell.source)
    lines = [line for line in cell.source.splitlines() if line.strip()]
    assert len(lines) <= 20
    # It inherits nothing of posesyn.
    bases = [ast.unparse(base) for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases]
    assert bases == ["torch.nn.Module"]


def test_reads_nothing_from_outside(stored):
    source = "\n".join(cell.source for cell in code_cells(stored))
    assert "shared" not in source and "http" not in source


@pytest.mark.integration
def test_runs_and_shows_pictures(stored, tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.from_dict(stored)
    # An error in a cell is raised as CellExecutionError, which prints the cell and its traceback.
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    data = [output.data for output in outputs if "data" in output]
    pictures = [kind for one in data for kind in one if kind in ("image/jpeg", "image/png")]
    assert len(pictures) >= 6
    moving = sum(one.get("text/html", "").count('src="data:image/webp;base64,') for one in data)
    assert moving >= 6
    # Every section shows something.
    shown = [any("data" in output for output in cell.outputs) for cell in code_cells(notebook)]
    assert sum(shown) >= 6
