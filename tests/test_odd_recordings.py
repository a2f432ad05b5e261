"""Every bad or odd recording meets what was decided, at every door."""

import numpy as np
import pytest
from odd_recordings import AS_BYTES, N, ODD, RATE, Heard, table

from gammavae_jax.audio import open_recording, read_clip, read_recording
from gammavae_jax.errors import InputError, printable


def test_the_table_is_long_and_has_both_kinds():
    refused = sum(isinstance(odd.run, str) for odd in ODD.values())
    assert len(ODD) >= 40
    assert refused >= 20
    assert len(ODD) - refused >= 20


def expect(outcome, read, name):
    """That reading gives the sound, or is refused in one printable line."""
    if isinstance(outcome, Heard):
        found = read()
        assert found.dtype == np.float32
        assert found.shape == outcome.waveform.shape
        np.testing.assert_allclose(
            found, outcome.waveform, rtol=0, atol=outcome.tolerance
        )
        return
    with pytest.raises(InputError) as caught:
        read()
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert text.isprintable()
    assert outcome in text


def blocks_of(source, **options):
    with open_recording(source, **options) as recording:
        return np.concatenate(list(recording.blocks))


@pytest.mark.parametrize("what", ODD)
def test_an_odd_recording_is_read_or_refused_as_was_decided(tmp_path, what):
    odd = ODD[what]
    path = odd.make(tmp_path)
    name = printable(path)
    expect(odd.run, lambda: read_clip(path, sample_rate=RATE), name)
    expect(odd.own, lambda: read_recording(path).waveform, name)
    expect(odd.own, lambda: blocks_of(path), name)


@pytest.mark.parametrize("what", AS_BYTES)
def test_an_odd_recording_that_is_posted_meets_the_same(what):
    outcome, data = ODD[what].own, AS_BYTES[what]
    if isinstance(outcome, str) and data[:4] not in (b"RIFF", b"RIFX", b"RF64", b"fLaC"):
        outcome = "this is neither WAV nor FLAC"
    expect(outcome, lambda: blocks_of(data, name="posted"), "posted")
