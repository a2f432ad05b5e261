"""Old results stay until the new ones are complete, and never mix with them."""

import json
import os
import platform
import subprocess

import jax
import pytest
from support.logs import quiet_log
from support.processes import ROOT, python

from gammavae_jax.config import Config, TrainConfig
from gammavae_jax.errors import InputError
from gammavae_jax.runs import result_files
from gammavae_jax.runs.folder import (
    RunFolder,
    begin_folder,
    check_folder,
    resume_folder,
)
from gammavae_jax.runs.result_files import (
    atomic_results,
    describe_environment,
    has_results,
    remove_results,
)
from gammavae_jax.runs.resume import FolderObserver

FILES = (
    "summary.json",
    "checkpoint/detector.json",
    "checkpoint/detector/arrays",
    "results.csv",
    "clips.csv",
    "report.html",
    "scores/mse/seed1/anomaly_score.csv",
)
MARKERS = FILES[:2]

# Writes results, then writes them again in forked processes, each of which ends, as if
# killed, one file operation later than the one before.
KILLED_ANYWHERE = """
import os, sys
from pathlib import Path
from runs import test_result_files as test
folder, n = Path(sys.argv[1]), 0
while True:
    out = folder / str(n)
    test.write(out, "old")
    pid = os.fork()
    if not pid:
        left = n
        def operation(event, arguments):
            global left
            named = str(arguments[0]) if arguments else ""
            if event in test.OPERATIONS and str(folder) in named:
                if left == 0:
                    os._exit(9)
                left -= 1
        sys.addaudithook(operation)
        test.write(out, "new")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    n += 1
print(n)
"""
OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


def config_of(text):
    return Config(train=TrainConfig(epochs={"old": 4, "new": 8}[text]))


def write(out, text):
    """Write results with the same text in every file, in a new or existing folder."""
    if not out.exists():
        begin_folder(out, config_of(text))
    with atomic_results(out, config_of(text)) as results:
        for name in FILES:
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            (results / name).write_text(text)


def texts(out):
    """Return the text of each file of the results, and that of the configuration."""
    found = {n: (out / n).read_text() for n in FILES if (out / n).exists()}
    epochs = json.loads((out / "config.json").read_text())["train"]["epochs"]
    return found, {4: "old", 8: "new"}[epochs]


def assert_all(out, text):
    assert texts(out) == (dict.fromkeys(FILES, text), text)
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_new_results_replace_the_old_ones(tmp_path):
    write(tmp_path / "run", "old")
    assert_all(tmp_path / "run", "old")
    write(tmp_path / "run", "new")
    assert_all(tmp_path / "run", "new")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_results_that_fail_leave_the_old_ones(tmp_path, error):
    out = tmp_path / "run"
    write(out, "old")

    def fail():
        with atomic_results(out, config_of("new")) as results:
            (results / "results.csv").write_text("new")
            raise error

    with pytest.raises(InputError if isinstance(error, OSError) else type(error)):
        fail()
    assert_all(out, "old")


def test_a_closed_pipe_is_not_reported_as_a_failed_write(tmp_path):
    write(tmp_path / "run", "old")
    with (
        pytest.raises(BrokenPipeError),
        atomic_results(tmp_path / "run", config_of("new")),
    ):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks processes")
def test_results_never_mix_whichever_file_operation_a_kill_interrupts(tmp_path):
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    n = int(python("-c", KILLED_ANYWHERE, tmp_path, PYTHONPATH=path).stdout)
    assert n > 30
    seen = set()
    for killed in (tmp_path / str(k) for k in range(n)):
        check_folder(killed, resume=True)
        found, config = texts(killed)
        if any(marker in found for marker in MARKERS):  # they count as complete
            expected = found.get("summary.json") or found["checkpoint/detector.json"]
            for name, text in found.items():
                assert text == expected or name in MARKERS, (killed.name, found)
        if "summary.json" in found:
            assert found.keys() == set(FILES)
            assert config == found["summary.json"]
        seen.add(found.get("summary.json"))
        assert has_results(killed)  # nothing is lost
        resume_folder(killed, config_of("new"), 0)
        (text,) = set(texts(killed)[0].values())
        assert_all(killed, text)
    assert seen == {"old", "new", None}


def test_complete_results_count_even_if_a_kill_left_them_out_of_place(tmp_path):
    """The run is not started from the beginning, which would remove them."""
    out = tmp_path / "run"
    begin_folder(out, config_of("new"))
    (out / ".results-new").mkdir()
    assert not has_results(out)
    (out / ".results-new").rename(out / ".results")
    (out / ".results" / "summary.json").write_text("new")
    assert has_results(out)
    observer = FolderObserver(config_of("new"), RunFolder(out, True), {}, quiet_log())
    with pytest.raises(InputError, match="has results but no training state"):
        observer.begin()
    assert (out / ".results" / "summary.json").read_text() == "new"


def test_removing_results_removes_those_that_a_kill_left_out_of_place(tmp_path):
    out = tmp_path / "run"
    write(out, "old")
    for name in (".results", ".results-new"):
        (out / name).mkdir()
        (out / name / "summary.json").write_text("old")
    remove_results(out)
    assert not has_results(out)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_description_is_json_with_the_versions_and_devices_in_use():
    about = describe_environment("built_in")
    assert json.loads(json.dumps(about)) == about
    assert about["python"] == platform.python_version()
    assert about["packages"]["jax"] == jax.__version__
    assert about["n_devices"] == len(jax.devices())
    assert about["platform"] == jax.default_backend()
    assert about["device"] == jax.devices()[0].device_kind


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(result_files, "_PACKAGES", ("no-such-package",))
    assert describe_environment("built_in")["packages"] == {"no-such-package": None}


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    package = tmp_path / "site-packages" / "gammavae_jax"
    monkeypatch.setattr(result_files, "__file__", str(package / "runs/result_files.py"))
    assert describe_environment("built_in")["commit"] is None


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)]
)
def test_without_git_there_is_no_commit(monkeypatch, tmp_path, error):
    def fail(*args, **kwargs):
        raise error

    (tmp_path / ".git").mkdir()
    module = tmp_path / "gammavae_jax" / "runs" / "result_files.py"
    monkeypatch.setattr(result_files, "__file__", str(module))
    monkeypatch.setattr(subprocess, "run", fail)
    assert describe_environment("built_in")["commit"] is None


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=no"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_given_and_changes_are_marked(monkeypatch, tmp_path):
    module = tmp_path / "gammavae_jax" / "runs" / "result_files.py"
    module.parent.mkdir(parents=True)
    module.touch()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    monkeypatch.setattr(result_files, "__file__", str(module))
    commit = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert describe_environment("built_in")["commit"] == commit
    module.write_text("changed")
    assert describe_environment("built_in")["commit"] == commit + "+"
