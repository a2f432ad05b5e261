"""The scale of samples in files, streams and arrays; silence and clipping."""

import io
import re

import numpy as np
import pytest
import soundfile
from support.logs import refusal

from gammavae_jax.data.audio.files import open_recording, read_clip, read_recording
from gammavae_jax.data.audio.samples import Signal, signal_of, waveform_of, whole_rate
from gammavae_jax.errors import InputError

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)


def at(scale, dtype):
    return np.rint(SOUND * scale).astype(dtype)


@pytest.mark.parametrize(
    "samples",
    [
        SOUND,
        SOUND.astype(np.float16),
        at(2**7, np.int8),
        at(2**15, np.int16),
        at(2**31, np.int32),
        at(2**23, np.int32) << 8,  # 24 bits, shifted as soundfile and SciPy do
        at(2**15, np.int32) << 16,
    ],
    ids=lambda samples: str(samples.dtype),
)
def test_samples_that_use_their_type_have_a_full_scale_of_one(samples):
    np.testing.assert_allclose(waveform_of(samples, "x"), SOUND, atol=2**-7)


def test_several_channels_are_scaled_together():
    channels = np.stack([at(2**15, np.int16), at(2**10, np.int16)], 1)
    found = waveform_of(channels, "x")
    np.testing.assert_allclose(found, np.stack([SOUND, SOUND / 32], 1), atol=2**-15)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (at(2**15, np.int64), "int64, but fill only 15 bits: .*int16"),
        (at(2**15, np.int32), "int32, but fill only 15 bits"),
        (at(2**23, np.int32), "int32, but fill only 23 bits"),
        (at(2**31, np.int64), "int64, but fill only 31 bits"),
        (np.array([0, -(2**63)]), "int64, but fill only 65 bits"),
        (at(2**15, np.float32), "samples reach 16.*such as 32768"),
        (at(2**7, float), r"samples reach 64, but full scale must be 1"),
        (SOUND * 2**15, "samples reach 16"),
        (SOUND.astype(np.float32) * 2**23, "samples reach 4"),
        (np.array([0.5, np.inf]), "sample 1 is inf"),
        (np.array([True, False]), "the type bool"),
        (at(2**7, np.uint8), "the type uint8"),
        (SOUND + 0j, "the type complex"),
        (np.ma.masked_greater(SOUND, 0.3), r"masked samples: fill them"),
        (np.zeros((2, 4000)), r"the shape \(2, 4000\).*\(samples, channels\)"),
        (np.zeros((4, 4)), r"the shape \(4, 4\)"),
        (np.zeros((4000, 2, 1)), r"the shape \(4000, 2, 1\)"),
        (np.stack([SOUND, np.full(4000, np.nan)], 1), "sample 0 is nan"),
    ],
)
def test_samples_of_an_unknown_scale_are_refused_with_the_remedy(samples, message):
    assert re.match(rf"x.*{message}", refusal(waveform_of, samples, "x"))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32])
def test_silence_and_no_samples_have_every_scale(dtype):
    assert not waveform_of(np.zeros(100, dtype), "x").any()
    assert waveform_of(np.zeros(0, dtype), "x").shape == (0,)


def test_samples_somewhat_beyond_full_scale_and_hard_clipping_are_kept():
    for samples in (SOUND * 4, np.sign(SOUND)):
        np.testing.assert_allclose(waveform_of(samples, "x"), samples, rtol=1e-6)


@pytest.mark.parametrize("rate", [16000, np.int64(16000), np.float32(16000), 16000.0])
def test_a_whole_sample_rate_becomes_a_plain_number(rate):
    assert type(whole_rate(rate)) is int
    assert whole_rate(rate) == 16000


@pytest.mark.parametrize("rate", ["16000", True, 0, 44100.5, float("nan"), [0, 1], 2e9])
def test_another_sample_rate_is_refused(rate):
    with pytest.raises(InputError, match=r"sample_rate is .*: pass a whole number"):
        whole_rate(rate)


RATE = 16000
N = 300_000  # more than one block
LONG = np.random.default_rng(0).uniform(-1, 1, N)


def after_silence(samples):
    """Return samples that begin late in the first block."""
    return np.concatenate([np.zeros(260_000), samples])


UNSCALED = {
    "16 bits": np.rint(LONG * 2**15),
    "24 bits": np.rint(LONG * 2**23),
    "8 bits": np.rint(LONG * 2**7),
    "16 bits, resampled": LONG * 2**15,
    "16 bits, almost silent": np.rint(LONG * 3),
    "16 bits, silent at first": after_silence(np.rint(LONG * 2**15)),
    "16 bits, quiet and resampled at first": np.linspace(0, 1, N) ** 20 * LONG * 2**15,
}
SCALED = {
    "full scale": LONG,
    "a peak of 1.5": LONG * 1.5,
    "a peak of 4": LONG * 4,
    "a peak of 60": LONG * 60,
    "clipped": np.sign(LONG),
    "silence": np.zeros(N),
    "clipped at 2 after silence": after_silence(np.clip(LONG * 4, -2, 2)),
    "one whole sample": np.array([0.25, 2.0]),
}


def wav(samples, subtype):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype=subtype)
    return file.getvalue()


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
    path = write(np.stack([LONG, speed], 1))
    np.testing.assert_array_equal(read_recording(path).waveform, np.float32(LONG))
    for channel in (1, (0, 1)):
        assert "the samples reach 1480" in refusal(read_recording, path, channel)


CLIP_N = 16000
NOISE = np.random.default_rng(0).standard_normal(CLIP_N).astype(np.float32)
LSB = np.random.default_rng(1).integers(-1, 2, CLIP_N)


@pytest.mark.parametrize(
    "samples",
    [
        *(np.zeros(CLIP_N), np.full(CLIP_N, 0.3), LSB / 32768, (LSB + 5) / 32768, LSB),
        *([0.0], [1, -1]),
    ],
    ids=str,
)
def test_a_constant_and_noise_of_one_bit_are_silent(samples):
    assert signal_of(np.array(samples, np.float32)) == Signal(1.0, 0.0)


def test_the_silent_share_is_that_of_zeros():
    half = np.where(np.arange(CLIP_N) < CLIP_N / 4, 0, NOISE)
    assert signal_of(half) == Signal(0.25, 0.0)
    assert signal_of(NOISE) == Signal(0.0, 0.0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_flat_tops_are_counted_at_any_scale(scale):
    tone = np.sin(2 * np.pi * np.arange(CLIP_N) / 100).astype(np.float32)
    tone *= np.float32(scale)
    assert signal_of(tone).clipped == 0
    top, bottom = np.array([0.5 * scale, -0.8 * scale], np.float32)
    clipped = np.clip(tone, bottom, top)
    expected = np.mean((tone >= top) | (tone <= bottom))
    assert 0.5 < expected < 0.6
    assert signal_of(clipped).clipped == pytest.approx(expected)


def test_two_equal_samples_are_not_a_flat_top():
    """A peak of a sound may have two equal samples; three are clipped."""
    for n_equal, share in ((2, 0), (3, 3 / CLIP_N), (4, 4 / CLIP_N)):
        samples = NOISE.copy()
        samples[-n_equal:] = 9  # at the end
        assert signal_of(samples).clipped == pytest.approx(share)
        assert signal_of(-samples[::-1]).clipped == pytest.approx(share)
