"""The reference: every module of posesyn that others may use is on exactly one page; files that pages name exist."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("module_pages", ROOT / "docs" / "_ext" / "module_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_is_on_one_page(pages):
    texts = [page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")]
    listed = [module for text in texts for module in pages.named(text)]
    files = ROOT.glob("posesyn/*/**/*.py")
    there = {".".join(file.relative_to(ROOT / "posesyn").with_suffix("").parts) for file in files}
    # The commands have their --help; of the modules beside the packages some are no business of users.
    wanted = {name for name in there if not name.endswith("__init__") and not name.startswith("cli.")}
    assert sorted(name for name in listed if "." in name) == sorted(wanted)
    assert len(listed) == len(set(listed))


def test_a_line_becomes_headings_and_directives(pages):
    made = pages.expand("# Bodies\n\n% modules: errors body\n")
    body = sorted(path.stem for path in (ROOT / "posesyn" / "body").glob("[!_]*.py"))
    headings = [line for line in made.splitlines() if line.startswith("## ")]
    assert len(body) > 2 and headings == ["## errors", *(f"## body.{name}" for name in body)]
    assert made.count(".. automodule:: posesyn.") == len(headings) and "% modules" not in made


def test_an_unknown_package_is_refused(pages):
    with pytest.raises(ValueError, match=r"posesyn\.no_such"):
        pages.expand("% modules: no_such\n")


@pytest.mark.parametrize("page", ["docs/a_persons_way.md", "docs/concepts.md"])
def test_files_that_a_page_names_exist(page):
    names = re.findall(r"`(posesyn/[\w/]+(?:\.py)?)/?`", (ROOT / page).read_text("utf-8"))
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_links_of_the_readme_stand_in_one_place_and_lead_somewhere():
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.findall(r"\]\((?!#)[^)]*\)", text) == []
    used, defined = set(re.findall(r"\]\[(\w+)\]", text)), dict(re.findall(r"^\[(\w+)\]: (\S+)$", text, re.MULTILINE))
    assert used == set(defined)
    assert [path for path in defined.values() if not path.startswith("https://") and not (ROOT / path).exists()] == []
