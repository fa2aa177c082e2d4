"""Sphinx configuration. Build with ``make docs``; warnings are errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import posesyn

project = "posesyn"
author = "the posesyn authors"
copyright = "the posesyn authors, Apache-2.0"
release = version = posesyn.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "own_choices",
    "module_pages",
]
exclude_patterns = ["_build", "_ext", "jupyter_execute", "**.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Docstrings name their own attributes ("low, high: ..."), which several classes have: no reference is meant.
suppress_warnings = ["ref.python"]

# The notebook is stored without outputs; the pictures on the page are made while the documentation is built.
nb_execution_mode = os.environ.get("POSESYN_DOCS_EXECUTE", "auto")
nb_execution_timeout = 600
nb_execution_raise_on_error = True

# Methods that Lightning asks for would bring its long docstrings, written for its own pages.
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"posesyn {release}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
