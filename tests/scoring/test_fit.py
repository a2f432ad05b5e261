"""The memory and the threads that the pipeline from clips to a detector uses."""

import threading
import weakref

import jax
import numpy as np
import pytest
from support.detectors import small
from support.probes import crowd

from gammavae_jax import train_machines
from gammavae_jax.config_json import override
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.loading import Machines
from gammavae_jax.errors import InputError
from gammavae_jax.scoring import fit as fits
from gammavae_jax.training.examples import stack_examples
from gammavae_jax.training.loop import Observer


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


CONFIG = small("vae", "train.epochs=2", "train.batching=map", 'scores=["mse"]')


def machines_of(config):
    machines = crowd(np.random.default_rng(0), counts=(6,))
    names = tuple(tuple(name.split("_section_")) for name, _ in machines)
    return Machines(names, mel_filterbank(config.features), machines, [])  # pyright: ignore


def misaligned(array):
    """Return a copy that devices cannot use in place, and the buffer that holds it."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    first = -memory.ctypes.data % 64 + array.itemsize
    copy = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy, weakref.ref(memory)


@pytest.fixture
def model_threads():
    """Return a function that lists the threads that this test started for models."""
    before = set(threading.enumerate())  # another test may still use its placement

    def started():
        threads = set(threading.enumerate()) - before
        return [t for t in threads if t.name.startswith("models")]

    return started


def test_the_stacked_clips_on_the_host_are_freed_before_training(monkeypatch):
    on_host = []

    def stacked(*args):
        examples = stack_examples(*args)
        copy, memory = misaligned(examples.arrays.window_start)
        on_host.append(memory)
        return examples._replace(arrays=examples.arrays._replace(window_start=copy))

    def no_training(config, examples, observer):
        assert on_host[0]() is None
        raise InputError("enough")

    monkeypatch.setattr(fits, "stack_examples", stacked)
    monkeypatch.setattr(fits, "train_examples", no_training)
    with pytest.raises(InputError, match="enough"):
        fits.fit(CONFIG, machines_of(CONFIG))
    assert len(on_host) == 1


def test_no_thread_is_left_after_training_or_fitting(model_threads):
    machines = machines_of(CONFIG)
    trained = train_machines(CONFIG, machines.train)
    assert not model_threads()
    for _ in range(2):  # the models can be used again
        detector = fits.fit_detector(CONFIG, trained, machines)
        assert not model_threads()
        assert np.isfinite(detector.thresholds["mse"]).all()


def test_a_training_that_fails_leaves_no_thread(model_threads):
    class Failing(Observer):
        def on_epoch(self, epoch, info):
            assert model_threads()
            raise InputError("no space left")

    with pytest.raises(InputError, match="no space"):
        train_machines(CONFIG, machines_of(CONFIG).train, Failing())
    assert not model_threads()


@pytest.mark.parametrize("threshold", ["conformal", "official"])
def test_loaded_clips_are_released_and_too_few_are_noted(monkeypatch, threshold):
    """The official threshold does not depend on the number of held-out clips."""

    def no_training(config, examples, observer):
        raise InputError("enough")

    monkeypatch.setattr(fits, "train_examples", no_training)
    config = override(CONFIG, [f"scoring.threshold={threshold}"])
    machines, observer = machines_of(config), Observer()
    with pytest.raises(InputError, match="enough"):
        fits.fit(config, machines, observer)
    assert not machines.train
    is_noted = any("Too few training clips" in note for note in observer.log.notes)
    assert is_noted == (threshold == "conformal")
