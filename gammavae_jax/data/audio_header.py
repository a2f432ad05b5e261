"""Checks a recording's header for contradictions and unsupported formats.

libsndfile silently repairs contradictory headers: it shortens truncated files and
decodes samples of another width to noise. Only its log reveals this.
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
    """Refuse a `soundfile.SoundFile` that is unsupported or contradicts itself.

    Raises:
        InputError: the file is neither WAV nor FLAC, uses a block codec, or the frame
            size in its header is wrong.
    """
    if file.format not in _CONTAINERS:
        raise InputError(
            f"{name}: cannot be read as audio (this is {file.format}): replace it with "
            "a WAV or FLAC file"
        )
    width = _WIDTHS.get(file.subtype)
    if width is None:
        raise InputError(
            f"{name}: encoded as {file.subtype}, which distorts the sound: record "
            "16-bit PCM instead"
        )
    align = _block_align(file.extra_info)
    if align and align != file.channels * width:
        raise InputError(
            f"{name}: the header contradicts itself: frames of {align} bytes for "
            f"{file.channels} channels of {width} bytes each: write the file again"
        )


def require_rate(sample_rate: int, name: str) -> None:
    """Refuse an implausible sample rate.

    Raises:
        InputError: the rate in Hz is out of range.
    """
    if sample_rate not in _RATES:
        raise InputError(
            f"{name}: a sample rate of {sample_rate} Hz is implausible: replace the "
            "file"
        )


def claimed_frames(file: Any) -> int:
    """The number of frames that the header claims.

    libsndfile silently shortens truncated WAV files. Only its log has the original
    size, in a line like `data : 16000 (should be 7978)` or, for RF64, `Data size :
    16000`.
    """
    log = file.extra_info
    data = re.search(r"^data : (\d+) \(should be \d+\)", log, re.MULTILINE)
    unknown = _UNKNOWN_BYTES
    if file.format == "RF64":
        data = re.search(r"^  Data size : (\d+)", log, re.MULTILINE)
        unknown = _UNKNOWN_BYTES_64
    align = _block_align(log)
    if not data or not align or not 0 < int(data[1]) < unknown:
        return file.frames
    return int(data[1]) // align


def _block_align(log: str) -> int:
    """The bytes per frame according to the header; 0 if it does not say."""
    align = re.search(r"^  Block Align +: (\d+)", log, re.MULTILINE)
    return int(align[1]) if align else 0
