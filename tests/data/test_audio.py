"""Good, odd and bad recordings, made on the fly; in archives they are the same."""

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.packing import pack

from gammavae_jax.data.audio import encode_clip, read_clip
from gammavae_jax.errors import InputError, printable

RATE = 16000
N = 300_000  # more than one block of decoding


def wave(n_channels=1):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (N, n_channels))
    return samples.astype(np.float32)


def write(path, samples, rate=RATE, **keywords):
    soundfile.write(path, samples, rate, **keywords)
    return path


def read(path, channel=0):
    """The waveform, after checking that an archive gives the same."""
    waveform = read_clip(path, sample_rate=RATE, channel=channel)
    for member in members(path):
        again = read_clip(member, sample_rate=RATE, channel=channel)
        np.testing.assert_array_equal(again, waveform, strict=True)
    return waveform


def members(path):
    """The recording in two archives; none of what no archive can hold."""
    is_text = path.name == path.name.encode(errors="replace").decode()
    if path.suffix not in (".wav", ".flac") or not path.is_file() or not is_text:
        return []
    contents = {f"fan/train/{path.name}": path.read_bytes()}
    return [
        pack(path.with_name(f"{method}.zip"), contents, method) / next(iter(contents))
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]


def message(path, **keywords):
    """The refusal of `path`, after checking what all refusals have in common."""
    texts = []
    for name in (path, *members(Path(path))):
        with pytest.raises(InputError) as caught:
            read_clip(name, sample_rate=RATE, **keywords)
        text = str(caught.value)
        assert len(text.splitlines()) == 1
        assert text.startswith(printable(name))
        texts.append(text.removeprefix(printable(name)))
    assert len(set(texts)) == 1
    return printable(path) + texts[0]


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 2**-7),
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-23),
        ("wav", "PCM_32", 2**-24),
        ("wav", "FLOAT", 0),
        ("wav", "DOUBLE", 0),
        ("flac", "PCM_16", 2**-15),
        ("flac", "PCM_24", 2**-23),
    ],
)
def test_sample_formats_agree(tmp_path, suffix, subtype, tolerance):
    path = write(tmp_path / f"clip.{suffix}", wave(), subtype=subtype)
    clip = read(path)
    assert clip.dtype == np.float32
    assert clip.flags.c_contiguous
    np.testing.assert_allclose(clip, wave()[:, 0], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac"])
@pytest.mark.parametrize("channel", [0, 3, 7])
def test_picks_the_channel(tmp_path, name, channel):
    path = write(tmp_path / name, wave(8))
    np.testing.assert_allclose(read(path, channel), wave(8)[:, channel], atol=2**-14)


def test_one_sample_is_a_clip(tmp_path):
    path = write(tmp_path / "clip.wav", np.array([0.5], np.float32))
    np.testing.assert_array_equal(read(path), [0.5])


def test_float_samples_may_exceed_full_scale(tmp_path):
    loud = np.array([1.5, -2.0], np.float32)
    path = write(tmp_path / "clip.wav", loud, subtype="FLOAT")
    np.testing.assert_array_equal(read(path), loud)


def test_link_to_a_recording_is_read(tmp_path):
    write(tmp_path / "clip.wav", wave())
    (tmp_path / "link.wav").symlink_to("clip.wav")
    assert len(read(tmp_path / "link.wav")) == N


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bit_samples_are_scaled_as_libsndfile_scales_them(tmp_path, suffix):
    values = np.array([-32768, -32767, -1, 0, 1, 12345, 32767], np.int16)
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, values, RATE, subtype="PCM_16")
    expected, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(read_clip(path, sample_rate=RATE), expected)


def test_many_threads_read_alike(tmp_path):
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


def test_wrong_rate_names_both(tmp_path):
    text = message(write(tmp_path / "clip.wav", wave(), rate=44100))
    assert "44100 Hz" in text
    assert "resample it to 16000 Hz" in text


@pytest.mark.parametrize("channel", [2, -1])
def test_missing_channel_says_how_many(tmp_path, channel):
    path = write(tmp_path / "clip.wav", wave(2))
    assert "the file has 2: give a channel from 0 to 1" in message(
        path, channel=channel
    )


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (-np.inf, "-inf")])
def test_samples_that_are_no_numbers(tmp_path, value, word):
    samples = wave()
    samples[123] = value
    path = write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    assert f"sample 123 is {word}" in message(path)


def test_not_a_file(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a file" in message(tmp_path / "folder.wav")
    assert "not a file" in message(tmp_path / "pipe.wav")
    assert "link leads nowhere" in message(tmp_path / "dangling.wav")
    assert "No such file" in message(tmp_path / "absent.wav")
    assert "null" in message(f"{tmp_path}/a\0b.wav")


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.raw"])
def test_no_audio(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert "empty" in message(path)
    path.write_text("a text\n" * 1000)
    assert "cannot be read as audio" in message(path)


def test_header_only(tmp_path):
    none = write(tmp_path / "none.wav", wave()[:0])
    assert "holds no samples" in message(none)
    header = write(tmp_path / "header.wav", wave(), subtype="PCM_16")
    header.write_bytes(header.read_bytes()[:44])
    assert f"the header claims {N} frames, the file holds 0" in message(header)
    header.write_bytes(header.read_bytes()[:30])
    assert "cannot be read as audio" in message(header)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
@pytest.mark.parametrize("n_channels", [1, 8])
def test_truncated_wav_names_both_counts(tmp_path, subtype, format, n_channels):
    path = write(tmp_path / "a.wav", wave(n_channels), subtype=subtype, format=format)
    whole = path.read_bytes()
    frame = n_channels * {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3}.get(subtype, 4)
    path.write_bytes(whole[: -1000 * frame])
    assert f"claims {N} frames, the file holds {N - 1000}" in message(path)
    path.write_bytes(whole[:-1])
    assert f"claims {N} frames, the file holds {N - 1}" in message(path)


@pytest.mark.parametrize("end", [-1, 5000])
def test_truncated_flac_says_what_was_claimed(tmp_path, end):
    path = write(tmp_path / "clip.flac", wave())
    path.write_bytes(path.read_bytes()[:end])
    assert f"claims {N} frames, which cannot all be decoded" in message(path)


def test_damaged_flac(tmp_path):
    path = write(tmp_path / "clip.flac", wave())
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    assert "damaged or cut off" in message(path)


@pytest.mark.parametrize("low_bytes", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_flac_of_unknown_or_absurd_length(tmp_path, low_bytes):
    path = write(tmp_path / "clip.flac", wave())
    data = bytearray(path.read_bytes())
    # STREAMINFO's 36-bit count of samples ends with byte 25 of the file.
    data[21] = (data[21] & 0xF0) | (low_bytes[0] & 0x0F)
    data[22:26] = low_bytes
    path.write_bytes(data)
    expected = "gives no length" if low_bytes[0] == 0 else "claims 68719476735 frames"
    assert expected in message(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_from_a_pipe_is_read(tmp_path, size):
    """Writers that cannot seek back leave an absurd data size in the header."""
    path = write(tmp_path / "clip.wav", wave(), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(read(path)) == N


@pytest.mark.parametrize(
    "name", ["two\nlines.wav", "tab\tü \x1b[31m.wav", "\udcff.wav"]
)
def test_odd_names(tmp_path, name):
    path = tmp_path / name
    write(tmp_path / "plain.wav", wave()).rename(path)
    assert len(read(path)) == N
    path.write_bytes(b"")
    assert printable(path).isprintable()
    assert "empty" in message(path)


def test_printable_keeps_ordinary_names():
    assert printable("Geräusch 1 (links).wav") == "Geräusch 1 (links).wav"
    assert printable("a\nb\x1b\udcff") == r"a\nb\x1b\udcff"


@pytest.mark.parametrize(
    ("rate", "media_type"),
    [(16000, "audio/mpeg"), (48000, "audio/mpeg"), (1234, "audio/wav")],
)
def test_a_clip_for_a_browser_sounds_the_same(rate, media_type):
    """MP3 where it has the sample rate; a tone keeps its frequency and its level."""
    seconds, hertz = 2, rate / 16
    tone = np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate) / 2
    data, found = encode_clip(tone.astype(np.float32), rate)
    assert found == media_type
    heard, heard_rate = soundfile.read(io.BytesIO(data))
    assert heard_rate == rate
    assert len(heard) == pytest.approx(len(tone), abs=3000)
    middle = heard[len(heard) // 4 : -len(heard) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * rate / len(middle) == pytest.approx(hertz, rel=0.01)
    assert middle.std() == pytest.approx(tone.std(), rel=0.1)
    if media_type == "audio/mpeg":
        assert len(data) < 8000 * seconds
