import json
import platform
import subprocess

import jax
import pytest

from gammavae_jax.runs import results
from gammavae_jax.runs.results import describe_environment


def test_the_description_is_json_with_the_versions_and_devices_in_use():
    about = describe_environment()
    assert json.loads(json.dumps(about)) == about
    assert about["python"] == platform.python_version()
    assert about["packages"]["jax"] == jax.__version__
    assert about["n_devices"] == len(jax.devices())
    assert about["platform"] == jax.default_backend()
    assert about["device"] == jax.devices()[0].device_kind


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(results, "_PACKAGES", ("no-such-package",))
    assert describe_environment()["packages"] == {"no-such-package": None}


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    package = tmp_path / "site-packages" / "gammavae_jax"
    monkeypatch.setattr(results, "__file__", str(package / "runs/results.py"))
    assert describe_environment()["commit"] is None


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)]
)
def test_without_git_there_is_no_commit(monkeypatch, tmp_path, error):
    def fail(*args, **kwargs):
        raise error

    (tmp_path / ".git").mkdir()
    module = tmp_path / "gammavae_jax" / "runs" / "results.py"
    monkeypatch.setattr(results, "__file__", str(module))
    monkeypatch.setattr(subprocess, "run", fail)
    assert describe_environment()["commit"] is None


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=no"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_given_and_changes_are_marked(monkeypatch, tmp_path):
    module = tmp_path / "gammavae_jax" / "runs" / "results.py"
    module.parent.mkdir(parents=True)
    module.touch()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    monkeypatch.setattr(results, "__file__", str(module))
    commit = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert describe_environment()["commit"] == commit
    module.write_text("changed")
    assert describe_environment()["commit"] == commit + "+"
