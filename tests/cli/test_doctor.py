"""The doctor: broken on purpose, one thing at a time."""

import email.message
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.cli import checkup, self_tests
from gammavae_jax.cli.checkup import CHECKS, examine
from gammavae_jax.cli.doctor import Doctor
from gammavae_jax.cli.finding import Finding
from gammavae_jax.models import distributions
from gammavae_jax.models.distributions import Gamma

ROOT = Path(__file__).resolve().parent.parent.parent


def look(name):
    """What one check finds, by the name of the finding."""
    return {finding.name: finding for finding in CHECKS[name](name)}


@pytest.fixture
def only(monkeypatch):
    """Replace all checks."""

    def replace(**checks):
        monkeypatch.setattr(checkup, "CHECKS", checks)

    return replace


def test_where_all_works_nothing_failed_and_every_version_is_named():
    findings = list(examine())
    assert {f.state for f in findings} <= {"ok", "warning"}, findings
    found = {f.name: f.detail for f in findings}
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "librosa"):
        assert found[package] == importlib.metadata.version(package)
    assert "tfp-nightly" in found["TensorFlow Probability"]
    assert "libsndfile" in found["sound files"]


def test_a_check_that_raises_is_a_finding_and_the_next_ones_go_on(only):
    def broken(name):
        yield Finding("first", "ok", "found")
        raise RuntimeError("two\nlines")

    only(broken=broken, sound=lambda name: [Finding(name, "ok", "fine")])
    assert list(examine()) == [
        Finding("first", "ok", "found"),
        Finding("broken", "FAILED", "RuntimeError: two lines"),
        Finding("sound", "ok", "fine"),
    ]


@pytest.mark.parametrize(
    ("states", "status", "last"),
    [
        (("ok",), 0, "all is well"),
        (("ok", "warning"), 0, "warning: 1"),
        (
            ("FAILED", "warning", "FAILED"),
            1,
            "FAILED: 2, warning: 1; mend the first that",
        ),
    ],
)
def test_the_exit_status_says_whether_anything_failed(
    only, capsys, monkeypatch, states, status, last
):
    monkeypatch.setenv("COLUMNS", "80")
    findings = [Finding("a name", s, "word " * 30, "pip install x") for s in states]
    only(all=lambda name: findings)
    assert Doctor().run() == status
    *lines, end = capsys.readouterr().out.splitlines()
    assert end.startswith(last)
    assert [line.split()[0] for line in lines if line[0] != " "] == list(states)
    assert sum("remedy: pip install x" in line for line in lines) == len(states)
    assert max(map(len, lines)) <= 80


def test_json_on_standard_output_is_alone_there(only, capsys):
    only(disk=lambda name: [Finding(name, "FAILED", "full", "make room")])
    assert Doctor(json=Path("-")).run() == 1
    output = capsys.readouterr()
    assert json.loads(output.out) == {
        "is_well": False,
        "findings": [
            {"name": "disk", "state": "FAILED", "detail": "full", "remedy": "make room"}
        ],
    }
    assert "FAILED" in output.err


class Distribution:
    def __init__(self, version):
        self.version = version


@pytest.fixture
def installed(monkeypatch):
    """Let these packages of TensorFlow Probability be installed."""

    def replace(**versions):
        monkeypatch.setattr(
            importlib.metadata,
            "distributions",
            lambda name: map(Distribution, versions.get(name.replace("-", "_"), ())),
        )
        monkeypatch.setattr(distributions, "SAMPLER", "tensorflow-probability")

    return replace


WANTED = "0.26.0.dev20261027"


@pytest.mark.parametrize(
    ("versions", "state", "words"),
    [
        ({"tfp_nightly": [WANTED, WANTED]}, "ok", f"tfp-nightly {WANTED}"),
        ({"tfp_nightly": ["0.1"]}, "warning", f"is not tfp-nightly=={WANTED}"),
        ({"tfp_nightly": [WANTED, "0.1"]}, "FAILED", "own the same folder"),
        ({"tensorflow_probability": ["0.25.0"]}, "warning", "probability 0.25.0"),
        (
            {"tensorflow_probability": ["0.25.0"], "tfp_nightly": [WANTED]},
            "FAILED",
            f"tensorflow-probability 0.25.0 and tfp-nightly {WANTED}",
        ),
    ],
)
def test_two_packages_in_one_folder_are_told_with_the_remedy(
    installed, versions, state, words
):
    installed(**versions)
    found = look("TensorFlow Probability")["TensorFlow Probability"]
    assert found.state == state
    assert words in found.detail
    assert (state == "ok") == (found.remedy == "")
    if found.remedy:
        assert found.remedy == (
            "pip uninstall -y tensorflow-probability tfp-nightly && pip install "
            f"'tfp-nightly=={WANTED}'"
        )


def test_without_tfp_jax_draws_which_is_a_warning_and_the_gradient_is_right(
    monkeypatch,
):
    monkeypatch.setattr(distributions, "SAMPLER", "jax")
    monkeypatch.setattr(distributions, "WHY_NOT_TFP", "ImportError: gone")
    found = look("TensorFlow Probability")["TensorFlow Probability"]
    assert found.state == "warning"
    assert found.detail.endswith("ImportError: gone; JAX draws the Gammas instead")
    assert found.remedy.startswith("pip uninstall -y tensorflow-probability tfp-")
    assert [f.state for f in run_of("Gamma gradient")] == ["ok"]


def test_a_package_that_is_missing_old_or_broken_is_told_and_no_other(monkeypatch):
    versions, original = {"jax": "0.4.1"}, importlib.metadata.version
    load = importlib.import_module

    def version(package):
        if package == "pooch":
            raise importlib.metadata.PackageNotFoundError(package)
        return versions.get(package) or original(package)

    def import_module(name):
        if name == "optax":
            raise ImportError("undefined symbol: x")
        return load(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib, "import_module", import_module)
    found = look("packages")
    assert {n: f.state for n, f in found.items() if f.state != "ok"} == {
        "jax": "warning",
        "optax": "FAILED",
        "pooch": "FAILED",
    }
    assert found["jax"].detail.startswith("0.4.1 is outside ")
    assert found["jax"].remedy.startswith("pip install 'jax<")
    assert found["optax"].detail == "ImportError: undefined symbol: x"
    assert found["pooch"].detail == "not installed"


def test_a_package_of_ours_that_is_not_installed_is_told(monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    assert look("packages")["gammavae-jax"].state == "FAILED"
    assert look("Python")["Python"].state == "ok"


def test_another_python_is_told(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    found = look("Python")["Python"]
    assert found.state == "FAILED"
    assert found.detail.startswith("3.9.1 is outside ")


def test_settings_that_change_numbers_or_speed_are_told(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    found = look("settings")["settings"]
    assert found.state == "ok"
    assert "XLA_FLAGS=--xla_dump_to=x" in found.detail
    monkeypatch.setenv("JAX_ENABLE_X64", "True")
    assert look("settings")["settings"].state == "warning"
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    assert look("settings")["settings"].state == "ok"


def test_a_cache_that_cannot_be_written_is_told_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    assert look("cache folder")["cache folder"].state == "ok"
    assert list(tmp_path.iterdir()) == []

    def refuse(**kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = look("cache folder")["cache folder"]
    assert found.state == "FAILED"
    assert "Read-only file system" in found.detail
    assert "GAMMAVAE_CACHE_DIR" in found.remedy


def test_what_is_said_of_compiled_programs_is_in_the_table(monkeypatch, capsys):
    monkeypatch.setattr(
        "gammavae_jax.process.keep_compiled_programs",
        lambda: print("'x': not kept", file=sys.stderr),
    )
    found = look("compiled programs")["compiled programs"]
    assert found == Finding("compiled programs", "warning", "'x': not kept")
    assert capsys.readouterr() == ("", "")


def test_a_full_disk_is_a_warning(monkeypatch):
    usage = type(shutil.disk_usage("."))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9, 8, 1))
    assert look("free disk")["free disk"].state == "warning"


def test_a_card_that_is_not_used_is_a_warning(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    found = look("devices")["devices"]
    assert found.state == "warning"
    assert found.remedy == "pip install 'gammavae-jax[cuda]'"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert look("devices")["devices"].state == "ok"


def test_sound_files_that_come_back_otherwise_are_told(monkeypatch):
    soundfile = importlib.import_module("soundfile")
    read = soundfile.read
    monkeypatch.setattr(soundfile, "read", lambda *a, **k: (read(*a, **k)[0] + 1, 0))
    found = look("sound files")["sound files"]
    assert (found.state, found.detail) == ("FAILED", "WAV is not read as written")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: 1.2 * z, "the mean of dz/da is 1.2"),
        (lambda z: z * jnp.where(z < 0.1, jnp.nan, 1), "is not finite"),
    ],
)
def test_a_wrong_gradient_of_the_gamma_is_told(monkeypatch, change, message):
    sample = Gamma.sample
    monkeypatch.setattr(Gamma, "sample", lambda self, key: change(sample(self, key)))
    (found,) = run_of("Gamma gradient")
    assert found.state == "FAILED"
    assert found.detail.startswith("SelfTestError: ")
    assert message in found.detail


@pytest.mark.parametrize(
    ("factor", "message"),
    [(1.1, None), (1.0, "changes nothing"), (np.nan, "not finite")],
)
def test_a_step_that_does_not_train_is_told(monkeypatch, factor, message):
    before = np.ones(3)
    step = (np.array(1.0), before, before * factor)
    monkeypatch.setattr(self_tests, "one_step", lambda: step)
    (found,) = run_of("training step")
    assert found.state == ("FAILED" if message else "ok")
    assert message is None or message in found.detail


def run_of(name):
    """The findings of one check, whatever it raises."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkup, "CHECKS", {name: CHECKS[name]})
        return list(examine())


@pytest.fixture
def extras(monkeypatch):
    """Let our package have these extras, and need these packages for them."""

    def replace(**needed):
        metadata = email.message.Message()
        for extra in needed:
            metadata["Provides-Extra"] = extra
        lines = [f'{p}>=1; extra == "{e}"' for e, ps in needed.items() for p in ps]
        monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
        monkeypatch.setattr(
            importlib.metadata, "requires", lambda name: ["numpy>=2", *lines]
        )

    return replace


def test_an_extra_is_optional_unless_it_is_there_and_broken(extras, monkeypatch):
    extras(some=["no-such-package", "rich"], other=["rich", "pooch"], test=["none"])
    found = look("extras")
    assert [f.state for f in found.values()] == ["ok", "ok"]
    assert found["extra: other"].detail == "installed"
    assert found["extra: some"].detail == (
        "optional; without no-such-package; to add: pip install 'gammavae-jax[some]'"
    )

    def broken(name):
        raise OSError("no such library")

    monkeypatch.setattr(importlib, "import_module", broken)
    broken_one = look("extras")["extra: other"]
    assert broken_one.state == "warning"
    assert broken_one.remedy == "pip install 'gammavae-jax[other]'"


def test_broken_packages_are_told_one_by_one_without_a_crash(tmp_path):
    """In a process of its own, where imports fail as they would."""
    for module in ("tensorflow_probability", "optax"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("raise ImportError('broken')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "gammavae_jax.cli.main", "doctor", "--json", "-"],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    findings = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    failed = {name for name, f in findings.items() if f["state"] == "FAILED"}
    assert failed == {"optax", "Gamma gradient", "training step"}
    probability = findings["TensorFlow Probability"]
    assert probability["state"] == "warning"
    assert "ImportError: broken; JAX draws the Gammas" in probability["detail"]
    assert probability["remedy"].startswith("pip uninstall -y tensorflow-probability")
    assert findings["devices"]["state"] == "ok"
