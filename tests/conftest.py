"""What all tests share: keys, tiny configurations, folders of golden numbers."""

import os
import signal
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import settings

from gammavae_jax.config import Config
from gammavae_jax.config_json import override
from gammavae_jax.presets import preset

# Read when JAX first looks for devices, which no import does.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

# The same examples every time: what fails here fails there. To look for new ones, give
# `--hypothesis-profile=default`.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
# With `GAMMAVAE_BLOCK_TFP=1` the tests, and the processes that they start, find
# TensorFlow Probability broken. Nothing above has imported it.
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
    """No test touches the user's cache folder; processes that tests start share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        yield


@pytest.fixture
def key():
    """Fresh keys: each call gives one that no other call of the test gave."""
    state = [jax.random.key(0)]

    def fresh():
        state[0], new = jax.random.split(state[0])
        return new

    return fresh


@pytest.fixture
def tiny():
    """A small configuration of a preset, with more assignments if given."""

    def make(name: str = "default", *assignments: str) -> Config:
        return override(preset(name), [*TINY, *assignments])

    return make


@pytest.fixture
def golden() -> Path:
    """The folder of golden numbers; another one of that form may be named."""
    default = Path(__file__).parent / "golden"
    return Path(os.environ.get("GAMMAVAE_GOLDEN_DIR", default))


@pytest.fixture
def heeded_interrupts():
    """What a shell starts in the background ignores them, and so would its child."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
