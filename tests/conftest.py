"""Fixtures for all tests: random keys, tiny configurations and shared data."""

import os
import shutil
import signal
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import settings
from support import broken_server
from support.main_job import FOUR_EPOCHS, run_all, two_machines

from gammavae_jax.cli.main import main
from gammavae_jax.config import Config
from gammavae_jax.config_json import override
from gammavae_jax.presets import preset

# JAX reads this when it first looks for devices, not when it is imported.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

# Use the same examples every time, so that failures are reproducible. To search for new
# ones, pass `--hypothesis-profile=default`.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
# With `GAMMAVAE_BLOCK_TFP=1`, neither the tests nor the processes that they start can
# import TensorFlow Probability. Nothing above imports it.
if os.environ.get("GAMMAVAE_BLOCK_TFP"):
    blocked = str(Path(__file__).parent / "blocked")
    sys.path.insert(0, blocked)
    paths = [blocked, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)

TINY = [
    "model.hidden=[16]",
    "model.n_latent=4",
    "train.batch_size=32",
    "train.n_folds=2",
]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Let all tests, and the processes that they start, share a temporary cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        yield


@pytest.fixture
def key():
    """Return a function that returns a new random key at each call."""
    state = [jax.random.key(0)]

    def fresh():
        state[0], new = jax.random.split(state[0])
        return new

    return fresh


@pytest.fixture
def tiny():
    """Return a function that makes a small configuration of a preset."""

    def make(name: str = "default", *assignments: str) -> Config:
        return override(preset(name), [*TINY, *assignments])

    return make


@pytest.fixture
def golden() -> Path:
    """Return the folder of golden numbers, which `GAMMAVAE_GOLDEN_DIR` may replace."""
    default = Path(__file__).parent / "golden"
    return Path(os.environ.get("GAMMAVAE_GOLDEN_DIR", default))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Create two synthetic machines of different sizes and lengths."""
    return two_machines(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="session")
def finished_run(data, tmp_path_factory):
    """Run two seeds for four epochs; return the run's folder and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run_all(data, out, *FOUR_EPOCHS).stdout


@pytest.fixture(scope="session")
def finished(finished_run) -> Path:
    """Return the folder of a run of two seeds and four epochs."""
    return finished_run[0]


@pytest.fixture
def copied(data, tmp_path) -> Path:
    """Return a copy of the data that a test may change."""
    return Path(shutil.copytree(data, tmp_path / "data"))


@pytest.fixture(scope="module")
def one_device():
    """Use one device, because programs are compiled for each device."""
    one = jax.local_devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: one)
        yield


@pytest.fixture
def server():
    """Start a server of files that fails as the test requests."""
    with broken_server.running() as server:
        yield server


@pytest.fixture
def refusal(capsys):
    """Return a function that runs a command that fails, and returns its error line."""

    def of(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([*map(str, arguments)])
        assert caught.value.code == 2
        output = capsys.readouterr()
        *_, last = output.err.splitlines()
        assert last.startswith("error: ")
        assert "Traceback" not in output.err
        return last

    return of


@pytest.fixture
def heeded_interrupts():
    """Handle interrupts even if this process was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
