"""Files, streams and arrays of float samples have the right scale or are refused."""

import io

import numpy as np
import pytest
import soundfile

from gammavae_jax.data.audio import open_recording, read_clip, read_recording
from gammavae_jax.data.sample_arrays import waveform_of
from gammavae_jax.errors import InputError

RATE = 16000
N = 300_000  # more than one block
SOUND = np.random.default_rng(0).uniform(-1, 1, N)


def after_silence(samples):
    """Samples that begin late in the first block."""
    return np.concatenate([np.zeros(260_000), samples])


UNSCALED = {
    "16 bits": np.rint(SOUND * 2**15),
    "24 bits": np.rint(SOUND * 2**23),
    "8 bits": np.rint(SOUND * 2**7),
    "16 bits, resampled": SOUND * 2**15,
    "16 bits, almost silent": np.rint(SOUND * 3),
    "16 bits, silent at first": after_silence(np.rint(SOUND * 2**15)),
    "16 bits, quiet and resampled at first": np.linspace(0, 1, N) ** 20 * SOUND * 2**15,
}
SCALED = {
    "full scale": SOUND,
    "a peak of 1.5": SOUND * 1.5,
    "a peak of 4": SOUND * 4,
    "a peak of 60": SOUND * 60,
    "clipped": np.sign(SOUND),
    "silence": np.zeros(N),
    "clipped at 2 after silence": after_silence(np.clip(SOUND * 4, -2, 2)),
    "one whole sample": np.array([0.25, 2.0]),
}


def wav(samples, subtype):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype=subtype)
    return file.getvalue()


def refusal(read, *arguments):
    with pytest.raises(InputError) as caught:
        read(*arguments)
    return str(caught.value)


@pytest.fixture(params=["FLOAT", "DOUBLE"])
def write(request, tmp_path):
    """Return a function that writes samples to a file of 32-bit or 64-bit floats."""

    def of(samples):
        path = tmp_path / "x.wav"
        path.write_bytes(wav(samples, request.param))
        return path

    return of


@pytest.mark.parametrize("kind", UNSCALED)
def test_unscaled_samples_of_a_file_are_refused_as_in_an_array(write, kind):
    path = write(UNSCALED[kind])
    text = refusal(read_recording, path)
    assert text.startswith(f"{path}: the samples reach ")
    assert text.endswith("divide the samples by their full scale, such as 32768 for "
                         "16-bit samples")  # fmt: skip
    assert refusal(lambda: read_clip(path, sample_rate=RATE)) == text
    assert "the samples reach" in refusal(waveform_of, UNSCALED[kind], "array 0")


@pytest.mark.parametrize("kind", UNSCALED)
def test_a_stream_is_refused_before_it_yields_a_sample_that_shows_the_scale(
    write, kind
):
    path, blocks = write(UNSCALED[kind]), []

    def read(source):
        with open_recording(source, name=str(path)) as recording:
            blocks.extend(recording.blocks)

    assert refusal(read, path) == refusal(read_recording, path)
    assert refusal(read, path.read_bytes()) == refusal(read_recording, path)
    for block in blocks:
        assert np.abs(block).max() < 100
        assert np.abs(block).max() <= 1 or (block != np.rint(block)).any()


@pytest.mark.parametrize("kind", SCALED)
def test_samples_beyond_full_scale_are_read_unchanged(write, kind):
    path, expected = write(SCALED[kind]), SCALED[kind].astype(np.float32)
    np.testing.assert_array_equal(read_recording(path).waveform, expected)
    with open_recording(path) as recording:
        np.testing.assert_array_equal(np.concatenate([*recording.blocks]), expected)
    np.testing.assert_array_equal(waveform_of(SCALED[kind], "x"), expected)


def test_only_the_channel_in_use_must_have_a_full_scale_of_one(write):
    """Another channel may hold a speed, for example."""
    speed = np.full(N, 1480.0)
    path = write(np.stack([SOUND, speed], 1))
    np.testing.assert_array_equal(read_recording(path).waveform, np.float32(SOUND))
    for channel in (1, (0, 1)):
        assert "the samples reach 1480" in refusal(read_recording, path, channel)
