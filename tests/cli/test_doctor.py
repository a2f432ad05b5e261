"""The doctor, with one thing broken at a time."""

import importlib
import importlib.metadata
import os
import sys
from types import SimpleNamespace

import jax
import pytest
from support.processes import GAMMAVAE, ROOT, python

from gammavae_jax.cli import doctor
from gammavae_jax.cli.doctor import CHECKS, Doctor
from gammavae_jax.models import distributions, gamma_sampler
from gammavae_jax.models.gamma_sampler import jax_sampler
from gammavae_jax.training import step


@pytest.fixture
def only(monkeypatch):
    """Replace all checks."""

    def replace(**checks):
        monkeypatch.setattr(doctor, "CHECKS", checks)

    return replace


def test_on_a_working_computer_nothing_fails_and_versions_are_listed(capsys):
    assert Doctor().run() == 0
    output = capsys.readouterr().out
    assert "FAILED" not in output
    for package in ("jax", "jaxlib", "flax", "orbax-checkpoint", "gammavae-jax"):
        assert f"{package} {importlib.metadata.version(package)}" in output
    assert "tfp-nightly" in output
    assert "libsndfile" in output


def test_a_check_that_raises_has_failed_and_the_next_check_still_runs(only, capsys):
    def broken():
        raise RuntimeError("two\nlines")

    only(broken=broken, sound=lambda: ("ok", "fine", ""))
    assert Doctor().run() == 1
    *lines, _ = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [
        ["FAILED", "broken", "RuntimeError: two lines"],
        ["ok", "sound", "fine"],
    ]


@pytest.mark.parametrize(
    ("states", "status", "last"),
    [
        (("ok",), 0, "all checks passed"),
        (("ok", "warning"), 0, "there are warnings"),
        (("FAILED", "warning", "FAILED"), 1, "fix the first failure"),
    ],
)
def test_the_exit_status_says_whether_a_check_failed(
    only, capsys, states, status, last
):
    results = [(state, "detail", "pip install x") for state in states]
    only(**{f"check {n}": lambda r=r: r for n, r in enumerate(results)})
    assert Doctor().run() == status
    *lines, end = capsys.readouterr().out.splitlines()
    assert end.startswith(last)
    assert [line.split()[0] for line in lines if line[0] != " "] == list(states)
    assert sum("remedy: pip install x" in line for line in lines) == len(states)


INSTEAD = "JAX draws the Gamma samples of model.sampler=tfp instead"
WANTED = "0.26.0.dev20261027"


@pytest.mark.parametrize(
    ("versions", "state", "words"),
    [
        ({"tfp_nightly": [WANTED, WANTED]}, "ok", f"tfp-nightly {WANTED}"),
        ({"tfp_nightly": ["0.1"]}, "warning", f"is not tfp-nightly=={WANTED}"),
        ({"tfp_nightly": [WANTED, "0.1"]}, "FAILED", "installed in the same folder"),
        ({"tensorflow_probability": ["0.25.0"]}, "warning", "probability 0.25.0"),
        (
            {"tensorflow_probability": ["0.25.0"], "tfp_nightly": [WANTED]},
            "FAILED",
            f"tensorflow-probability 0.25.0 and tfp-nightly {WANTED}",
        ),
    ],
)
def test_two_packages_in_one_folder_are_named_with_the_remedy(
    monkeypatch, versions, state, words
):
    monkeypatch.setattr(
        importlib.metadata,
        "distributions",
        lambda name: [
            SimpleNamespace(version=version)
            for version in versions.get(name.replace("-", "_"), ())
        ],
    )
    working = jax_sampler("")._replace(library="tensorflow-probability")
    monkeypatch.setattr(gamma_sampler, "gamma_sampler", lambda _: working)
    found, detail, remedy = CHECKS["TensorFlow Probability"]()
    assert found == state
    assert words in detail
    expected = "pip uninstall -y tensorflow-probability tfp-nightly && pip install "
    assert remedy == ("" if state == "ok" else f"{expected}'tfp-nightly=={WANTED}'")


def test_without_tfp_it_warns_that_jax_draws_and_training_still_works(monkeypatch):
    broken = jax_sampler("ImportError: gone")
    for module in (gamma_sampler, distributions):
        monkeypatch.setattr(module, "gamma_sampler", lambda _: broken)
    state, detail, remedy = CHECKS["TensorFlow Probability"]()
    assert state == "warning"
    assert detail.endswith(f"ImportError: gone; {INSTEAD}")
    assert remedy.startswith("pip uninstall -y tensorflow-probability tfp-")
    assert CHECKS["training step"]()[0] == "ok"


@pytest.mark.parametrize(
    ("package", "version", "state", "words"),
    [
        ("jax", "0.4.1", "warning", "jax 0.4.1"),
        ("pooch", None, "FAILED", "pooch is missing"),
    ],
)
def test_a_missing_or_unsupported_package_is_named_with_the_remedy(
    monkeypatch, package, version, state, words
):
    original = importlib.metadata.version

    def replaced(name):
        if name == package and version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version if name == package else original(name)

    monkeypatch.setattr(importlib.metadata, "version", replaced)
    found, detail, remedy = CHECKS["packages"]()
    assert found == state
    assert words in detail
    assert remedy.startswith(f"pip install '{package}")
    assert remedy.count("'") == 2


def test_an_unsupported_python_or_a_missing_installation_fails(monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    state, detail, remedy = CHECKS["packages"]()
    assert state == "FAILED"
    assert "Python 3.9.1" in detail
    assert remedy.startswith("create an environment with Python ")
    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    state, _, remedy = CHECKS["packages"]()
    assert state == "FAILED"
    assert remedy.endswith("pip install -e .")


def test_a_cache_that_cannot_be_written_fails_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    assert CHECKS["caches"]()[0] == "ok"
    assert list(tmp_path.iterdir()) == []

    def refuse(**kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    state, detail, remedy = CHECKS["caches"]()
    assert state == "FAILED"
    assert "Read-only file system" in detail
    assert "GAMMAVAE_CACHE_DIR" in remedy


def test_a_message_about_compiled_programs_is_a_warning_in_the_table(
    monkeypatch, capsys
):
    monkeypatch.setattr(
        "gammavae_jax.process.keep_compiled_programs",
        lambda: print("'x': not kept", file=sys.stderr),
    )
    assert CHECKS["caches"]() == ("warning", "'x': not kept", "")
    assert capsys.readouterr() == ("", "")


def test_a_graphics_card_that_jax_does_not_use_is_a_warning(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    state, _, remedy = CHECKS["devices"]()
    assert (state, remedy) == ("warning", "pip install 'gammavae-jax[cuda]'")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert CHECKS["devices"]()[0] == "ok"


def test_sound_files_that_change_when_read_fail(monkeypatch):
    soundfile = importlib.import_module("soundfile")
    read = soundfile.read
    monkeypatch.setattr(soundfile, "read", lambda *a, **k: (read(*a, **k)[0] + 1, 0))
    problem = "WAV samples were not read back as written"
    assert CHECKS["sound files"]()[:2] == ("FAILED", problem)


@pytest.mark.parametrize(
    ("factor", "message"), [(1.0, "no parameter changed"), (float("nan"), "not finite")]
)
def test_a_step_that_does_not_train_fails(monkeypatch, factor, message):
    def spoiled(config, key, state, windows, weight):
        params = jax.tree.map(lambda leaf: leaf * factor, state.params)
        return state._replace(params=params), None

    monkeypatch.setattr(step, "train_step", spoiled)
    state, detail, _ = CHECKS["training step"]()
    assert state == "FAILED"
    assert message in detail


def test_broken_packages_are_reported_one_by_one_without_a_crash(tmp_path):
    """In a process of its own, where imports really fail."""
    for module in ("tensorflow_probability", "optax"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("raise ImportError('broken')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = python(*GAMMAVAE, "doctor", check=False, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    failed = [n for n in done.stdout.splitlines() if n.startswith("FAILED")]
    assert [line.split() for line in failed] == [
        ["FAILED", "training", "step", "ImportError:", "broken"]
    ]
    assert f"ImportError: broken; {INSTEAD}" in done.stdout
    assert "ok       devices" in done.stdout


def test_a_missing_device_ends_the_checks_that_need_one(monkeypatch, capsys):
    def missing():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "local_devices", missing)
    assert Doctor().run() == 1
    *before, last, _ = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("FAILED") for line in before)
    assert last.startswith("FAILED   devices")
    assert "JAX finds no usable device for JAX_PLATFORMS" in last
    assert "set JAX_PLATFORMS=cpu" in last


def test_a_user_without_a_home_is_a_warning(monkeypatch):
    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GAMMAVAE_CACHE_DIR", raising=False)
    monkeypatch.setattr("pooch.os_cache", homeless)
    state, detail, _ = CHECKS["caches"]()
    assert state == "warning"
    assert "set HOME or GAMMAVAE_CACHE_DIR" in detail
