"""Checks a recording's header for contradictions and unsupported formats.

libsndfile silently accepts contradictory headers: it shortens truncated files and
decodes samples of another width as noise. Only its log reveals this.
"""

import re
from typing import Any

from gammavae_jax.errors import InputError

_CONTAINERS = ("WAV", "WAVEX", "RF64", "FLAC")
# Bytes per sample. Block codecs such as ADPCM are not supported: truncated files decode
# without an error, and their quantisation noise masks the machine's sound.
_WIDTHS = {
    **dict.fromkeys(("PCM_S8", "PCM_U8", "ALAW", "ULAW"), 1),
    **{"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8},
}
_UNKNOWN_BYTES = 0x7FFF0000  # WAV streams write a data size of at least this
_UNKNOWN_BYTES_64 = 1 << 62  # the same for RF64
# Resampling from an absurd rate could take forever or exhaust the memory.
_RATES = range(1000, 1_000_001)  # Hz


def require_supported(file: Any, name: str) -> None:
    """Reject a `soundfile.SoundFile` with an unsupported or contradictory header."""
    if file.format not in _CONTAINERS:
        raise InputError(
            f"{name}: cannot be read as audio (this is {file.format}): replace it with "
            "a WAV or FLAC file"
        )
    width = _WIDTHS.get(file.subtype)
    if width is None:
        raise InputError(
            f"{name}: encoded as {file.subtype}, which distorts the sound: record in "
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

    libsndfile silently shortens truncated WAV files. Only its log has the original
    size, in a line like `data : 16000 (should be 7978)` or, for RF64, `Data size :
    16000`.
    """
    line, unknown = r"data : (\d+) \(should be \d+\)", _UNKNOWN_BYTES
    if file.format == "RF64":
        line, unknown = r"  Data size : (\d+)", _UNKNOWN_BYTES_64
    n_bytes, align = _number_in(file.extra_info, line), _block_align(file.extra_info)
    return n_bytes // align if align and 0 < n_bytes < unknown else file.frames


def _block_align(log: str) -> int:
    """Return the bytes per frame that the header states; 0 if it states none."""
    return _number_in(log, r"  Block Align +: (\d+)")


def _number_in(log: str, line: str) -> int:
    match = re.search(f"^{line}", log, re.MULTILINE)
    return int(match[1]) if match else 0
