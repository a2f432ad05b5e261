"""Recordings from files, archives and bytes are read or refused in the same way."""

import io
import itertools
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import refusal
from support.packing import pack

from gammavae_jax.data.audio import files
from gammavae_jax.data.audio.files import (
    open_recording,
    read_clip,
    read_recording,
    resampled,
    resampled_blocks,
)
from gammavae_jax.errors import InputError, printable

RATE = 16000
N = 300_000  # more than one block of decoding


def wave(n_channels=1, n=N):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (n, n_channels))
    return samples.astype(np.float32)


def write(path, samples, rate=RATE, **keywords):
    soundfile.write(path, samples, rate, **keywords)
    return path


def read(path, channel=0):
    """Return the waveform; assert that it is the same when read from archives."""
    waveform = read_clip(path, sample_rate=RATE, channel=channel)
    for member in members(path):
        again = read_clip(member, sample_rate=RATE, channel=channel)
        np.testing.assert_array_equal(again, waveform, strict=True)
    return waveform


def members(path):
    """Return the recording in two archives; none if an archive cannot contain it."""
    is_text = path.name == path.name.encode(errors="replace").decode()
    if path.suffix not in (".wav", ".flac") or not path.is_file() or not is_text:
        return []
    contents = {f"fan/train/{path.name}": path.read_bytes()}
    return [
        pack(path.with_name(f"{method}.zip"), contents, method) / next(iter(contents))
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]


def message(path, **keywords):
    """Return the refusal; assert that it is the same in archives."""
    names = (path, *members(Path(path)))
    texts = (refusal(read_clip, name, sample_rate=RATE, **keywords) for name in names)
    (text,) = {
        text.removeprefix(printable(name))
        for name, text in zip(names, texts, strict=True)
    }
    assert text.startswith(": ")
    return printable(path) + text


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac"])
@pytest.mark.parametrize("channel", [0, 3, 7])
def test_the_requested_channel_is_read(tmp_path, name, channel):
    path = write(tmp_path / name, wave(8))
    np.testing.assert_allclose(read(path, channel), wave(8)[:, channel], atol=2**-14)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bit_samples_are_scaled_like_libsndfile_does(tmp_path, suffix):
    values = np.array([-32768, -32767, -1, 0, 1, 12345, 32767], np.int16)
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, values, RATE, subtype="PCM_16")
    expected, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(read_clip(path, sample_rate=RATE), expected)


def test_reading_is_thread_safe(tmp_path):
    good = [write(tmp_path / name, wave()) for name in ("a.wav", "b.flac")]
    bad = write(tmp_path / "bad.wav", wave())
    bad.write_text("no sound")

    def attempt(path):
        try:
            return read_clip(path, sample_rate=RATE).tobytes()
        except InputError as error:
            return str(error)

    paths = [*good, bad] * 20
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, paths))
    assert results == [attempt(path) for path in paths]


@pytest.mark.parametrize("channel", [2, -1])
def test_a_missing_channel_is_refused_with_the_number_of_channels(tmp_path, channel):
    path = write(tmp_path / "clip.wav", wave(2))
    text = message(path, channel=channel)
    assert "in this file: choose a channel from 0 to 1" in text


def test_a_file_without_the_reference_channel_is_refused_with_the_remedy(tmp_path):
    text = message(write(tmp_path / "a.wav", wave(1)), channel=(0, 1))
    start = "no reference channel 1 in this file, whose channel count is 1"
    assert f"{start}: record both" in text


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.raw"])
def test_a_file_without_audio_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert "empty" in message(path)
    path.write_text("a text\n" * 1000)
    assert "cannot be read as audio" in message(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
@pytest.mark.parametrize("n_channels", [1, 8])
def test_a_truncated_wav_is_refused_with_both_frame_counts(
    tmp_path, subtype, format, n_channels
):
    path = write(tmp_path / "a.wav", wave(n_channels), subtype=subtype, format=format)
    whole = path.read_bytes()
    frame = n_channels * {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3}.get(subtype, 4)
    path.write_bytes(whole[: -1000 * frame])
    assert f"claims {N} frames, but the file has {N - 1000}" in message(path)
    path.write_bytes(whole[:-1])
    assert f"claims {N} frames, but the file has {N - 1}" in message(path)


@pytest.mark.parametrize("end", [-1, 5000])
def test_a_truncated_flac_is_refused_with_the_claimed_frames(tmp_path, end):
    path = write(tmp_path / "clip.flac", wave())
    path.write_bytes(path.read_bytes()[:end])
    assert f"claims {N} frames, but not all can be decoded" in message(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_from_a_streaming_tool_is_read(tmp_path, size):
    """A tool that cannot seek back leaves an absurd data size in the header."""
    path = write(tmp_path / "clip.wav", wave(), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(read(path)) == N


@pytest.mark.parametrize(
    "name", ["two\nlines.wav", "tab\tü \x1b[31m.wav", "\udcff.wav"]
)
def test_recordings_with_odd_names_are_read_or_refused(tmp_path, name):
    path = tmp_path / name
    write(tmp_path / "plain.wav", wave()).rename(path)
    assert len(read(path)) == N
    path.write_bytes(b"")
    assert printable(path).isprintable()
    assert "empty" in message(path)


def test_printable_escapes_only_odd_characters():
    assert printable("Geräusch 1 (links).wav") == "Geräusch 1 (links).wav"
    assert printable("a\nb\x1b\udcff") == r"a\nb\x1b\udcff"


def read_blocks(source, **options):
    """Return the joined blocks; assert that each has a bounded length."""
    with open_recording(source, **options) as recording:
        blocks = list(recording.blocks)
    assert max(map(len, blocks)) <= files._BLOCK
    return np.concatenate(blocks), recording.sample_rate


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("channel", [0, 1, (0, 1), (1, 0)], ids=str)
def test_blocks_add_up_to_the_recording(tmp_path, suffix, subtype, channel):
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, wave(2), RATE, subtype=subtype)
    expected = read_recording(path, channel)
    assert expected.waveform.ndim == 2 or expected.waveform.flags.c_contiguous
    np.testing.assert_allclose(expected.waveform, wave(2)[:, channel], atol=2**-14)
    for source in (path, path.read_bytes()):
        samples, rate = read_blocks(source, channel=channel, name="x")
        np.testing.assert_array_equal(samples, expected.waveform, strict=True)
        assert rate == expected.sample_rate


def wav(samples, rate=RATE):
    return write(io.BytesIO(), samples, rate, format="WAV", subtype="FLOAT").getvalue()


@pytest.mark.parametrize(("value", "word"), [(np.inf, "inf"), (np.nan, "nan")])
def test_a_sample_that_is_not_finite_is_refused_if_its_channel_is_used(value, word):
    samples = wave(2)
    samples[N - 5, 1] = value
    read_blocks(wav(samples), name="x")
    for channel in (1, (0, 1)):
        with pytest.raises(InputError, match=f"^x: sample {N - 5} is {word}: repair"):
            read_blocks(wav(samples), name="x", channel=channel)


def test_a_truncated_recording_is_refused_before_a_sample_is_read(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(wav(wave(2))[:-100])
    with (
        pytest.raises(InputError, match=r"x\.wav: truncated: the header claims 300000"),
        open_recording(path),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    ("data", "channel", "message"),
    [
        (b"", 0, "^x: this is neither WAV nor FLAC: convert it to WAV$"),
        (wav(wave(2)), 2, "^x: there is no channel 2 in this file: choose"),
        (wav(wave(2)), (0, 2), "^x: there is no reference channel 2 in this file"),
        (wav(wave(2, 9), rate=999), 0, "rate of 999 Hz is implausible: replace"),
    ],
    # Files contain timestamps, and all test processes must collect the same test ids.
    ids=itertools.count(),
)
def test_bytes_that_are_not_a_recording_are_refused(data, channel, message):
    with pytest.raises(InputError, match=message):
        read_blocks(data, channel=channel, name="x")


@settings(max_examples=25)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 44100, 48000]),
    size=st.integers(1, 30_000),
    n=st.integers(2000, 60_000),
    channel=st.sampled_from([0, (0, 1)]),
)
def test_blocks_are_resampled_like_the_whole_recording(rate, size, n, channel):
    samples = wave(2, n)[:, channel]
    blocks = [samples[i : i + size] for i in range(0, n, size)]
    together = np.concatenate(list(resampled_blocks(blocks, rate, RATE)))
    whole = resampled(samples, rate, RATE)
    assert abs(len(together) - len(whole)) <= 1
    shorter = min(len(together), len(whole))
    np.testing.assert_allclose(together[:shorter], whole[:shorter], atol=1e-4)
