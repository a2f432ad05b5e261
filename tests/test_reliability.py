"""Every row of `docs/reliability.md` names a test that exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TEST = re.compile(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`")


def rows_of(page: str) -> list[str]:
    """Return the rows of a page's tables, without the headers."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [x for x in lines if not (x.endswith("| Test |") or x.startswith("|---"))]


def names_of_tests(file: str) -> set[str]:
    """Return the names of the tests in a file of `tests/`, or none if it is missing."""
    path = ROOT / "tests" / file
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def untested_rows(page: str) -> list[str]:
    """Return the rows that do not name a test, or name a test that does not exist."""
    untested = []
    for row in rows_of(page):
        named = _TEST.findall(row.rstrip("| ").rpartition("|")[2])
        if not named or any(test not in names_of_tests(file) for file, test in named):
            untested.append(row)
    return untested


def test_every_row_of_the_reliability_page_names_an_existing_test():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert len(rows_of(page)) > 100
    assert untested_rows(page) == []


def test_a_row_without_an_existing_test_is_found():
    this = "`test_reliability.py::test_a_row_without_an_existing_test_is_found`"
    page = f"| What | Does | Test |\n|---|---|---|\n| a | b | {this} |\n"
    assert untested_rows(page) == []
    for other in (
        "",
        "seen",
        "`test_reliability.py::test_nothing`",
        "`test_no.py::test_a`",
    ):
        assert len(untested_rows(page + f"| a | b | {other} |\n")) == 1
