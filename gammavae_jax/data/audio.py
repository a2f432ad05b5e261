"""A file -> waveform; every way a recording can be bad, in one line of text."""

import contextlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Shaped

from gammavae_jax.data import archives
from gammavae_jax.data.audio_header import claimed_frames, require_plain, require_rate
from gammavae_jax.errors import InputError, printable

_BLOCK = 1 << 18  # frames decoded at a time, so no header decides how much is allocated
_LOUDEST = 1e9  # full scale is 1; the power of much more is beyond float32
_BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"fLaC")  # of WAV and FLAC files
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's count for a FLAC stream of unknown length


class Recording(NamedTuple):
    """One channel of a recording."""

    waveform: Float32[np.ndarray, "sample"]
    sample_rate: int  # Hz


def read_clip(
    path: str | os.PathLike[str], *, sample_rate: int, channel: int = 0
) -> Float32[np.ndarray, "sample"]:
    """Read one channel of a recording that must have the given rate.

    Args:
        path: the recording; see `read_recording`.
        sample_rate: Hz; a recording with another rate is refused, not resampled.
        channel: counted from 0.

    Raises:
        InputError: another sample rate, or see `read_recording`.
    """
    name = printable(path)
    with _open(_source(path, name), name) as file:
        if file.samplerate != sample_rate:
            raise InputError(
                f"{name}: the sample rate is {file.samplerate} Hz, not {sample_rate} "
                f"Hz: resample it to {sample_rate} Hz"
            )
        return _read(file, channel, name)


def read_recording(path: str | os.PathLike[str], channel: int = 0) -> Recording:
    """Read one channel of a WAV or FLAC file; safe to call from several threads.

    The path may lead through a zip archive: `data/dev_fan.zip/fan/train/x.wav`.

    Integer samples come scaled to [-1, 1], float samples as they are.

    Args:
        path: the recording.
        channel: counted from 0.

    Raises:
        InputError: the file is no WAV or FLAC, has no such channel, no samples, a
            header that contradicts itself or claims more than there is, or a sample
            that is no finite number.
    """
    name = printable(path)
    with _open(_source(path, name), name) as file:
        require_rate(file.samplerate, name)
        return Recording(_read(file, channel, name), file.samplerate)


def _read(
    file: soundfile.SoundFile, channel: int, name: str
) -> Float32[np.ndarray, "sample"]:
    _require_channel(file, channel, name)
    waveform = _decode(file, channel, name)
    if not len(waveform):
        raise InputError(f"{name}: the file holds no samples: remove or replace it")
    require_finite(waveform, name)
    return waveform


def _require_channel(file: soundfile.SoundFile, channel: int, name: str) -> None:
    if not 0 <= channel < file.channels:
        raise InputError(
            f"{name}: there is no channel {channel}, the file has {file.channels}: "
            f"give a channel from 0 to {file.channels - 1}"
        )


def require_finite(
    waveform: Float32[np.ndarray, "sample"], name: str, n_before: int = 0
) -> None:
    """Refuse a waveform with a sample that is no finite number, or no sound's.

    Args:
        waveform: a recording, or a part of it.
        name: for the message.
        n_before: samples of the recording before this part.

    Raises:
        InputError: the first such sample.
    """
    # Not abs(): that would copy the whole. A comparison with NaN is false.
    is_sound = (waveform > -_LOUDEST) & (waveform < _LOUDEST)
    if not is_sound.all():
        first = int(np.argmin(is_sound))
        raise InputError(
            f"{name}: sample {n_before + first} is {waveform[first]}: repair or "
            "replace the file"
        )


class RecordingBlocks(NamedTuple):
    """One channel of a recording that is read bit by bit."""

    sample_rate: int  # Hz
    n_samples: int  # as the header claims; blocks know better
    blocks: Iterator[Float32[np.ndarray, "_"]]


@contextlib.contextmanager
def open_recording(
    source: str | os.PathLike[str] | bytes, *, channel: int = 0, name: str = ""
) -> Iterator[RecordingBlocks]:
    """Read one channel of a recording of any length in constant memory.

    Args:
        source: the path of a WAV or FLAC file, or the bytes of one.
        channel: counted from 0.
        name: for messages; of a file its path, unless given.

    Raises:
        InputError: see `read_recording`; when it is opened, or while it is read.
    """
    if not isinstance(source, bytes):
        name = name or printable(source)
        readable = _source(source, name)
    elif source.startswith(_BEGINNINGS):
        readable = io.BytesIO(source)
    else:
        raise InputError(f"{name}: this is neither WAV nor FLAC: give one of these")
    with _open(readable, name) as file:
        claimed = claimed_frames(file)
        if file.frames < claimed:
            raise InputError(
                f"{name}: cut off: the header claims {claimed} frames, the file holds "
                f"{file.frames}: replace it"
            )
        require_rate(file.samplerate, name)
        blocks = _checked_blocks(file, channel, name)
        yield RecordingBlocks(file.samplerate, claimed, blocks)


def _checked_blocks(
    file: soundfile.SoundFile, channel: int, name: str
) -> Iterator[Float32[np.ndarray, "_"]]:
    _require_channel(file, channel, name)
    n_read = 0
    for block in map(_scaled, _blocks(file, channel, name)):
        require_finite(block, name, n_read)
        n_read += len(block)
        yield block
    if not n_read:
        raise InputError(f"{name}: the file holds no samples: remove or replace it")


def _source(path: str | os.PathLike[str], name: str) -> Any:
    """What soundfile is to open, with at least one byte: a file, or bytes in memory."""
    archive = archives.archive_of(path)
    if archive is None:
        size = _file_size(path, name)
        # soundfile encodes text strictly, and a POSIX name need not be valid UTF-8.
        source = os.fsencode(path) if os.name == "posix" else path
    else:
        data = archives.read_recording(archive, path)
        size, source = len(data), io.BytesIO(data)
    if not size:
        raise InputError(f"{name}: the file is empty: remove or replace it")
    return source


def _file_size(path: str | os.PathLike[str], name: str) -> int:
    """The bytes of a regular file; refuse what is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # a null character is a ValueError
        if os.path.islink(path):
            raise InputError(f"{name}: the link leads nowhere: mend it") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{name}: {reason}: give the path of a recording") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: this is not a file: give the path of a recording")
    return status.st_size


def _open(source: Any, name: str) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: named *.raw
        reason = getattr(error, "error_string", "headerless").rstrip(".")
        raise InputError(
            f"{name}: cannot be read as audio ({printable(reason)}): replace it by a "
            "WAV or FLAC file that this user may read"
        ) from error
    try:
        require_plain(file, name)
    except InputError:
        file.close()
        raise
    return file


def _decode(
    file: soundfile.SoundFile, channel: int, name: str
) -> Float32[np.ndarray, "sample"]:
    """Every frame that the header claims, or `InputError`."""
    none = np.zeros(0, _stored_type(file))
    return _scaled(np.concatenate([none, *_blocks(file, channel, name)]))


def _blocks(
    file: soundfile.SoundFile, channel: int, name: str
) -> Iterator[Shaped[np.ndarray, "_"]]:
    """The samples as they are stored, or `InputError` at the end."""
    claimed, n_read = claimed_frames(file), 0
    if claimed == _UNKNOWN_FRAMES:
        raise InputError(f"{name}: the header gives no length: encode it again")
    dtype = _stored_type(file)
    try:
        while len(block := file.read(_BLOCK, dtype=dtype, always_2d=True)):
            yield block[:, channel]
            n_read += len(block)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{name}: damaged or cut off: the header claims {claimed} frames, which "
            "cannot all be decoded: replace the file"
        ) from error
    if n_read < claimed:
        raise InputError(
            f"{name}: cut off: the header claims {claimed} frames, the file holds "
            f"{n_read}: replace it"
        )


def _stored_type(file: soundfile.SoundFile) -> Literal["int16", "float32"]:
    """The type that samples are best read as."""
    # libsndfile takes longer to scale 16-bit samples than NumPy.
    return "int16" if file.subtype == "PCM_16" else "float32"


def _scaled(samples: Shaped[np.ndarray, "sample"]) -> Float32[np.ndarray, "sample"]:
    if samples.dtype == np.int16:
        return samples * np.float32(2.0**-15)
    return samples


def encode_clip(
    waveform: Float32[np.ndarray, "sample"], sample_rate: int
) -> tuple[bytes, str]:
    """A recording in [-1, 1] to be played in a browser: its bytes and media type.

    MP3 of one channel, some 50 KB for ten seconds at 16 kHz; 16-bit WAV where
    libsndfile is older than 1.1 or the sample rate is none of MP3's.
    """
    for kind, media_type in (("MP3", "audio/mpeg"), ("WAV", "audio/wav")):
        if kind not in soundfile.available_formats():
            continue
        data = io.BytesIO()
        try:
            soundfile.write(data, np.clip(waveform, -1, 1), sample_rate, format=kind)
        except soundfile.LibsndfileError:
            continue
        return data.getvalue(), media_type
    raise RuntimeError("libsndfile writes WAV files at any sample rate")


def resampled(
    waveform: Float32[np.ndarray, "sample"], sample_rate: int, wanted: int
) -> Float32[np.ndarray, "resampled"]:
    """A waveform at the wanted rate, Hz; as it is if it has that rate.

    Source: the SoX resampler at its high quality, which librosa uses too.
    """
    if sample_rate == wanted:
        return waveform
    return soxr.resample(waveform, sample_rate, wanted, quality="HQ")


def resampled_blocks(
    blocks: Iterable[Float32[np.ndarray, "_"]], sample_rate: int, wanted: int
) -> Iterator[Float32[np.ndarray, "_"]]:
    """`resampled`, block by block, in constant memory."""
    if sample_rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(
        sample_rate, wanted, num_channels=1, dtype="float32", quality="HQ"
    )
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
