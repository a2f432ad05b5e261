"""What the header of a recording claims, and where it cannot be believed.

libsndfile repairs in silence what contradicts itself: it shortens files that were cut
off, and decodes samples of another width to noise. Its log still tells.
"""

import re
from typing import Any

from gammavae_jax.errors import InputError

_CONTAINERS = ("WAV", "WAVEX", "RF64", "FLAC")
# Bytes a sample. Codecs of blocks are left out: cut off, they decode without a word,
# and their noise is not the machine's.
_WIDTHS = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
    "ALAW": 1,
    "ULAW": 1,
}
_UNKNOWN_BYTES = 0x7FFF0000  # data sizes from here on are what WAV streams write
_UNKNOWN_BYTES_64 = 1 << 62  # the same of RF64
# To resample from what a header claims may take for ever, or all the memory there is.
_RATES = range(1000, 1_000_001)  # Hz


def require_plain(file: Any, name: str) -> None:
    """Refuse what is no WAV or FLAC, packed by blocks, or contradicts itself.

    Args:
        file: a `soundfile.SoundFile`.
        name: for the message.

    Raises:
        InputError: one of these.
    """
    if file.format not in _CONTAINERS:
        raise InputError(
            f"{name}: cannot be read as audio (this is {file.format}): replace it by a "
            "WAV or FLAC file"
        )
    width = _WIDTHS.get(file.subtype)
    if width is None:
        raise InputError(
            f"{name}: packed as {file.subtype}, which loses what is to be heard: write "
            "it as 16-bit PCM"
        )
    align = _block_align(file.extra_info)
    if align and align != file.channels * width:
        raise InputError(
            f"{name}: the header contradicts itself: frames of {align} bytes for "
            f"{file.channels} channels of {width} bytes each: write it anew"
        )


def require_rate(sample_rate: int, name: str) -> None:
    """Refuse a sample rate that nothing was recorded at.

    Raises:
        InputError: such a rate.
    """
    if sample_rate not in _RATES:
        raise InputError(
            f"{name}: a sample rate of {sample_rate} Hz cannot be: replace the file"
        )


def claimed_frames(file: Any) -> int:
    """Frames by the header; libsndfile shortens a truncated WAV's without a word.

    Only its log still tells, in a line such as `data : 16000 (should be 7978)`, or for
    RF64 `Data size : 16000`.
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
    """Bytes of a frame, as the header has them; 0 where it has none."""
    align = re.search(r"^  Block Align +: (\d+)", log, re.MULTILINE)
    return int(align[1]) if align else 0
