"""The commands and Python code in README and docs work."""

import importlib.util
import re
import shlex
import shutil

import numpy as np
import pytest
import soundfile
from support.processes import GAMMAVAE, ROOT, python

from gammavae_jax.cli.main import parse
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands that install, wait indefinitely or use the network are only parsed.
NOT_RUN = re.compile(
    r"--distributed|export |pip |python3? -m venv|\. activate|curl |git |make |pytest"
    r"|gammavae (serve|download|completion|watch(?!.* --once))|eval |^(cd|for|done)\b"
)
# Scripts that are commands under another name.
AS_COMMAND = {"experiments/run.py": "run", "experiments/evaluate.py": "rescore"}
# Commands on recordings that cannot be distributed are only parsed, too.
CHALLENGE = ("dcase20", "eval_data", "dev_data", "evaluators/")


def code(page, language):
    """Return the code blocks of a page in one language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [block for block in blocks if block.strip()]


def commands(page):
    """Return the commands of a page, without `.venv/bin/` and placeholders."""
    lines = "".join(code(page, "bash")).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split(" && ")]
    plain = [part.replace(".venv/bin/", "").strip() for part in parts]
    return [p for p in plain if p and not p.startswith("#") and "<" not in p]


def script(name):
    """Import a script of `experiments`."""
    path = ROOT / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a reader's folder: own recordings, the demo's and a challenge data set."""
    root = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for machine in ("recordings/pump", "recordings/fan", "demo"):
        days = ("normal", 10), ("today", 2), ("other-days", 3), ("broken", 3)
        for day, count in days:
            (root / machine / day).mkdir(parents=True)
            for number in range(count):
                samples = rng.normal(0, 0.1, (16000,))
                soundfile.write(root / machine / day / f"{number}.wav", samples, 16000)
    size = SyntheticSize(n_source=8, n_target=2, n_test=2, seconds=(0.5, 0.5))
    make_synthetic(root / "data", {"fan": size, "valve": size})
    (root / "experiments").symlink_to(ROOT / "experiments")
    (root / "examples").symlink_to(ROOT / "examples")
    return root


def test_the_index_links_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    names = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert names == set(re.findall(r"\]\((\w[\w-]*\.md)\)", index))


def test_the_code_of_the_pages_is_found():
    """Otherwise, the tests below would have nothing to run."""
    found = {page.name: (len(commands(page)), code(page, "python")) for page in PAGES}
    with_commands = {name for name, (n_commands, _) in found.items() if n_commands}
    assert with_commands >= {"README.md", "own-machines.md", "live.md", "clusters.md"}
    assert found["README.md"][0] >= 10
    assert found["own-machines.md"][0] >= 8
    assert sum(n_commands for n_commands, _ in found.values()) >= 60
    assert len(found["own-machines.md"][1]) >= 3
    for page in PAGES:  # `code` does not find blocks of other kinds
        fences = re.findall(r"^ *(?:```|~~~)[^\n`]*", page.read_text(), re.M)
        assert set(fences) <= {"```", "```bash", "```python", "```yaml"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_valid_options(page):
    for line in commands(page):
        words = shlex.split(line.removesuffix(" &"), comments=True)
        if "--distributed" in words:  # skip the launcher, such as srun
            words = words[words.index("python") :]
        program, *arguments = words
        if program == "gammavae":
            parse(arguments)
        elif program == "python" and arguments[0] in AS_COMMAND:
            parse([AS_COMMAND[arguments[0]], *arguments[1:]])
        elif program == "python" and arguments[0].startswith("experiments/"):
            script(arguments[0]).parse(arguments[1:])
        elif program == "python":
            assert (ROOT / arguments[0]).is_file() or arguments[0] == "-m"


@pytest.mark.parametrize(
    "page", [p for p in PAGES if code(p, "python")], ids=lambda page: page.name
)
def test_the_python_code_of_a_page_runs(page, folder):
    blocks = "\n".join(code(page, "python"))
    # The pages train with the default number of epochs, which takes minutes.
    quick = blocks.replace("AnomalyDetector()", "AnomalyDetector(epochs=2)")
    python("-c", quick, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if commands(p)], ids=lambda page: page.name
)
def test_the_commands_of_the_pages_run_in_order(page, folder):
    """Later pages use the results of earlier ones, such as `runs/default`."""
    for line in commands(page):
        if NOT_RUN.search(line) or any(word in line for word in CHALLENGE):
            continue
        program, *arguments = shlex.split(line, comments=True)
        if out := re.search(r"--out (\S+)|(demo)$", line):
            # A command on an earlier page may have written it.
            shutil.rmtree(folder / (out[1] or out[2]), ignore_errors=True)
        if program == "gammavae":
            arguments = [*GAMMAVAE, *arguments]
        else:
            assert program == "python", line
        ended = python(*arguments, cwd=folder, check=False)
        assert ended.returncode == 0, f"{line}\n{ended.stderr[-2000:]}"
