import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jax
import pooch
import pytest

from gammavae_jax import process
from gammavae_jax.cli.shared import models_in_checkpoint
from gammavae_jax.config_json import override, to_dict
from gammavae_jax.data.synthetic.dataset import synthetic_root
from gammavae_jax.devices.local import local_devices
from gammavae_jax.errors import InputError
from gammavae_jax.presets import preset
from gammavae_jax.process import (
    available_cores,
    cache_folder,
    give_cores_to_models,
    keep_compiled_programs,
    limit_blas_threads,
)

ALL_THREADS = "--xla_cpu_multi_thread_eigen=true"
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


@pytest.fixture
def flags(monkeypatch):
    """Return XLA's flags after a call, on four cores and before JAX is imported."""
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setattr(process, "available_cores", lambda: 4)

    def after(n_models, before=None):
        monkeypatch.delenv("XLA_FLAGS", raising=False)
        if before is not None:
            monkeypatch.setenv("XLA_FLAGS", before)
        give_cores_to_models(n_models)
        return os.environ.get("XLA_FLAGS", "").split()

    return after


@pytest.mark.parametrize(
    ("n_models", "n_cores", "before", "after"),
    [
        (2, 4, None, [ONE_THREAD]),
        (35, 4, None, [ONE_THREAD]),
        (0, 4, None, []),
        (1, 4, None, []),
        (7, 1, None, []),
        (2, 4, "--xla_dump_to=x", ["--xla_dump_to=x", ONE_THREAD]),
        (7, 4, ALL_THREADS, [ALL_THREADS]),
    ],
)
def test_only_several_models_on_several_cores_get_one_thread_each(
    flags, monkeypatch, n_models, n_cores, before, after
):
    """Flags that the user has set are kept."""
    monkeypatch.setattr(process, "available_cores", lambda: n_cores)
    assert flags(n_models, before) == after


def test_flags_stay_the_same_once_jax_is_imported(flags, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
    assert flags(7) == []


def test_a_thread_limit_of_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    limit_blas_threads()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    limit_blas_threads()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


def test_at_least_one_core_is_available():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("preset_name", "n_models"), [("default", 2 * 3 * 5), ("paper", 2 * 3)]
)
def test_the_models_of_a_checkpoint_are_machines_times_members(
    tmp_path, preset_name, n_models
):
    config = override(preset(preset_name), ["n_seeds=3"])
    about = {"machines": [["fan", "00"], ["fan", "01"]], "config": to_dict(config)}
    (tmp_path / "detector.json").write_text(json.dumps(about))
    assert models_in_checkpoint(tmp_path) == n_models == 2 * config.n_members


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"machines": [1, 2], "config": {"n_seeds": 1}}',
        '{"machines": [1, 2], "config": {"n_seeds": 1, "train": {"split": "folds"}}}',
        '{"machines": 2, "config": {"n_seeds": 1, "train": {"split": "clip"}}}',
        '{"machines": [1, 2], "config": {"n_seeds": null, "train": {"split": "clip"}}}',
        '{"machines": [1, 2], "config": {"n_seeds": "2x", "train": {"split": "clip"}}}',
        "\xff",
    ],
)
def test_a_missing_or_damaged_checkpoint_counts_as_one_model(tmp_path, text):
    """A later step, which reads the checkpoint, reports the error."""
    if text is not None:
        (tmp_path / "detector.json").write_bytes(text.encode("latin-1"))
    assert models_in_checkpoint(tmp_path) == 1


CACHE, SECONDS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Return the folder of compiled programs, before JAX is imported."""
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path / "cache"))
    for name in (CACHE, SECONDS):
        monkeypatch.setenv(name, "")  # so that the end of the test restores it
        monkeypatch.delenv(name)
    return tmp_path / "cache" / "compiled"


def test_compiled_programs_are_cached_in_a_private_folder(compiled, capsys):
    keep_compiled_programs()
    assert os.environ[CACHE] == str(compiled)
    assert 0 < float(os.environ[SECONDS]) < 1
    assert compiled.stat().st_mode & 0o777 == 0o700
    assert list(compiled.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("given", "left"), [("elsewhere", "elsewhere"), ("", None)])
def test_a_cache_of_the_user_is_kept_and_an_empty_name_disables_it(
    compiled, monkeypatch, given, left
):
    monkeypatch.setenv(CACHE, given)
    keep_compiled_programs()
    assert os.environ.get(CACHE) == left
    assert SECONDS not in os.environ
    assert not compiled.exists()


def test_a_minimum_compile_time_of_the_user_is_kept(compiled, monkeypatch):
    monkeypatch.setenv(SECONDS, "7")
    keep_compiled_programs()
    assert os.environ[SECONDS] == "7"


def test_the_cache_stays_off_once_jax_is_imported(compiled, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
    keep_compiled_programs()
    assert CACHE not in os.environ


@pytest.mark.parametrize(
    ("version", "is_cached"),
    [("0.10.1", False), ("0.9.2", False), ("0.10.2", True), ("0.11.0rc1", True)],
)
def test_jax_releases_with_a_faulty_cache_do_not_use_it(
    compiled, monkeypatch, version, is_cached
):
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    keep_compiled_programs()
    assert (CACHE in os.environ) == is_cached


def test_an_unwritable_cache_folder_gives_one_line(compiled, capsys):
    compiled.parent.write_text("in the way")
    keep_compiled_programs()
    assert CACHE not in os.environ
    error = capsys.readouterr().err
    assert error.startswith(f"cannot cache compiled programs in {str(compiled)!r}")
    assert error.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="file modes need POSIX")
def test_a_cache_folder_that_others_may_write_is_not_used(compiled, capsys):
    """Anyone who may write to the folder can run code as this user."""
    compiled.mkdir(parents=True)
    compiled.chmod(0o770)
    keep_compiled_programs()
    assert CACHE not in os.environ
    assert "other users may write to it" in capsys.readouterr().err


def test_the_oldest_compiled_programs_are_removed(compiled, monkeypatch):
    monkeypatch.setattr(process, "_MAX_PROGRAMS", 3)
    compiled.mkdir(mode=0o700, parents=True)
    for age in (4, 0, 2, 3, 1):
        path = compiled / f"{age}-cache"
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    (compiled / "else").touch()
    keep_compiled_programs()
    left = {path.name for path in compiled.iterdir()}
    assert left == {"0-cache", "1-cache", "2-cache", "else"}


def test_the_cache_folder_can_be_set_by_the_user(monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda name: Path("/cache") / name)
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", "~/mine")
    assert cache_folder() == Path("~/mine").expanduser()
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", "")
    assert cache_folder() == Path("/cache/gammavae_jax")


@pytest.fixture
def homeless(monkeypatch):
    """Simulate a user without HOME and without an entry in passwd."""
    for name in ("HOME", "GAMMAVAE_CACHE_DIR", "XDG_CACHE_HOME", CACHE):
        monkeypatch.setenv(name, "x")  # so that the end of the test restores it
        monkeypatch.delenv(name)

    def unknown(_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delitem(sys.modules, "jax", raising=False)


def test_without_a_home_one_line_names_the_variables_to_set(homeless, capsys):
    with pytest.raises(InputError, match="set HOME or GAMMAVAE_CACHE_DIR"):
        cache_folder()
    with pytest.raises(InputError, match="set HOME or GAMMAVAE_CACHE_DIR"):
        synthetic_root()
    keep_compiled_programs()
    assert CACHE not in os.environ
    error = capsys.readouterr().err
    assert error.startswith("compiled programs are not cached: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("Unable to initialize:\n 'cuda'"),
            "Unable to initialize: 'cuda'",
        ),
        (AssertionError(), "no reason given"),
    ],
)
def test_a_missing_device_is_named_with_the_remedy(monkeypatch, error, reason):
    def missing():
        raise error

    monkeypatch.setattr(jax, "local_devices", missing)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(InputError, match="set JAX_PLATFORMS=cpu") as caught:
        local_devices()
    assert f"no usable device for JAX_PLATFORMS=cuda ({reason}): set" in str(
        caught.value
    )


FORKING = """
import os, sys
import jax
from gammavae_jax.errors import InputError
from gammavae_jax.devices.local import local_devices
def child():
    if os.fork():
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        return
    try:
        local_devices()
    except InputError as error:
        os._exit(2 * ("spawn" in str(error)))
    os._exit(0)
child()
jax.numpy.ones(3).sum()
child()
local_devices()
"""


def test_only_a_process_forked_after_jax_has_started_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["0", "2"], done.stderr
    assert done.returncode == 0
