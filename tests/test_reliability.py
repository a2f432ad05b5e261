"""Every row of the table of faults names a test that is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TEST = re.compile(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`")


def rows_of(page: str) -> list[str]:
    """The rows of a page's tables, without their heads."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    heads = ("| What ", "|---")
    return [line for line in lines if not line.startswith(heads)]


def names_of_tests(file: str) -> set[str]:
    """The names of the tests in a file of this folder; none if it is not there."""
    path = ROOT / "tests" / file
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def unheld_rows(page: str) -> list[str]:
    """The rows that name no test, or one that is not there."""
    unheld = []
    for row in rows_of(page):
        named = _TEST.findall(row.rstrip("| ").rpartition("|")[2])
        if not named or any(test not in names_of_tests(file) for file, test in named):
            unheld.append(row)
    return unheld


def test_every_row_of_the_table_of_faults_is_held_by_a_test():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert unheld_rows(page) == []


def test_a_row_without_a_test_is_found():
    here = "`test_reliability.py::test_a_row_without_a_test_is_found`"
    page = f"| What | Does | Test |\n|---|---|---|\n| a | b | {here} |\n"
    assert unheld_rows(page) == []
    for other in (
        "",
        "seen",
        "`test_reliability.py::test_nothing`",
        "`test_no.py::test_a`",
    ):
        assert len(unheld_rows(page + f"| a | b | {other} |\n")) == 1
