"""Recorded conditions, and how new recordings differ from them."""

import re

import numpy as np
import pytest
import soundfile

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.conditions import conditions_of, notes_on
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.recordings.clips import load_recordings
from gammavae_jax.data.recordings.sources import find_recordings

RATE = 16000
FEATURES = FeatureConfig()
BANK = mel_filterbank(FEATURES)


def noise(seed, seconds=2.0, gain=1.0, rate=RATE):
    rng = np.random.default_rng(seed)
    return (0.05 * gain * rng.standard_normal(round(seconds * rate))).astype(np.float32)


def load(recordings, rate=RATE):
    return load_recordings(find_recordings(recordings, rate), BANK, FEATURES, 10.0)


TRAINED = {"fan": conditions_of(load([noise(s) for s in range(4)]).clips, FEATURES)}


def notes(recordings, rate=RATE, trained=TRAINED, features=FEATURES):
    return notes_on({"fan": load(recordings, rate).recorded}, trained, features)


def files(folder, channels, names="abc"):
    for name in names:
        soundfile.write(folder / f"{name}.wav", np.stack(channels, 1), RATE, "PCM_16")
    return folder


@pytest.mark.parametrize(
    "recordings",
    [
        [noise(9)],
        [noise(9, 1.6), noise(8, 3.0)],
        [noise(9, gain=1.5), noise(8, gain=0.6)],
        # One broken machine of three is much louder.
        [noise(9), noise(8), noise(7, gain=8)],
        [noise(s, gain=1.26) for s in range(9)],  # 2 dB
        [noise(s, gain=1.05) for s in range(10)],  # 0.4 dB
        [*(noise(s, gain=1.26) for s in range(5)), *(noise(s) for s in range(5))],
    ],
    ids=[
        *("alike", "about the length", "about the level", "one is loud"),
        *("few are a little louder", "hardly louder", "half are louder"),
    ],
)
def test_recordings_like_those_of_the_training_give_no_note(recordings):
    assert notes(recordings) == {}


def test_many_clips_of_one_recording_do_not_count_as_many_recordings():
    (source,) = find_recordings([noise(9, 20.0, gain=1.26)], RATE)
    loaded = load_recordings([source], BANK, FEATURES, 2.0)
    assert len(loaded.clips.log_mels) == 10
    assert notes_on({"fan": loaded.recorded}, TRAINED, FEATURES) == {}


@pytest.mark.parametrize(
    ("recordings", "kind", "message"),
    [
        ([noise(9, 1.0)], "shorter", "clips of 0.99 s are shorter .*(2 s)"),
        ([noise(9), noise(8, 0.5)], "shorter", "record clips of 2 s, or fit"),
        ([noise(9, 6.0)], "longer", "6 s are longer .*missed anomalies"),
        ([noise(s, gain=0.1) for s in (8, 9)], "quieter", "20 dB quieter .* gain"),
        ([noise(9, gain=4)], "louder", "12 dB louder"),
        ([noise(9), noise(8), noise(7, gain=0)], "quieter", "dB quieter"),
        ([noise(9), noise(8), noise(7, gain=100)], "louder", "40 dB louder"),
        ([noise(s, gain=1.26) for s in range(10)], "slightly louder", "most .* louder"),
        (
            [noise(s, gain=0.8) for s in range(10)],
            "slightly quieter",
            "most .* quieter",
        ),
        (
            [*(noise(s, gain=0.8) for s in range(9)), noise(9, gain=32)],
            *("louder", "30 dB louder"),
        ),
    ],
)
def test_another_length_or_level_is_told_with_the_remedy(recordings, kind, message):
    ((found, note),) = notes(recordings).items()
    assert found == f"{kind} fan"
    assert re.search(message, note)


def test_a_long_recording_counts_as_much_as_a_short_one_for_the_usual_level():
    """The long recording is cut into more clips than there are short recordings."""
    found = notes([*map(noise, range(9)), noise(9, seconds=120.0, gain=1.26)])
    assert list(found) == ["longer fan"]


def test_a_sample_rate_is_compared_with_that_of_the_training():
    at_48 = load([noise(s, rate=48000) for s in range(4)], 48000)
    trained = {"fan": conditions_of(at_48.clips, FEATURES)}
    assert notes([noise(9, rate=48000)], 48000, trained) == {}
    assert (
        "at 16000 Hz differ from the training recordings (48000 Hz)"
        in (notes([noise(9)], trained=trained)["rate 16000"])
    )
    assert (
        "at 8000 Hz are resampled to 16000 Hz"
        in (notes([noise(9, rate=8000)], 8000)["rate 8000"])
    )
    # A detector that recorded no conditions still knows the rate of its features.
    assert list(notes([noise(9, rate=48000)], 48000, {})) == ["rate 48000"]


@pytest.mark.parametrize(
    ("gain", "n", "rate"), [(1.0, 1, 8000), (0.1, 1, 8000), (0.75, 10, 15000)]
)
def test_bands_that_a_low_sample_rate_lacks_are_not_blamed_on_the_gain(gain, n, rate):
    found = notes([noise(s, gain=gain, rate=rate) for s in range(n)], rate)
    assert list(found) == [f"rate {rate}"]


LSB = np.random.default_rng(0).integers(-1, 2, 2 * RATE) / 32768


@pytest.mark.parametrize(
    ("channels", "loudest"),
    [
        ([LSB, noise(9)], 1),
        ([np.zeros(2 * RATE), noise(9)], 1),
        ([np.full(2 * RATE, 0.25), noise(9, gain=0.1)], 1),  # a constant offset
        ([LSB, noise(9, gain=0.1), noise(8)], 2),
    ],
    ids=["noise of one bit", "digital silence", "an offset", "three channels"],
)
def test_a_dead_channel_beside_a_live_one_is_told(tmp_path, channels, loudest):
    (note,) = notes(files(tmp_path, channels), trained={}).values()
    assert note.startswith("channel 0 is nearly silent in 3 of 3 recordings")
    assert note.endswith(f"fit with features.channel={loudest}")


def test_the_level_of_a_dead_channel_is_not_blamed_on_the_gain(tmp_path):
    live = files(tmp_path, [noise(9), noise(8)])
    trained = {"fan": conditions_of(load(live).clips, FEATURES)}
    found = notes(files(tmp_path, [LSB, noise(8)]), trained=trained)
    assert list(found) == ["dead fan"]


@pytest.mark.parametrize(
    "channels",
    [
        [noise(9), LSB],
        [noise(9), noise(8, gain=10)],
        [np.zeros(2 * RATE)] * 2,
        [noise(9, gain=0)],
    ],
)
def test_channels_that_hear_the_machine_and_silence_give_no_note(tmp_path, channels):
    assert notes(files(tmp_path, channels), trained={}) == {}


def test_a_dead_reference_channel_is_told(tmp_path):
    features = FeatureConfig(reference_channel=1)
    recordings = files(tmp_path, [noise(9), LSB])
    (note,) = notes(recordings, trained={}, features=features).values()
    assert note.startswith("reference channel 1 is nearly silent in 3 of 3 recordings")
    assert note.endswith("or fit without features.reference_channel")
    swapped = FeatureConfig(channel=1, reference_channel=0)
    (note,) = notes(recordings, trained={}, features=swapped).values()
    assert note.startswith("channel 1 is nearly silent in 3 of 3 recordings")
    assert note.endswith("or swap features.channel and features.reference_channel")


def test_another_number_of_channels_is_told(tmp_path):
    both = files(tmp_path, [noise(9), noise(8)])
    trained = {"fan": conditions_of(load(both).clips, FEATURES)}
    assert notes(both, trained=trained) == {}
    (tmp_path / "mono").mkdir()
    mono = files(tmp_path / "mono", [noise(9)])
    (note,) = notes(mono, trained=trained).values()
    assert "channels is 1, not 2 as in training: channel 0 is used" in note
    pair = FeatureConfig(reference_channel=1)
    (note,) = notes(mono, trained=trained, features=pair).values()
    assert "not 2 as in training: channels 0 and 1 are used" in note
    # An array has no channels.
    assert notes([noise(9)], trained=trained) == {}


def test_a_channel_with_any_floats_disturbs_no_other(tmp_path):
    odd = np.resize([np.nan, np.inf, 1e38, 0], 2 * RATE)
    samples = np.stack([noise(9), odd], 1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    assert notes(tmp_path) == {}
