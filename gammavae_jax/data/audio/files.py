"""Reads and resamples WAV and FLAC files, and refuses bad ones."""

import contextlib
import io
import itertools
import math
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from gammavae_jax.data.audio import archives
from gammavae_jax.data.audio.channels import ChannelLevels, Channels, require_channels
from gammavae_jax.data.audio.header import (
    HEAD_BYTES,
    claimed_frames,
    closed_head,
    require_rate,
    require_supported,
)
from gammavae_jax.data.audio.samples import SampleScale
from gammavae_jax.errors import InputError, path_remedy, printable
from gammavae_jax.files import open_regular

_BLOCK = 1 << 18  # samples per read over all channels, whatever the header claims
_SMALLEST_BLOCK = 1 << 12  # frames per read, even if there are many channels
_SIGNATURES = (b"RIFF", b"RIFX", b"RF64", b"fLaC")  # of WAV or FLAC files
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's count for a FLAC stream of unknown length


class Recording(NamedTuple):
    """One or two channels of a recording; see `audio.channels`."""

    waveform: Float32[np.ndarray, "sample *channel"]
    sample_rate: int  # Hz
    levels: ChannelLevels | None = None  # if there are several channels
    n_channels: int = 0  # of the file or array; 0 for a one-dimensional array


class RecordingBlocks(NamedTuple):
    """One or two channels of a recording, read block by block."""

    sample_rate: int  # Hz
    n_samples: int  # as claimed by the header; the blocks may hold fewer
    blocks: Iterator[Float32[np.ndarray, "_ *channel"]]
    levels: ChannelLevels | None = None  # complete once all blocks are read
    n_channels: int = 1


def read_clip(
    path: str | os.PathLike[str], *, sample_rate: int, channel: Channels = 0
) -> Float32[np.ndarray, "sample *channel"]:
    """Read a clip's samples; reject a clip whose rate is not `sample_rate` (Hz)."""
    name = printable(path)
    with _open(_source(path, name), name) as file:
        if file.samplerate != sample_rate:
            raise InputError(
                f"{name}: the sample rate is {file.samplerate} Hz, not {sample_rate} "
                f"Hz: resample the file to {sample_rate} Hz"
            )
        return np.concatenate(list(_blocks(file, channel, name)))


def read_recording(path: str | os.PathLike[str], channel: Channels = 0) -> Recording:
    """Read one or two channels of a WAV or FLAC file; thread-safe.

    Integer samples are scaled to [-1, 1]; float samples are returned unchanged. The
    path may lead through a zip archive: `data/dev_fan.zip/fan/train/x.wav`.

    Raises:
        InputError: the file is not a complete WAV or FLAC file, has a contradictory
            header, lacks the channel, or has no samples, a sample that is not finite,
            or float samples whose full scale is not 1.
    """
    with open_recording(path, channel=channel) as opened:
        waveform = np.concatenate(list(opened.blocks))
        return Recording(waveform, opened.sample_rate, opened.levels, opened.n_channels)


@contextlib.contextmanager
def open_recording(
    source: str | os.PathLike[str] | bytes, *, channel: Channels = 0, name: str = ""
) -> Iterator[RecordingBlocks]:
    """Open a recording, to read it block by block in constant memory.

    Args:
        source: the path of a WAV or FLAC file, or its contents.
        channel: the channel to read, or a pair of channels; counted from 0.
        name: the recording's name in messages; default: the path.

    For errors, see `read_recording`.
    """
    if not isinstance(source, bytes):
        name = name or printable(source)
        readable = _source(source, name)
    elif source.startswith(_SIGNATURES):
        readable = io.BytesIO(source)
    else:
        raise InputError(f"{name}: this is neither WAV nor FLAC: convert it to WAV")
    with _open(readable, name) as file:
        claimed = claimed_frames(file)
        if file.frames < claimed:
            raise _truncated(name, claimed, file.frames)
        require_rate(file.samplerate, name)
        levels = ChannelLevels(file.channels) if file.channels > 1 else None
        blocks = _blocks(file, channel, name, levels)
        yield RecordingBlocks(file.samplerate, claimed, blocks, levels, file.channels)


def _source(path: str | os.PathLike[str], name: str) -> Any:
    """Return the path, or an archived recording's bytes, for soundfile to open."""
    if (archive := archives.archive_of(path)) is not None:
        data = archives.read_recording(archive, path)
        size, source = len(data), io.BytesIO(data)
    else:
        size = _file_size(path, name)
        # soundfile encodes text strictly, and a POSIX name need not be valid UTF-8.
        source = os.fsencode(path) if os.name == "posix" else path
    if not size:
        raise InputError(f"{name}: the file is empty: remove or replace it")
    return source


def _file_size(path: str | os.PathLike[str], name: str) -> int:
    """Return a regular file's size in bytes; reject anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        if os.path.islink(path):
            raise InputError(f"{name}: broken link: fix or remove it") from error
        reason = error.strerror if isinstance(error, OSError) else error
        remedy = path_remedy(path, "check the path")
        raise InputError(f"{name}: {reason}: {remedy}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: not a regular file: pass a WAV or FLAC file")
    return status.st_size


class _WithHead(io.FileIO):
    """A file that is read as if its first bytes were `head`."""

    def __init__(self, path: Any, head: bytes):
        super().__init__(path)
        self._head = head

    def __del__(self) -> None:
        self.close()  # libsndfile does not close it

    def readinto(self, buffer: Any) -> int:
        at, n_bytes = self.tell(), super().readinto(buffer)
        head = self._head[at : at + n_bytes]
        memoryview(buffer)[: len(head)] = head
        return n_bytes


def _closed(source: Any) -> Any:
    """Fill in a WAV file's missing data size; return None if no size is missing."""
    if isinstance(source, io.BytesIO):
        data = source.getvalue()
        head = closed_head(data[:HEAD_BYTES], len(data))
        return head and io.BytesIO(head + data[HEAD_BYTES:])
    with open_regular(source) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        head = closed_head(file.read(HEAD_BYTES), n_bytes)
    return head and _WithHead(source, head)


def _open(source: Any, name: str) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(source)
        if not file.frames and (closed := _closed(source)):
            file.close()
            file = soundfile.SoundFile(closed)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a *.raw file
        reason = getattr(error, "error_string", "headerless").rstrip(".")
        raise InputError(
            f"{name}: cannot be read as audio ({printable(reason)}): replace it with a "
            "readable WAV or FLAC file"
        ) from error
    try:
        require_supported(file, name)
    except InputError:
        file.close()
        raise
    return file


def _blocks(
    file: soundfile.SoundFile,
    channel: Channels,
    name: str,
    levels: ChannelLevels | None = None,
) -> Iterator[Float32[np.ndarray, "_ *channel"]]:
    """Yield blocks of samples, checked and scaled; see `read_recording` for errors."""
    require_channels(channel, file.channels, name)
    claimed, n_read = claimed_frames(file), 0
    if claimed == _UNKNOWN_FRAMES:
        raise InputError(f"{name}: the header states no length: encode the file again")
    is_int16 = file.subtype == "PCM_16"  # which NumPy scales faster than libsndfile
    dtype = "int16" if is_int16 else "float32"
    scale = SampleScale(name) if file.subtype in ("FLOAT", "DOUBLE") else None
    try:
        n_frames = max(_BLOCK // file.channels, _SMALLEST_BLOCK)
        while len(block := file.read(n_frames, dtype=dtype, always_2d=True)):
            if levels is not None:
                levels.add(block)
            samples = block[:, channel]
            samples = samples * np.float32(2.0**-15) if is_int16 else samples
            if scale is not None:
                scale.check(samples)
            n_read += len(samples)
            yield samples
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{name}: corrupt or truncated: the header claims {claimed} frames, but "
            "not all can be decoded: replace the file"
        ) from error
    if n_read < claimed:
        raise _truncated(name, claimed, n_read)
    if not n_read:
        raise InputError(
            f"{name}: according to its header, the file has no samples: replace it, or "
            "repair the header if the recorder was interrupted"
        )


def _truncated(name: str, claimed: int, n_frames: int) -> InputError:
    return InputError(
        f"{name}: truncated: the header claims {claimed} frames, but the file has "
        f"{n_frames}: replace it"
    )


def resampled(
    waveform: Float32[np.ndarray, "sample *channel"], sample_rate: int, wanted: int
) -> Float32[np.ndarray, "resampled *channel"]:
    """Resample a waveform from `sample_rate` to `wanted` Hz if the rates differ.

    Source: the SoX resampler at high quality, which librosa also uses.
    """
    if sample_rate == wanted:
        return waveform
    return soxr.resample(waveform, sample_rate, wanted, quality="HQ")


def resampled_blocks(
    blocks: Iterable[Float32[np.ndarray, "_ *channel"]], sample_rate: int, wanted: int
) -> Iterator[Float32[np.ndarray, "_ *channel"]]:
    """Resample a waveform block by block in constant memory; see `resampled`."""
    if sample_rate == wanted:
        yield from blocks
        return
    blocks = iter(blocks)
    first = next(blocks, np.zeros(0, np.float32))
    n_channels = math.prod(first.shape[1:])
    stream = soxr.ResampleStream(
        sample_rate, wanted, n_channels, dtype="float32", quality="HQ"
    )
    for block in itertools.chain([first], blocks):
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(first[:0], last=True)
