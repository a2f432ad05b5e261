"""Reading block by block gives the same samples and refusals as reading whole."""

import io
import itertools

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from gammavae_jax.data import audio
from gammavae_jax.data.audio import (
    open_recording,
    read_recording,
    resampled,
    resampled_blocks,
)
from gammavae_jax.errors import InputError

RATE = 16000
N = 300_000  # more than one block


def noise(n=N, n_channels=2):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (n, n_channels))
    return samples.astype(np.float32)


def read(source, **options):
    """Return the joined blocks; assert that each has a bounded length."""
    with open_recording(source, **options) as recording:
        blocks = list(recording.blocks)
    assert max(map(len, blocks)) <= audio._BLOCK
    return np.concatenate(blocks), recording.sample_rate


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("channel", [0, 1, (0, 1), (1, 0)], ids=str)
def test_blocks_add_up_to_the_recording(tmp_path, suffix, subtype, channel):
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, noise(), RATE, subtype=subtype)
    expected = read_recording(path, channel)
    assert expected.waveform.ndim == 2 or expected.waveform.flags.c_contiguous
    np.testing.assert_allclose(expected.waveform, noise()[:, channel], atol=2**-14)
    for source in (path, path.read_bytes()):
        samples, rate = read(source, channel=channel, name="x")
        np.testing.assert_array_equal(samples, expected.waveform, strict=True)
        assert rate == expected.sample_rate


def wav(samples, subtype="FLOAT", rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def test_a_sample_that_is_not_finite_is_refused_with_its_position():
    samples = noise(n_channels=1)
    samples[N - 5] = np.inf
    with pytest.raises(InputError, match=f"^x: sample {N - 5} is inf: repair"):
        read(wav(samples), name="x")


def test_a_sample_of_the_reference_that_is_not_finite_is_refused_with_its_position():
    samples = noise()
    samples[N - 5, 1] = np.nan
    read(wav(samples), name="x")  # the second channel is not used
    with pytest.raises(InputError, match=f"^x: sample {N - 5} is nan: repair"):
        read(wav(samples), name="x", channel=(0, 1))


def test_a_truncated_recording_is_refused_before_a_sample_is_read(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(wav(noise())[:-100])
    with (
        pytest.raises(InputError, match=r"x\.wav: truncated: the header claims 300000"),
        open_recording(path),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    ("data", "channel", "message"),
    [
        (b"", 0, "^x: this is neither WAV nor FLAC: convert it to WAV$"),
        (wav(noise()), 2, "^x: there is no channel 2 in this file: choose"),
        (wav(noise()), (0, 2), "^x: there is no reference channel 2 in this file"),
        (wav(noise(9), rate=999), 0, "rate of 999 Hz is implausible: replace"),
    ],
    # Files contain timestamps, and all test processes must collect the same test ids.
    ids=itertools.count(),
)
def test_bytes_that_are_not_a_recording_are_refused(data, channel, message):
    with pytest.raises(InputError, match=message):
        read(data, channel=channel, name="x")


@settings(max_examples=25)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 44100, 48000]),
    size=st.integers(1, 30_000),
    n=st.integers(2000, 60_000),
    channel=st.sampled_from([0, (0, 1)]),
)
def test_blocks_are_resampled_like_the_whole_recording(rate, size, n, channel):
    samples = noise(n)[:, channel]
    blocks = [samples[i : i + size] for i in range(0, n, size)]
    together = np.concatenate(list(resampled_blocks(blocks, rate, RATE)))
    whole = resampled(samples, rate, RATE)
    assert abs(len(together) - len(whole)) <= 1
    shorter = min(len(together), len(whole))
    np.testing.assert_allclose(together[:shorter], whole[:shorter], atol=1e-4)
