"""Checks a recording's header for contradictions and unsupported formats.

libsndfile silently accepts contradictory headers: it returns what is left of a
truncated file and decodes samples as noise if the header misstates their width. Only
libsndfile's log reveals this.
"""

import os
import re
from typing import Any, NamedTuple

from gammavae_jax.errors import InputError
from gammavae_jax.files import open_regular

_CONTAINERS = ("WAV", "WAVEX", "RF64", "FLAC")
# Bytes per sample. Block codecs such as ADPCM are not supported: truncated files decode
# without an error, and their quantisation noise masks the machine's sound.
_WIDTHS = {
    **dict.fromkeys(("PCM_S8", "PCM_U8", "ALAW", "ULAW"), 1),
    **{"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8},
}
HEAD_BYTES = 1 << 16  # enough for any chunks before the samples
_UNKNOWN_BYTES = 0x7FFF0000  # streams of unknown length state at least this size
_UNKNOWN_BYTES_64 = 1 << 62  # the same in RF64
# Resampling from an absurd rate could take forever or exhaust memory.
_RATES = range(1000, 1_000_001)  # Hz


def require_supported(file: Any, name: str) -> None:
    """Reject a `soundfile.SoundFile` with an unsupported or contradictory header."""
    if file.format not in _CONTAINERS:
        raise InputError(
            f"{name}: {file.format} files are not supported: convert it to WAV or FLAC"
        )
    width = _WIDTHS.get(file.subtype)
    if width is None:
        raise InputError(
            f"{name}: encoded as {file.subtype}, which distorts the sound: record as "
            "16-bit PCM instead"
        )
    align = _block_align(file.extra_info)
    if align and align != file.channels * width:
        raise InputError(
            f"{name}: the header contradicts itself ({align}-byte frames, {width}-byte "
            f"samples, channels: {file.channels}): export the file again"
        )


def require_rate(sample_rate: int, name: str) -> None:
    """Reject an implausible sample rate."""
    if sample_rate not in _RATES:
        raise InputError(
            f"{name}: a sample rate of {sample_rate} Hz is implausible: replace the "
            "file"
        )


def claimed_frames(file: Any) -> int:
    """Return the number of frames that the header claims.

    libsndfile silently shortens truncated WAV files. Only libsndfile's log has the
    original size, in a line like `data : 16000 (should be 7978)`, or for RF64 in a line
    like `Data size : 16000`.
    """
    line, unknown = r"data : (\d+) \(should be \d+\)", _UNKNOWN_BYTES
    if file.format == "RF64":
        line, unknown = r"  Data size : (\d+)", _UNKNOWN_BYTES_64
    n_bytes, align = _number_in(file.extra_info, line), _block_align(file.extra_info)
    return n_bytes // align if align and 0 < n_bytes < unknown else file.frames


class _Samples(NamedTuple):
    """The position and size of the samples, as stated by a WAV header."""

    riff_end: int  # where the RIFF chunk ends, which usually is the end of the file
    start: int  # where the samples start
    n_bytes: int


def _samples_of(head: bytes) -> _Samples | None:
    """Parse the beginning of a WAV file; return None if it is something else."""
    order = "big" if head[:4] == b"RIFX" else "little"
    is_wav = head[:4] in (b"RIFF", b"RIFX", b"RF64")
    riff_end, at = 8 + int.from_bytes(head[4:8], order), 12  # `at`: a chunk's start
    while is_wav and at + 8 <= len(head):
        start, n_bytes = at + 8, int.from_bytes(head[at + 4 : at + 8], order)
        if head[at : at + 4] == b"data":
            if head[12:16] == b"ds64":
                riff_end = 8 + int.from_bytes(head[20:28], order)
                n_bytes = int.from_bytes(head[28:36], order)
            return _Samples(riff_end, start, n_bytes)
        at = start + n_bytes + n_bytes % 2
    return None


def closed_head(head: bytes, n_bytes: int) -> bytes | None:
    """Return the first bytes of a WAV file, with its missing data size filled in.

    A recorder that is interrupted does not write this size. The samples then extend to
    the end of the file, which is `n_bytes` long. Return None for other files.
    """
    found = _samples_of(head)
    # If the RIFF chunk ends after the start of the samples, the size of 0 is correct:
    # there are no samples, and other chunks follow.
    if found is None or found.n_bytes or found.start < found.riff_end < _UNKNOWN_BYTES:
        return None
    order, end, width = "little", found.start, 4
    if head[:4] == b"RF64":
        end, width = 36, 8
    elif head[:4] == b"RIFX":
        order = "big"
    size = min(n_bytes - found.start, 256**width - 1).to_bytes(width, order)
    return head[: end - width] + size + head[end:]


def lacks_samples(path: str | os.PathLike[str]) -> bool:
    """Return whether a recording seems incomplete, judging by its header.

    This is the case if the file is empty, if the header states no length, or if a WAV
    header claims more samples than the file contains. Return False for a file that
    cannot be read or has another format.
    """
    try:
        with open_regular(path) as file:
            head, n_bytes = file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
    except OSError:
        return False
    if head[:4] == b"fLaC":
        return not int.from_bytes(head[18:26], "big") % (1 << 36)  # number of samples
    found = _samples_of(head)
    if found is None:
        return n_bytes == 0
    return not found.n_bytes or found.start + found.n_bytes > n_bytes


def _block_align(log: str) -> int:
    """Return the bytes per frame that the header states, or 0 if it states none."""
    return _number_in(log, r"  Block Align +: (\d+)")


def _number_in(log: str, line: str) -> int:
    match = re.search(f"^{line}", log, re.MULTILINE)
    return int(match[1]) if match else 0
