"""Rules for the imports, names and sizes of modules, checked in the source code."""

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest
from support.processes import ROOT, python

PACKAGE = "gammavae_jax"
# By dotted names below the package: "config", "cli", "cli.evaluate".
MODULES = {
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
SCRIPTS = sorted(
    p for d in ("experiments", "benchmarks") for p in ROOT.glob(f"{d}/**/*.py")
)
MOST_LINES = 300

# In import order: each one imports only from earlier ones and from root modules.
ROOMS = (
    *("data", "models", "devices", "training", "scoring", "evaluation", "report"),
    *("runs", "anomaly_detector", "export", "live", "cli"),
)
# The only modules that may import these libraries.
RESTRICTED_LIBRARIES: dict[str, set[str]] = {
    "tensorflow_probability": {"models.gamma_sampler"},
    "soundfile": {"data.audio.files", "report.pictures"},
    "sklearn": {"runs.estimator", "evaluation.metrics"},
    "jinja2": {"report.templates"},
    "orbax": {"runs.stored_arrays"},
    "soxr": {"data.audio.files"},
    "fastapi": {"live.app"},
    "starlette": {"live.app"},
    "uvicorn": {"live.app"},
    "python_multipart": {"live.uploads"},
    "prometheus_client": {"live.metrics"},
}
MOST_IN_ROOT = 9
# Besides the standard library, what a command may import before it runs.
LIGHT = {PACKAGE, "tyro", "docstring_parser", "typeguard", "typing_extensions"}
FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
# All modules read files through `files`, except those that read files of the package or
# of the system, or members of an archive.
READ_OTHER_FILES = {
    *("data.audio.archives", "data.download.catalogue", "evaluation.submission"),
    *("files", "live.app", "report.templates", "runs.fleet.plan"),
}
# JSON from elsewhere is parsed only by `config_json`.
PARSE_OTHER_JSON = {"config_json", "devices.cluster"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """Return the dotted names of everything that a file imports, even in functions."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            base = ".".join(filter(None, [*above, node.module]))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def own_modules(path: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    found = set()
    for name in imported(path):
        package, *parts = name.split(".")
        while package == PACKAGE and parts and ".".join(parts) not in MODULES:
            parts.pop()
        if package == PACKAGE and parts:
            found.add(".".join(parts))
    return found


def libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)} - {PACKAGE}


GRAPH = {name: own_modules(path) for name, path in MODULES.items()}


def rank_of(name: str) -> int:
    """Return the position of a module's sub-package, or -1 for root modules."""
    room = name.partition(".")[0]
    return ROOMS.index(room) if room in ROOMS else -1


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"__init__"}))
def test_a_sub_package_imports_only_from_those_before_it(name):
    assert not {used for used in GRAPH[name] if rank_of(used) > rank_of(name)}


def test_there_are_no_import_cycles():
    graphlib.TopologicalSorter(GRAPH).prepare()  # raises CycleError


def test_the_rules_name_existing_modules():
    assert set(ROOMS) <= MODULES.keys()
    assert set().union(*RESTRICTED_LIBRARIES.values()) <= MODULES.keys()


def defined(path: Path) -> set[str]:
    """Return the names that a module defines at its top level."""
    names = set()
    for node in parse(path).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else []
        targets = node.targets if isinstance(node, ast.Assign) else targets
        names |= {of.id for of in targets if isinstance(of, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def test_contributing_md_names_existing_modules_and_files():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"`(?:gammavae_jax\.)?([a-z_]\w*(?:\.\w+)+)`", text)
    tops = {name.partition(".")[0] for name in MODULES}
    names = [name for name in names if name.partition(".")[0] in tops]
    assert len(names) > 30
    for name in names:
        module, _, last = name.rpartition(".")
        is_defined = module in MODULES and last in defined(MODULES[module])
        assert name in MODULES or is_defined, name
    files = re.findall(r"`([a-z_]+/[\w/]+\.\w+)`", text)
    assert len(files) > 5
    for file in files:
        assert (ROOT / file).exists() or (ROOT / PACKAGE / file).exists(), file


def test_there_are_few_root_modules():
    assert len(list((ROOT / PACKAGE).glob("*.py"))) <= MOST_IN_ROOT


def test_only_cli_modules_import_the_command_line_parser():
    users = {name for name, path in MODULES.items() if "tyro" in libraries(path)}
    assert all(name.startswith("cli.") for name in users)


@pytest.mark.parametrize("command", [[], ["run"], ["rescore"], ["evaluate"]], ids=str)
def test_help_imports_nothing_slow_and_is_printed_on_an_ascii_terminal(command):
    """This keeps `--help` fast, and `doctor` works even if a library is broken."""
    code = (
        "import sys; before = set(sys.modules)\n"
        f"from {PACKAGE}.cli.main import main\n"
        f"try: main([*{command}, '--help'])\n"
        "except SystemExit: pass\n"
        "print(*(set(sys.modules) - before))"
    )
    done = python("-c", code, PYTHONIOENCODING="ascii")
    assert done.stdout.startswith("usage: gammavae ")
    imported = done.stdout.splitlines()[-1].split()
    names = {name.split(".")[0] for name in imported}
    assert names <= LIGHT | sys.stdlib_module_names


@pytest.mark.parametrize("library", RESTRICTED_LIBRARIES)
def test_a_restricted_library_is_only_imported_where_allowed(library):
    users = {name for name, path in MODULES.items() if library in libraries(path)}
    assert users == RESTRICTED_LIBRARIES[library]


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_file_executes_what_it_reads(path):
    calls = {
        node.func.id
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    keywords = {
        node.arg for node in ast.walk(parse(path)) if isinstance(node, ast.keyword)
    }
    assert not calls & FORBIDDEN_CALLS
    assert not libraries(path) & FORBIDDEN_IMPORTS
    assert "allow_pickle" not in keywords


def opens_for_reading(node: ast.AST) -> bool:
    """Return whether a call opens or reads a file, judging by its source code."""
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    if called.endswith((".read_text", ".read_bytes")):
        return True
    is_open = called == "open" or (called.endswith(".open") and called != "os.open")
    # The mode is the second argument of `open(path)`, and the first of `path.open()`.
    named = [of.value for of in node.keywords if of.arg == "mode"]
    mode = [*named, *node.args[called == "open" :]][:1]
    return is_open and not any(set(ast.unparse(of)) & set("wxa") for of in mode)


@pytest.mark.parametrize("name", sorted(MODULES.keys() - READ_OTHER_FILES))
def test_files_that_may_be_pipes_are_read_only_through_one_module(name):
    calls = filter(opens_for_reading, ast.walk(parse(MODULES[name])))
    assert [ast.unparse(call) for call in calls] == []


@pytest.mark.parametrize("name", sorted(MODULES.keys() - PARSE_OTHER_JSON))
def test_json_that_may_be_malformed_is_parsed_only_in_one_module(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert not re.search(r"json\.loads?\b|from json import", text)


def test_no_module_has_a_meaningless_name():
    assert not {part for name in MODULES for part in name.split(".")} & FORBIDDEN_NAMES
    assert not {path.stem for path in SCRIPTS} & FORBIDDEN_NAMES


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_not_too_long(name):
    lines = MODULES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES
