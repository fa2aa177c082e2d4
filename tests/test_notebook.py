"""The notebooks run as they are stored and show pictures; the quickstart's foreign estimator stays short."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NAMES = ("quickstart", "poseaug")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module", params=NAMES)
def stored(request) -> nbformat.NotebookNode:
    return read(request.param)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_stored_without_outputs(stored):
    nbformat.validate(stored)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(stored))


def test_a_foreign_estimator_takes_at_most_twenty_lines():
    (cell,) = (cell for cell in code_cells(read("quickstart")) if "CallableEstimator(" in cell.source)
    tree = ast.parse(cell.source)
    lines = [line for line in cell.source.splitlines() if line.strip()]
    assert len(lines) <= 20
    # It inherits nothing of posesyn.
    bases = [ast.unparse(base) for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases]
    assert bases == ["torch.nn.Module"]


def test_reads_nothing_from_outside(stored):
    source = "\n".join(cell.source for cell in code_cells(stored))
    assert "shared" not in source and "http" not in source


def executed(name: str, folder: Path) -> tuple[nbformat.NotebookNode, list]:
    """The notebook with its outputs, and their data."""
    from nbclient import NotebookClient

    notebook = read(name)
    # An error in a cell is raised as CellExecutionError, which prints the cell and its traceback.
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    return notebook, [output.data for output in outputs if "data" in output]


def pictures(data: list) -> int:
    return sum(kind in ("image/jpeg", "image/png") for one in data for kind in one)


@pytest.mark.integration
def test_quickstart_runs_and_shows_pictures(tmp_path):
    notebook, data = executed("quickstart", tmp_path)
    assert pictures(data) >= 6
    moving = sum(one.get("text/html", "").count('src="data:image/webp;base64,') for one in data)
    assert moving >= 6
    # Every section shows something.
    shown = [any("data" in output for output in cell.outputs) for cell in code_cells(notebook)]
    assert sum(shown) >= 6


@pytest.mark.integration
def test_poseaug_runs_and_shows_pictures(tmp_path):
    notebook, data = executed("poseaug", tmp_path)
    assert pictures(data) == 3
    printed = "".join(output.text for cell in code_cells(notebook) for output in cell.outputs if "text" in output)
    assert "pairs to train on" in printed and "control {'mpjpe'" in printed and "PoseAug {'mpjpe'" in printed
