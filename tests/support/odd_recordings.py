"""Bad and odd recordings: how to create each one, and how it must be handled.

`python -m support.odd_recordings`, run in `tests/`, prints the table of
`docs/recordings.md`.
"""

import io
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16000
N = 16000  # samples, enough for several windows
_PCM_GUID = struct.pack("<IHH", 1, 0, 0x10) + bytes.fromhex("800000aa00389b71")


class Accepted(NamedTuple):
    """The properties of a recording that was read."""

    waveform: np.ndarray
    tolerance: float = 2**-14
    remark: str = ""


class Odd(NamedTuple):
    """A recording and its outcome: accepted, or refused with the given message."""

    make: Callable[[Path], Path]  # creates it in a folder and returns its path
    run: Accepted | str  # in a run, which does not resample
    own: Accepted | str  # with `AnomalyDetector`, `watch` and `serve`


def sound(n: int = N) -> np.ndarray:
    """Return mono noise."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, n).astype(np.float32)


SOUND = sound()
PCM = (SOUND * 32767).astype("<i2").tobytes()
PLAIN = Accepted(SOUND)


def chunk(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """Return a chunk of a RIFF file; `size` may be wrong."""
    size = len(data) if size is None else size
    return kind + struct.pack("<I", size) + data + bytes(len(data) % 2)


def fmt(tag=1, channels=1, rate=RATE, bits=16, align=None, extra=b"") -> bytes:
    """Return the chunk that describes the sample format."""
    align = channels * bits // 8 if align is None else align
    per_second = rate * align % 2**32
    fields = (tag, channels, rate, per_second, align, bits)
    return chunk(b"fmt ", struct.pack("<HHIIHH", *fields) + extra)


def riff(*chunks: bytes, size: int | None = None, kind: bytes = b"RIFF") -> bytes:
    """Return a RIFF file; `size` may be wrong."""
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if size is None else size) + body


def encoded(samples=SOUND, kind="WAV", subtype=None, rate=RATE, endian="FILE") -> bytes:
    """Return the bytes of a file that libsndfile has written."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, endian, kind)
    return file.getvalue()


def changed(data: bytes, at: int, new: bytes) -> bytes:
    """Return the bytes with some replaced; a negative position counts from the end."""
    at %= len(data)
    return data[:at] + new + data[at + len(new) :]


floats = partial(encoded, subtype="FLOAT")
doubles = partial(encoded, subtype="DOUBLE")
int16 = partial(encoded, subtype="PCM_16")


def claiming(size: int, riff_size: int | None = None) -> bytes:
    """Return a WAV file whose `data` chunk claims this size."""
    return riff(fmt(), chunk(b"data", PCM, size), size=riff_size)


def flipped(data: bytes, at: int, bits: int) -> bytes:
    """Return the bytes with some bits of one byte flipped."""
    return changed(data, at, bytes([data[at] ^ bits]))


DATA = chunk(b"data", PCM)
WAV = riff(fmt(), DATA)
FLAC, _MP3 = int16(kind="FLAC"), encoded(kind="MP3")
_SHORT = "refused: too short for a window"
_CHANNEL = "the channel set by `features.channel` (default: 0) is used"
_OPTIONAL = "accepted: each frame has its own checksum, and the overall one is optional"
_SHORTER = Accepted(SOUND[:-1])
_RF64_OPEN = changed(int16(kind="RF64"), 20, bytes(16))
_FRAMES = FLAC.index(b"\xff\xf8", 42)  # start of the first FLAC frame
_INFO = chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0")
_MANY = np.stack([SOUND, *(SOUND[::-1] / n for n in range(2, 9))], 1)
_NAN, _INF, _LOUD = (np.insert(SOUND, 7, x) for x in (np.nan, -np.inf, 1e30))
_HUGE, _TINY = np.insert(SOUND.astype(float), 7, 1e300), np.full(N, 1e-40)
_EXTENSIBLE = struct.pack("<HHI", 22, 16, 4)  # following bytes, valid bits, speakers
# As written by ALSA's arecord: 24 bits in four bytes, but the header says three.
_24_IN_4 = chunk(b"data", (SOUND * 2**31).astype("<i4").tobytes())
_CUT = f"truncated: the header claims {N} frames, but the file has "
_NO_AUDIO = "cannot be read as audio"
_BROKEN, _FRAME_OF_4 = "corrupt or truncated", "4-byte frames"
_NO_DATA = f"{_NO_AUDIO} (Error in WAV file. No 'data' chunk marker)"


def _file(data: bytes, name: str = "a.wav") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return make


def _folder(folder: Path) -> Path:
    (folder / "a.wav").mkdir()
    return folder / "a.wav"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.wav")
    return folder / "a.wav"


def _link(to: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "whole").write_bytes(WAV)
        (folder / "a.wav").symlink_to(to)
        return folder / "a.wav"

    return make


def _hard_link(folder: Path) -> Path:
    os.link(_file(WAV, "whole")(folder), folder / "a.wav")
    return folder / "a.wav"


def _archived(folder: Path) -> Path:
    import zipfile

    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("fan/test/a.wav", WAV)
    return folder / "x.zip" / "fan/test/a.wav"


def _as(samples: np.ndarray, tolerance: float = 2**-14, remark: str = "") -> Accepted:
    return Accepted(samples.astype(np.float32), tolerance, remark)


_BYTES: dict[str, tuple] = {
    # Unusual sounds.
    "silence": (encoded(np.zeros(N)), _as(np.zeros(N))),
    "a constant (DC)": (encoded(np.full(N, 0.25)), _as(np.full(N, 0.25))),
    "full-scale clipping": (int16(np.sign(SOUND)), _as(np.sign(SOUND))),
    "one sample": (encoded(SOUND[:1]), _as(SOUND[:1], remark=_SHORT)),
    "float samples beyond full scale": (
        floats(SOUND * 100),
        _as(SOUND * 100, 0, "accepted unchanged"),
    ),
    "float samples on the scale of 16-bit integers": (
        floats(np.rint(SOUND * 2**15)),
        "the samples reach 16384, but full scale must be 1",
    ),
    "float samples of a quiet sound on the scale of 16-bit integers": (
        floats(np.rint(SOUND * 100)),
        "the samples reach 50, but full scale must be 1",
    ),
    "64-bit float samples on the scale of 24-bit integers": (
        doubles(np.rint(SOUND * 2**23)),
        "the samples reach 4.19428e+06",
    ),
    "subnormal float samples": (doubles(_TINY), _as(_TINY)),
    "float samples with a NaN": (floats(_NAN), "sample 7 is nan"),
    "float samples with an infinity": (floats(_INF), "sample 7 is -inf"),
    "an absurdly large float sample (1e30)": (floats(_LOUD), "sample 7 is 1.0"),
    "a double beyond the range of float32": (doubles(_HUGE), "sample 7 is inf"),
    # Formats.
    "8-bit": (encoded(subtype="PCM_U8"), _as(SOUND, 2**-7)),
    "24-bit": (encoded(subtype="PCM_24"), _as(SOUND, 2**-23)),
    "32-bit": (encoded(subtype="PCM_32"), _as(SOUND, 2**-24)),
    "32-bit float": (floats(), _as(SOUND, 0)),
    "64-bit float": (doubles(), _as(SOUND, 0)),
    "12 bits in two bytes": (riff(fmt(bits=12, align=2), DATA), PLAIN),
    "8 channels": (encoded(_MANY), _as(SOUND, remark=_CHANNEL)),
    "96 kHz": (
        encoded(rate=96000),
        "the sample rate is 96000 Hz, not 16000 Hz",
        _as(SOUND, remark="resampled"),
    ),
    "an extensible header": (int16(kind="WAVEX"), PLAIN),
    "an extensible header with 12 valid bits": (
        riff(fmt(0xFFFE, extra=struct.pack("<HHI", 22, 12, 4) + _PCM_GUID), DATA),
        PLAIN,
    ),
    "an extensible header with an unknown format": (
        riff(fmt(0xFFFE, extra=_EXTENSIBLE + b"\x99" * 16), DATA),
        _NO_AUDIO,
    ),
    "RF64": (int16(kind="RF64"), PLAIN),
    "big-endian (RIFX)": (int16(endian="BIG"), PLAIN),
    "A-law": (encoded(subtype="ALAW"), _as(SOUND, 0.02)),
    "µ-law": (encoded(subtype="ULAW"), _as(SOUND, 0.02)),
    "ADPCM": (encoded(subtype="IMA_ADPCM"), "encoded as IMA_ADPCM"),
    "GSM": (encoded(subtype="GSM610"), "encoded as GSM610"),
    "an unknown codec": (riff(fmt(0x4242), DATA), _NO_AUDIO),
    "MP3 in a WAV file": (riff(fmt(0x55), chunk(b"data", _MP3)), _NO_AUDIO),
    "MP3 named .wav": (_MP3, "MP3 files are not supported"),
    "Ogg named .wav": (encoded(kind="OGG"), "OGG files are not supported"),
    "AIFF named .wav": (encoded(kind="AIFF"), "AIFF files are not supported"),
    "Wave64 named .wav": (encoded(kind="W64"), "W64 files are not supported"),
    "FLAC named .wav": (FLAC, PLAIN),
    "text": (b"no sound\n" * 1000, _NO_AUDIO),
    "a proxy's login page": (b"<!doctype html><title>Log in</title>", _NO_AUDIO),
    "only zero bytes": (bytes(8000), _NO_AUDIO),
    # Headers.
    "0 bytes": (b"", "the file is empty"),
    "4 bytes": (b"RIFF", _NO_AUDIO),
    "only a header": (WAV[:44], f"{_CUT}0"),
    "truncated in the header": (WAV[:30], _NO_DATA),
    "truncated": (WAV[:4044], f"{_CUT}2000"),
    "truncated within a sample": (WAV[:4045], f"{_CUT}2000"),
    "RF64, truncated": (int16(kind="RF64")[:-1000], f"{_CUT}{N - 500}"),
    "RIFX, truncated": (int16(endian="BIG")[:-1000], f"{_CUT}{N - 500}"),
    "RF64 that claims a terabyte": (
        riff(
            chunk(b"ds64", struct.pack("<QQQI", 2**40, 2**40, 2**39, 0)),
            fmt(),
            chunk(b"data", PCM, 0xFFFFFFFF),
            size=0xFFFFFFFF,
            kind=b"RF64",
        ),
        f"claims {2**39} frames, but the file has {N}",
    ),
    "RF64 without a `ds64` chunk": (
        changed(claiming(2**32 - 1), 0, b"RF64"),
        _NO_AUDIO,
    ),
    "no samples": (encoded(np.zeros(0)), "the file has no samples"),
    "an empty `data`, then a title": (
        riff(fmt(), chunk(b"data", b""), _INFO),
        "the file has no samples",
    ),
    "an empty `data`, then another": (
        riff(fmt(), chunk(b"data", b""), DATA),
        _NO_AUDIO,
    ),
    "no `data`": (riff(fmt(), _INFO), _NO_DATA),
    "no `fmt `": (riff(DATA), _NO_DATA),
    "`data` before `fmt `": (riff(DATA, fmt()), _NO_DATA),
    "two `fmt `": (riff(fmt(), fmt(rate=8000), DATA), _NO_DATA),
    "two `data`": (riff(fmt(), DATA, DATA), _NO_AUDIO),
    "`RIFF` with size 0": (riff(fmt(), DATA, size=0), PLAIN),
    "`RIFF` with too small a size": (riff(fmt(), DATA, size=100), PLAIN),
    "`RIFF` with too large a size": (riff(fmt(), DATA, size=2**31), PLAIN),
    "`data` with size 0 before samples": (claiming(0), "the file has no samples"),
    "sizes of an empty file, never updated by the recorder": (claiming(0, 36), PLAIN),
    "sizes of zero, never updated by the recorder": (claiming(0, 0), PLAIN),
    "an unclosed file with chunks before the samples": (
        riff(chunk(b"bext", bytes(602)), fmt(), chunk(b"data", PCM, 0), size=646),
        PLAIN,
    ),
    "an unclosed file that ends within a sample": (claiming(0, 36)[:-1], _SHORTER),
    "an unclosed file without samples": (
        claiming(0, 36)[:44],
        "the file has no samples",
    ),
    "RF64, sizes never updated by the recorder": (_RF64_OPEN, PLAIN),
    "`data` that claims too few samples": (
        claiming(2000),
        _as(SOUND[:1000], remark="only the claimed samples are used"),
    ),
    "`data` that claims slightly too many samples": (
        claiming(len(PCM) + 10),
        f"claims {N + 5} frames, but the file has {N}",
    ),
    "`data` that claims 2 GB minus 64 KB": (
        claiming(0x7FFE0000),
        f"claims {0x7FFE0000 // 2} frames, but the file has {N}",
    ),
    "`data` with the size written by streaming tools": (
        claiming(0xFFFFFFFF, 0xFFFFFFFF),
        PLAIN,
    ),
    "`data` with an odd size": (riff(fmt(), chunk(b"data", PCM + b"\1")), PLAIN),
    "chunks before the samples": (
        riff(_INFO, fmt(), chunk(b"bext", bytes(602)), chunk(b"JUNK", b"abc"), DATA),
        PLAIN,
    ),
    "a chunk of an unknown type": (riff(fmt(), chunk(b"zzzz", bytes(9)), DATA), PLAIN),
    "a chunk that claims 2 GB": (
        riff(fmt(), chunk(b"LIST", b"INFO", 2**31 - 1), DATA),
        _NO_DATA,
    ),
    "a `cue ` chunk that claims two billion cue points": (
        riff(fmt(), chunk(b"cue ", struct.pack("<I", 2**31)), DATA),
        PLAIN,
    ),
    "a title after the samples": (riff(fmt(), DATA, _INFO), PLAIN),
    "garbage after the end": (WAV + b"garbage!" * 100, PLAIN),
    "garbage before the beginning": (bytes(16) + WAV, _NO_AUDIO),
    "a sample rate of 0": (riff(fmt(rate=0), DATA), _NO_AUDIO),
    "a sample rate of 1": (
        riff(fmt(rate=1), DATA),
        "the sample rate is 1 Hz",
        "a sample rate of 1 Hz is implausible",
    ),
    "a sample rate of 2147483647": (
        riff(fmt(rate=2**31 - 1), DATA),
        "the sample rate is 2147483647 Hz",
        "a sample rate of 2147483647 Hz is implausible",
    ),
    "a sample rate of 4294967295": (riff(fmt(rate=2**32 - 1), DATA), _NO_AUDIO),
    "0 channels": (riff(fmt(channels=0, align=2), DATA), _NO_AUDIO),
    "65535 channels": (riff(fmt(channels=65535, align=65534), DATA), _NO_AUDIO),
    "0-bit samples": (riff(fmt(bits=0, align=2), DATA), _NO_AUDIO),
    "64-bit integer samples": (riff(fmt(bits=64), DATA), _NO_AUDIO),
    "17 bits in two bytes": (riff(fmt(bits=17), DATA), "2-byte frames"),
    "24 bits in four bytes": (riff(fmt(bits=24, align=4), _24_IN_4), _FRAME_OF_4),
    "a frame size that is twice too large": (riff(fmt(align=4), DATA), _FRAME_OF_4),
    "a frame size of 0": (riff(fmt(align=0), DATA), PLAIN),
    # FLAC.
    "FLAC, a frame with a wrong checksum": (flipped(FLAC, -1, 1), _BROKEN),
    "FLAC, a frame header with a wrong checksum": (
        flipped(FLAC, _FRAMES + 5, 255),
        _BROKEN,
    ),
    "FLAC, a wrong checksum of the whole file": (
        changed(FLAC, 26, bytes(15) + b"\1"),
        Accepted(SOUND, remark=_OPTIONAL),
    ),
    "FLAC, truncated": (FLAC[:-100], _BROKEN),
    "FLAC, only a header": (FLAC[:_FRAMES], _BROKEN),
    "FLAC, truncated in the header": (FLAC[:30], _NO_AUDIO),
    "FLAC of unknown length": (
        changed(FLAC, 21, bytes([FLAC[21] & 0xF0, 0, 0, 0, 0])),
        "the header states no length",
    ),
    "FLAC that claims 2^36 samples": (
        changed(FLAC, 21, bytes([FLAC[21] | 0x0F, *[255] * 4])),
        f"claims {2**36 - 1} frames",
    ),
    "FLAC with a sample rate of 0": (
        changed(FLAC, 18, bytes([0, 0, FLAC[20] & 15])),
        _NO_AUDIO,
    ),
    "FLAC after an ID3 tag": (b"ID3\3\0\0\0\0\0\0" + FLAC, _NO_AUDIO),
    "FLAC, garbage after the end": (FLAC + b"garbage" * 50, PLAIN),
}

_NAMED = {
    "a line break in the name": "a\nb.wav",
    "quotes in the name": "a\"b'c`.wav",
    "markup in the name": "<script>alert(1)<%2fscript>.wav",
    "terminal escape codes in the name": "\x1b[2J\x07.wav",
    "invalid UTF-8 in the name": "\udcff\udc80.wav",
    "a name with spaces and a formula": " =1+1 .wav",
    "a name that looks like an option": "-rf.wav",
    "a name of 255 bytes": "x" * 251 + ".wav",
    "an upper-case suffix": "A.WAV",
}

_PATHS: dict[str, tuple] = {
    "a folder named .wav": (_folder, "not a regular file"),
    "a pipe named .wav": (_pipe, "not a regular file"),
    "a link to a device": (_link("/dev/zero"), "not a regular file"),
    "a dangling link": (_link("nowhere.wav"), "broken link"),
    "a link to itself": (_link("a.wav"), "broken link"),
    "a link to a recording": (_link("whole"), PLAIN),
    "a hard link": (_hard_link, PLAIN),
    "a missing file": (lambda folder: folder / "a.wav", "No such file"),
    "a name that is too long": (lambda f: f / f"{'x' * 300}.wav", "File name too long"),
    "a null character in the name": (lambda folder: folder / "a\0.wav", "null"),
    "a member of a zip archive": (_archived, PLAIN),
}


AS_BYTES = {name: data for name, (data, *_) in _BYTES.items()}
_ALL = {
    **{name: (_file(data), *both) for name, (data, *both) in _BYTES.items()},
    **{what: (_file(WAV, name), PLAIN) for what, name in _NAMED.items()},
    **_PATHS,
}
ODD = {name: Odd(make, both[0], both[-1]) for name, (make, *both) in _ALL.items()}


def table() -> str:
    """Return the table for the documentation."""
    lines = ["| Recording | A run | Own recordings |", "|---|---|---|"]
    for name, odd in ODD.items():
        run, own = (_words(outcome) for outcome in odd[1:])
        lines.append(f"| {name} | {run} | {'same' if own == run else own} |")
    return "\n".join(lines) + "\n"


def _words(outcome: Accepted | str) -> str:
    if isinstance(outcome, Accepted):
        return outcome.remark or "accepted"
    return f"refused: {outcome.strip()} …"


if __name__ == "__main__":
    print(table(), end="")
