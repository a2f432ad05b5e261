"""The versions listed in docs/reliability.md are the ones that can be installed."""

import platform
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
_TRIED = re.compile(r"^\| Python ([\d.]+), JAX ([\d.]+)", re.MULTILINE)


def table_rows():
    """Return the Python and JAX versions of each row of the page."""
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    return [match.groups() for match in _TRIED.finditer(page)]


def line_of(version):
    """Return the release line of a version, such as 0.12 for 0.12.0.1."""
    return ".".join(version.split(".")[:2])


def project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def range_of(package):
    for line in map(Requirement, project()["dependencies"]):
        if line.name == package:
            return line.specifier
    raise LookupError(package)


def limits(specifier):
    """Return the first version of a range, and the first one after it."""
    by_operator = {limit.operator: limit.version for limit in specifier}
    return by_operator[">="], by_operator["<"]


def next_line(version):
    major, minor = map(int, line_of(version).split("."))
    return f"{major}.{minor + 1}"


def test_the_tested_pythons_are_exactly_the_supported_ones():
    allowed = SpecifierSet(project()["requires-python"])
    found = {line_of(python) for python, _ in table_rows()}
    assert found == {f"3.{n}" for n in range(30) if f"3.{n}" in allowed}


def test_the_oldest_and_newest_supported_lines_of_jax_were_tested():
    first, after_last = limits(range_of("jax"))
    tested = {line_of(jax) for _, jax in table_rows()}
    lines = sorted(tested, key=lambda line: [*map(int, line.split("."))])
    assert lines[0] == line_of(first)
    assert next_line(lines[-1]) == after_last


def test_the_versions_in_use_were_tested():
    here = line_of(platform.python_version()), line_of(version("jax"))
    assert here in [(line_of(python), line_of(jax)) for python, jax in table_rows()]


def test_the_readme_and_the_tools_name_the_supported_pythons():
    first, after_last = limits(SpecifierSet(project()["requires-python"]))
    last = f"3.{int(after_last.split('.')[1]) - 1}"
    assert f"You need Python {first} to {last}" in (ROOT / "README.md").read_text()
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert target["pyright"]["pythonVersion"] == first
    assert target["ruff"]["target-version"] == "py" + first.replace(".", "")


def test_the_note_about_the_sampler_names_the_required_nightly():
    from gammavae_jax.models import gamma_sampler

    source = Path(gamma_sampler.__file__).read_text(encoding="utf-8")
    assert f"tfp-nightly{range_of('tfp-nightly')}" in source
