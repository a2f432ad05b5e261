"""What README and docs tell a reader to run is run."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gammavae_jax.cli.main import parse
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Not to be run here: they install, wait for ever or for others, or ask the network.
ELSEWHERE = re.compile(
    r"--distributed|export |pip |python3? -m venv|\. \.venv|curl |git |make |pytest"
    r"|gammavae (serve|download|completion|watch(?!.* --once))|eval "
)
# Scripts that are commands under another name.
AS_COMMAND = {"experiments/run.py": "run", "experiments/evaluate.py": "rescore"}
# Recordings that nobody may give away; the commands are parsed.
CHALLENGE = ("dcase20", "eval_data", "dev_data", "data/fan_")


def code(page, language):
    """The code blocks of a page in one language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [block for block in found if block.strip()]


def commands(page):
    """Each command of a page as words, `.venv/bin/` left out."""
    lines = "".join(code(page, "bash")).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split(" && ")]
    plain = [part.replace(".venv/bin/", "").strip() for part in parts]
    return [p for p in plain if p and not p.startswith("#") and "<" not in p]


def script(name):
    """A script of `experiments`."""
    path = ROOT / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader may be: own recordings, and the challenge's layout."""
    root = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for machine in ("pump", "fan"):
        for day, count in (("normal", 10), ("today", 2)):
            (root / "recordings" / machine / day).mkdir(parents=True)
            for number in range(count):
                samples = rng.normal(0, 0.1, (16000,))
                path = root / "recordings" / machine / day / f"{number}.wav"
                soundfile.write(path, samples, 16000)
    size = SyntheticSize(n_source=8, n_target=2, n_test=2, seconds=(0.5, 0.5))
    make_synthetic(root / "data", {"fan": size, "valve": size})
    (root / "experiments").symlink_to(ROOT / "experiments")
    (root / "examples").symlink_to(ROOT / "examples")
    return root


def run(folder, *command):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_that_there_is(page):
    """With options that are known; nothing is run."""
    for line in commands(page):
        words = shlex.split(line.removesuffix(" &"), comments=True)
        if "--distributed" in words:  # after what starts it
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
def test_python_code_runs_as_it_stands(page, folder):
    program = "\n".join(code(page, "python"))
    ended = run(folder, sys.executable, "-c", program)
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if commands(p)], ids=lambda page: page.name
)
def test_commands_run_as_they_stand(page, folder):
    for line in commands(page):
        if ELSEWHERE.search(line) or any(word in line for word in CHALLENGE):
            continue
        program, *arguments = shlex.split(line, comments=True)
        if program == "gammavae":
            arguments = ["-m", "gammavae_jax.cli.main", *arguments]
        else:
            assert program == "python", line
        ended = run(folder, sys.executable, *arguments)
        assert ended.returncode == 0, f"{line}\n{ended.stderr[-2000:]}"
