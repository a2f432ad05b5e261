"""A clip's sound on a page."""

import io

import numpy as np
import pytest
import soundfile

from gammavae_jax.report.pictures import encode_clip


@pytest.mark.parametrize(
    ("rate", "media_type"),
    [(16000, "audio/mpeg"), (48000, "audio/mpeg"), (1234, "audio/wav")],
)
def test_an_encoded_clip_sounds_the_same(rate, media_type):
    """A tone keeps its frequency and level; MP3 is used if it supports the rate."""
    seconds, hertz = 2, rate / 16
    tone = np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate) / 2
    data, actual_type = encode_clip(tone.astype(np.float32), rate)
    assert actual_type == media_type
    decoded, decoded_rate = soundfile.read(io.BytesIO(data))
    assert decoded_rate == rate
    assert len(decoded) == pytest.approx(len(tone), abs=3000)
    middle = decoded[len(decoded) // 4 : -len(decoded) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * rate / len(middle) == pytest.approx(hertz, rel=0.01)
    assert middle.std() == pytest.approx(tone.std(), rel=0.1)
    if media_type == "audio/mpeg":
        assert len(data) < 8000 * seconds
