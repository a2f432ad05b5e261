"""The states of clips that say nothing about a machine's health."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.files import resampled
from gammavae_jax.data.conditions import conditions_of
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.recordings.clips import load_recordings
from gammavae_jax.data.recordings.sources import find_recordings
from gammavae_jax.data.states import State, state_of, states_of
from gammavae_jax.data.synthetic.machines import MACHINES, render

RATE = 16000
FEATURES = FeatureConfig()
BANK = mel_filterbank(FEATURES)
REAL = Path(os.environ.get("GAMMAVAE_RECORDINGS_DIR", ""))
REAL_MACHINES = ("realsound/droneCW", "realsound/engine", "realsound/washer")
REAL_MACHINES += ("mimii/slider", "mimii/valve")
real = pytest.mark.skipif(
    not (REAL / "realsound").is_dir() or not (REAL / "mimii").is_dir(),
    reason="no recordings of real machines: set GAMMAVAE_RECORDINGS_DIR",
)


def load(recordings, rate=RATE, clip_seconds=15.0):
    found = find_recordings(recordings, rate)
    return load_recordings(found, BANK, FEATURES, clip_seconds)


def states(recordings, conditions, rate=RATE, clip_seconds=15.0):
    """Return the states of recordings that are stored as 16-bit integers or floats."""
    return states_of(load(recordings, rate, clip_seconds), conditions, FEATURES)


def as_int16(waveform):
    return np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)


def floats(waveform):
    return np.asarray(waveform, np.float32)


def synthetic(name, seed, n_clips, is_anomaly=False):
    """Render clips of four seconds in all of a synthetic machine's conditions."""
    machine, rng = MACHINES[name], np.random.default_rng(seed)
    conditions = machine.source * 4 + machine.target
    return [
        render(machine, conditions[n % len(conditions)], 4 * RATE, rng, is_anomaly=of)
        for n, of in enumerate([is_anomaly] * n_clips)
    ]


def noise(like, level, slope=0.0):
    """Return noise at a level in dB below full scale; its power is `1 / f ** slope`."""
    n_samples = len(like)
    spectrum = np.fft.rfft(np.random.default_rng(n_samples).standard_normal(n_samples))
    spectrum /= np.maximum(np.fft.rfftfreq(n_samples, 1 / RATE), 20) ** (slope / 2)
    of_unit = np.fft.irfft(spectrum, n_samples)
    return of_unit * 10 ** (level / 20) / of_unit.std()


def started(x):
    """Let a machine start after a quarter of the clip, at 20 dB per second or more."""
    position = np.arange(len(x)) / len(x)
    gain = np.clip(240 * (position - 0.5), -90, 0)
    return x * 10 ** (gain / 20) + noise(x, -80)


def through(x, rate):
    return resampled(resampled(floats(x), RATE, rate), rate, RATE)


def hum(x):
    tone = np.sin(2 * np.pi * 50 * np.arange(len(x)) / RATE)
    return 1e-3 * tone + noise(x, -85)


# Each of these changes a recording so that it says nothing about the machine's health.
CHANGES = {
    "digital silence": (lambda x: as_int16(0 * x), State.NO_SIGNAL),
    "a constant": (lambda x: as_int16(0 * x + 0.01), State.NO_SIGNAL),
    "noise of one bit": (
        lambda x: np.random.default_rng(0).integers(-1, 2, len(x)).astype(np.int16),
        State.NO_SIGNAL,
    ),
    "mostly zeros": (
        lambda x: as_int16(np.where(np.arange(len(x)) < 0.97 * len(x), 0, x)),
        State.NO_SIGNAL,
    ),
    "white noise": (lambda x: as_int16(noise(x, -80)), State.OFF),
    "room noise": (lambda x: as_int16(noise(x, -75, 1.0)), State.OFF),
    "hum": (lambda x: as_int16(hum(x)), State.OFF),
    "60 dB quieter": (lambda x: floats(1e-3 * x), State.OFF),
    "50 dB louder": (lambda x: as_int16(300 * x), State.CLIPPED),
    "clipped": (lambda x: as_int16(np.clip(x, -x.std(), x.std())), State.CLIPPED),
    "at 8 kHz": (lambda x: as_int16(through(x, 8000)), State.OTHER_RATE),
    "at 8 kHz as floats": (lambda x: through(x, 8000), State.OTHER_RATE),
    "at 11 kHz": (lambda x: as_int16(through(x, 11025)), State.OTHER_RATE),
    "a start": (lambda x: as_int16(started(x)), State.STARTING),
    "a stop": (lambda x: as_int16(started(x)[::-1]), State.STOPPING),
}


def knocks(x):
    ring = np.exp(-np.arange(400) / 50) * np.sin(0.8 * np.arange(400))
    return 0.3 * np.convolve(np.arange(len(x)) % 4000 == 0, ring)[: len(x)]


def filtered(x, *args, **kwargs):
    sos = signal.butter(*args, **kwargs, fs=RATE, output="sos")
    return signal.sosfilt(sos, x)


# Each of these could be a fault: the score must count.
FAULTS = {
    "a tone": lambda x: x + 5 * x.std() * np.sin(1.3 * np.arange(len(x))),
    "hiss": lambda x: x + filtered(noise(x, 0), 4, 2500, "highpass") * 5 * x.std(),
    "white noise": lambda x: x + noise(x, 10) * x.std(),
    "loud white noise": lambda x: x + noise(x, 20) * x.std(),
    "rumble": lambda x: x + filtered(noise(x, 0), 4, 300) * 20 * x.std(),
    "knocks": lambda x: x + knocks(x),
    "few high frequencies": lambda x: filtered(x, 2, 1500),
    "few low frequencies": lambda x: filtered(x, 4, 1500, "highpass"),
    "one loud band": lambda x: x + 4 * filtered(x, 2, [900, 2200], "bandpass"),
    "a gap": lambda x: np.where(abs(np.arange(len(x)) / len(x) - 0.5) < 0.1, 0, x),
}


@pytest.fixture(scope="module", params=["ToyCar", "fan", "slider", "valve"])
def machine(request):
    """The conditions and some other clips of a synthetic machine."""
    train = load([as_int16(x) for x in synthetic(request.param, 1, 27)])
    conditions = conditions_of(train.clips, FEATURES)
    return request.param, conditions, synthetic(request.param, 2, 6)


@pytest.mark.parametrize("is_anomaly", [False, True])
def test_clips_of_a_running_machine_are_running_whether_healthy_or_not(
    machine, is_anomaly
):
    name, conditions, _ = machine
    clips = [as_int16(x) for x in synthetic(name, 3, 27, is_anomaly)]
    assert set(states(clips, conditions)) == {State.RUNNING}


@pytest.mark.parametrize("name", CHANGES)
def test_a_recording_without_information_has_its_state(machine, name):
    _, conditions, clips = machine
    change, expected = CHANGES[name]
    assert set(states([change(x) for x in clips], conditions)) == {expected}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_not_taken_for_a_state(machine, name):
    _, conditions, clips = machine
    faulty = [as_int16(FAULTS[name](x)) for x in clips]
    assert set(states(faulty, conditions)) == {State.RUNNING}


@pytest.mark.parametrize("decibels", [12, -12])
def test_a_changed_gain_is_recognised(machine, decibels):
    """A few clips are as quiet, or as loud, as others are with the other gain."""
    name, conditions, clips = machine
    found = states([as_int16(x * 10 ** (decibels / 20)) for x in clips], conditions)
    assert set(found) <= {State.GAIN_CHANGED, State.RUNNING}
    least = 1 if name == "valve" else 5  # the levels of a valve's clips vary by 10 dB
    assert found.count(State.GAIN_CHANGED) >= least


def test_recordings_from_48_khz_are_running(machine):
    """They lack the highest four of 128 bands; a note tells about their rate."""
    _, conditions, clips = machine
    at_48 = [resampled(floats(x), RATE, 48000) for x in clips]
    assert set(states(at_48, conditions, 48000)) == {State.RUNNING}


NOISE = [noise(np.zeros(n), -30, 0.7) for n in range(4 * RATE, 4 * RATE + 10)]
TRAINED = conditions_of(load([as_int16(x) for x in NOISE[:8]]).clips, FEATURES)


def test_loud_steady_noise_of_the_same_spectrum_is_no_changed_gain():
    """Unlike a changed gain, it covers the pulses of the machine."""
    pulses = [x * 10 ** (0.5 * np.sin(np.arange(len(x)) / 2000)) for x in NOISE]
    trained = conditions_of(load([as_int16(x) for x in pulses[:8]]).clips, FEATURES)
    noisy = [as_int16(pulses[8] + 5 * NOISE[9][: len(pulses[8])])]
    assert states(noisy, trained) == (State.RUNNING,)
    assert states([as_int16(4 * pulses[8])], trained) == (State.GAIN_CHANGED,)


def test_louder_noise_while_the_machine_is_off_is_no_start():
    rise = np.linspace(-95, -70, len(NOISE[0]))
    door = noise(NOISE[0], 0, 0.7) * 10 ** (rise / 20)
    assert states([floats(door), floats(door[::-1])], TRAINED) == ("off", "off")


def test_samples_are_measured_before_they_are_resampled():
    loud = [np.clip(resampled(floats(20 * x), RATE, 48000), -1, 1) for x in NOISE]
    one_bit = np.random.default_rng(0).integers(-1, 2, 12 * RATE).astype(np.int16)
    assert set(states([*loud, one_bit], TRAINED, 48000)) == {"clipped", "no signal"}


def test_each_clip_of_a_long_recording_has_its_own_state():
    pieces = [*NOISE[:1], 0 * NOISE[0], 1e-3 * NOISE[0], 4 * NOISE[0]]
    of_int16 = np.concatenate([as_int16(x) for x in pieces])
    found = states([of_int16], TRAINED, clip_seconds=4.0)
    assert found == ("running", "no signal", "off", "gain changed")
    # The clips are cut at another rate than the one at which samples are measured.
    at_24 = resampled(floats(of_int16 / 32768), RATE, 24000)
    assert states([at_24], TRAINED, 24000, 4.0)[1] == "no signal"


def test_a_machine_that_knocks_after_it_has_stopped_is_running():
    knocks = [as_int16(np.where(np.arange(len(x)) % 4000 < 400, x, 0)) for x in NOISE]
    assert set(states(knocks, TRAINED)) == {State.RUNNING}


def test_what_is_usual_in_training_clips_is_no_state():
    """Zeros, flat tops, pauses and missing bands may be usual."""
    cut_off = [through(x, 8000) for x in NOISE]
    half_silent = [np.where(np.arange(len(x)) < 0.6 * len(x), 0, x) for x in NOISE]
    clipped = [np.clip(x, -x.std(), x.std()) for x in NOISE]
    for usual in (cut_off, half_silent, clipped, [started(x) for x in NOISE]):
        stored = [as_int16(x) for x in usual]
        trained = conditions_of(load(stored[:8]).clips, FEATURES)
        assert set(states(stored, trained)) == {State.RUNNING}
        assert State.RUNNING not in states(stored, TRAINED)


def test_an_older_detector_still_recognises_a_missing_signal():
    for older in (None, TRAINED._replace(sound=None)):
        found = states([as_int16(x) for x in (NOISE[0], 0 * NOISE[0])], older)
        assert found == (State.RUNNING, State.NO_SIGNAL)


@pytest.mark.parametrize("n_frames", [1, 5, 16, 24])
@pytest.mark.parametrize("n_mels", [1, 5, 40])
def test_short_clips_and_few_bands_are_no_error(n_frames, n_mels):
    features = FeatureConfig(n_mels=n_mels, n_context=1)
    found = find_recordings([as_int16(x) for x in NOISE[:4]], RATE)
    bank = mel_filterbank(features)
    loaded = load_recordings(found, bank, features, None)
    conditions = conditions_of(loaded.clips, features)
    short = loaded.clips.log_mels[0][:n_frames]
    clip_signal = loaded.clips.signals[0]
    assert state_of(short, clip_signal, conditions, features) == State.RUNNING


@pytest.fixture(scope="module", params=REAL_MACHINES)
def real_machine(request):
    """The conditions of a real machine, its test clips, and six of its recordings."""
    folder = REAL / request.param
    trained = conditions_of(load(str(folder / "train")).clips, FEATURES)
    names = sorted((folder / "test").glob("*_normal_*"))
    some = names[:: len(names) // 6][:6]
    waveforms = [soundfile.read(path)[0] for path in some]
    return trained, load(str(folder / "test")), waveforms


@real
def test_all_test_clips_of_a_real_machine_are_running(real_machine):
    conditions, test, _ = real_machine
    assert set(states_of(test, conditions, FEATURES)) == {State.RUNNING}


@real
@pytest.mark.parametrize("name", CHANGES)
def test_a_real_recording_without_information_has_its_state(real_machine, name):
    conditions, _, clips = real_machine
    change, expected = CHANGES[name]
    assert set(states([change(x) for x in clips], conditions)) == {expected}


@real
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_real_machine_is_not_taken_for_a_state(real_machine, name):
    conditions, _, clips = real_machine
    faulty = [as_int16(FAULTS[name](x)) for x in clips]
    assert set(states(faulty, conditions)) == {State.RUNNING}


@real
def test_a_changed_gain_of_a_real_machine_is_recognised(real_machine):
    """Some clips stay in the range of levels, which are up to 25 dB apart."""
    conditions, _, clips = real_machine
    found = states([as_int16(8 * x) for x in clips], conditions)
    assert set(found) <= {State.GAIN_CHANGED, State.RUNNING}
    assert found.count(State.GAIN_CHANGED) >= 2
