"""Bad and odd recordings: how each is made, and what is decided to happen to it.

`python tests/odd_recordings.py` prints the table of `docs/recordings.md`.
"""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16000
N = 16000  # enough for windows
_PCM_GUID = struct.pack("<IHH", 1, 0, 0x10) + bytes.fromhex("800000aa00389b71")


class Heard(NamedTuple):
    """What a recording is read as."""

    waveform: np.ndarray
    tolerance: float = 2**-14
    about: str = ""


class Odd(NamedTuple):
    """A recording, and what becomes of it; a text is a part of the refusal."""

    make: Callable[[Path], Path]  # given a folder
    run: Heard | str  # in the main job, which resamples nothing
    own: Heard | str  # with own recordings, and live


def sound(n: int = N) -> np.ndarray:
    """Noise of one channel."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, n).astype(np.float32)


SOUND = sound()
PCM = (SOUND * 32767).astype("<i2").tobytes()
PLAIN = Heard(SOUND)


def chunk(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """A chunk of a RIFF file, whose size may be a lie."""
    size = len(data) if size is None else size
    return kind + struct.pack("<I", size) + data + bytes(len(data) % 2)


def fmt(tag=1, channels=1, rate=RATE, bits=16, align=None, extra=b"") -> bytes:
    """The chunk that describes the samples."""
    align = channels * bits // 8 if align is None else align
    per_second = rate * align % 2**32
    fields = (tag, channels, rate, per_second, align, bits)
    return chunk(b"fmt ", struct.pack("<HHIIHH", *fields) + extra)


def riff(*chunks: bytes, size: int | None = None, kind: bytes = b"RIFF") -> bytes:
    """A RIFF file, whose size may be a lie."""
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if size is None else size) + body


def encoded(samples=SOUND, kind="WAV", subtype=None, rate=RATE, endian="FILE") -> bytes:
    """A file that libsndfile writes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, endian, kind)
    return file.getvalue()


def changed(data: bytes, at: int, new: bytes) -> bytes:
    """Bytes with some replaced; a negative place counts from the end."""
    at %= len(data)
    return data[:at] + new + data[at + len(new) :]


DATA = chunk(b"data", PCM)
WAV = riff(fmt(), DATA)
FLAC = encoded(kind="FLAC", subtype="PCM_16")
_FRAMES = FLAC.index(b"\xff\xf8", 42)  # where FLAC's first frame begins
_INFO = chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0")
_MANY = np.stack([SOUND, *(SOUND[::-1] / n for n in range(2, 9))], 1)
_NAN, _INF, _LOUD = (np.insert(SOUND, 7, x) for x in (np.nan, -np.inf, 1e30))
_EXTENSIBLE = struct.pack("<HHI", 22, 16, 4)  # bytes that follow, valid bits, speakers
# Of ALSA's arecord: 24 bits in four bytes, under a header that says three.
_24_IN_4 = chunk(b"data", (SOUND * 2**31).astype("<i4").tobytes())
_CUT = f"cut off: the header claims {N} frames, the file holds "
_NO_AUDIO = "cannot be read as audio"
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


def _heard(samples: np.ndarray, tolerance: float = 2**-14, about: str = "") -> Heard:
    return Heard(samples.astype(np.float32), tolerance, about)


_BYTES: dict[str, tuple] = {
    # Sound that is unusual.
    "silence": (encoded(np.zeros(N)), _heard(np.zeros(N))),
    "a constant (DC)": (encoded(np.full(N, 0.25)), _heard(np.full(N, 0.25))),
    "full-scale clipping": (
        encoded(np.sign(SOUND), subtype="PCM_16"),
        _heard(np.sign(SOUND)),
    ),
    "one sample": (
        encoded(SOUND[:1]),
        _heard(SOUND[:1], about="refused: too short for a window"),
    ),
    "float samples beyond full scale": (
        encoded(SOUND * 100, subtype="FLOAT"),
        _heard(SOUND * 100, 0, "read as they are"),
    ),
    "float samples too small for float32's normal numbers": (
        encoded(np.full(N, 1e-40), subtype="DOUBLE"),
        _heard(np.full(N, 1e-40)),
    ),
    "float samples with a NaN": (encoded(_NAN, subtype="FLOAT"), "sample 7 is nan"),
    "float samples with an infinity": (
        encoded(_INF, subtype="FLOAT"),
        "sample 7 is -inf",
    ),
    "a float sample that no sound has (1e30)": (
        encoded(_LOUD, subtype="FLOAT"),
        "sample 7 is 1.0",
    ),
    "doubles beyond float32": (
        encoded(np.insert(SOUND.astype(float), 7, 1e300), subtype="DOUBLE"),
        "sample 7 is inf",
    ),
    # Formats.
    "8-bit": (encoded(subtype="PCM_U8"), _heard(SOUND, 2**-7)),
    "24-bit": (encoded(subtype="PCM_24"), _heard(SOUND, 2**-23)),
    "32-bit": (encoded(subtype="PCM_32"), _heard(SOUND, 2**-24)),
    "32-bit float": (encoded(subtype="FLOAT"), _heard(SOUND, 0)),
    "64-bit float": (encoded(subtype="DOUBLE"), _heard(SOUND, 0)),
    "12 bits in two bytes": (riff(fmt(bits=12, align=2), DATA), PLAIN),
    "8 channels": (
        encoded(_MANY),
        _heard(SOUND, about="channel 0 is read, or `features.channel`"),
    ),
    "96 kHz": (
        encoded(rate=96000),
        "the sample rate is 96000 Hz, not 16000 Hz",
        _heard(SOUND, about="resampled"),
    ),
    "an extensible header": (encoded(kind="WAVEX", subtype="PCM_16"), PLAIN),
    "an extensible header of 12 valid bits": (
        riff(
            fmt(0xFFFE, extra=struct.pack("<HHI", 22, 12, 4) + _PCM_GUID),
            DATA,
        ),
        PLAIN,
    ),
    "an extensible header of an unknown format": (
        riff(fmt(0xFFFE, extra=_EXTENSIBLE + b"\x99" * 16), DATA),
        _NO_AUDIO,
    ),
    "RF64": (encoded(kind="RF64", subtype="PCM_16"), PLAIN),
    "big-endian (RIFX)": (encoded(subtype="PCM_16", endian="BIG"), PLAIN),
    "A-law": (encoded(subtype="ALAW"), _heard(SOUND, 0.02)),
    "µ-law": (encoded(subtype="ULAW"), _heard(SOUND, 0.02)),
    "ADPCM": (encoded(subtype="IMA_ADPCM"), "packed as IMA_ADPCM"),
    "GSM": (encoded(subtype="GSM610"), "packed as GSM610"),
    "an unknown codec": (riff(fmt(0x4242), DATA), _NO_AUDIO),
    "MP3 in a WAV file": (
        riff(fmt(0x55), chunk(b"data", encoded(kind="MP3"))),
        _NO_AUDIO,
    ),
    "MP3 named .wav": (encoded(kind="MP3"), f"{_NO_AUDIO} (this is MP3)"),
    "Ogg named .wav": (encoded(kind="OGG"), f"{_NO_AUDIO} (this is OGG)"),
    "AIFF named .wav": (encoded(kind="AIFF"), f"{_NO_AUDIO} (this is AIFF)"),
    "Wave64 named .wav": (encoded(kind="W64"), f"{_NO_AUDIO} (this is W64)"),
    "FLAC named .wav": (FLAC, PLAIN),
    "text": (b"no sound\n" * 1000, _NO_AUDIO),
    "a page of a proxy": (b"<!doctype html><title>Log in</title>", _NO_AUDIO),
    "zero bytes throughout": (bytes(8000), _NO_AUDIO),
    # Headers.
    "0 bytes": (b"", "the file is empty"),
    "4 bytes": (b"RIFF", _NO_AUDIO),
    "a header alone": (WAV[:44], f"{_CUT}0"),
    "cut off in the header": (WAV[:30], _NO_DATA),
    "cut off": (WAV[:4044], f"{_CUT}2000"),
    "cut off within a sample": (WAV[:4045], f"{_CUT}2000"),
    "RF64, cut off": (
        encoded(kind="RF64", subtype="PCM_16")[:-1000],
        f"{_CUT}{N - 500}",
    ),
    "RIFX, cut off": (
        encoded(subtype="PCM_16", endian="BIG")[:-1000],
        f"{_CUT}{N - 500}",
    ),
    "RF64 that claims a terabyte": (
        riff(
            chunk(b"ds64", struct.pack("<QQQI", 2**40, 2**40, 2**39, 0)),
            fmt(),
            chunk(b"data", PCM, 0xFFFFFFFF),
            size=0xFFFFFFFF,
            kind=b"RF64",
        ),
        f"claims {2**39} frames, the file holds {N}",
    ),
    "RF64 without its sizes": (
        riff(fmt(), chunk(b"data", PCM, 0xFFFFFFFF), kind=b"RF64"),
        _NO_AUDIO,
    ),
    "no samples": (encoded(np.zeros(0)), "the file holds no samples"),
    "no samples, then a title": (
        riff(fmt(), chunk(b"data", b""), _INFO),
        "the file holds no samples",
    ),
    "no samples, then samples": (riff(fmt(), chunk(b"data", b""), DATA), _NO_AUDIO),
    "no `data`": (riff(fmt(), _INFO), _NO_DATA),
    "no `fmt `": (riff(DATA), _NO_DATA),
    "`data` before `fmt `": (riff(DATA, fmt()), _NO_DATA),
    "two `fmt `": (riff(fmt(), fmt(rate=8000), DATA), _NO_DATA),
    "two `data`": (
        riff(fmt(), chunk(b"data", PCM[:8000]), chunk(b"data", PCM[8000:])),
        _NO_AUDIO,
    ),
    "`RIFF` of size 0": (riff(fmt(), DATA, size=0), PLAIN),
    "`RIFF` of a size that is too small": (riff(fmt(), DATA, size=100), PLAIN),
    "`RIFF` of a size that is too great": (riff(fmt(), DATA, size=2**31), PLAIN),
    "`data` of size 0, before samples": (
        riff(fmt(), chunk(b"data", PCM, 0)),
        "the file holds no samples",
    ),
    "`data` that claims less than there is": (
        riff(fmt(), chunk(b"data", PCM, 2000)),
        _heard(SOUND[:1000], about="read as far as it claims"),
    ),
    "`data` that claims a little more than there is": (
        riff(fmt(), chunk(b"data", PCM, len(PCM) + 10)),
        f"claims {N + 5} frames, the file holds {N}",
    ),
    "`data` that claims 2 GB less 64 KB": (
        riff(fmt(), chunk(b"data", PCM, 0x7FFE0000)),
        f"claims {0x7FFE0000 // 2} frames, the file holds {N}",
    ),
    "`data` of the size that a pipe leaves": (
        riff(fmt(), chunk(b"data", PCM, 0xFFFFFFFF), size=0xFFFFFFFF),
        PLAIN,
    ),
    "`data` of an odd size": (riff(fmt(), chunk(b"data", PCM + b"\1")), PLAIN),
    "chunks before the samples": (
        riff(_INFO, fmt(), chunk(b"bext", bytes(602)), chunk(b"JUNK", b"abc"), DATA),
        PLAIN,
    ),
    "a chunk of an unknown kind": (riff(fmt(), chunk(b"zzzz", bytes(9)), DATA), PLAIN),
    "a chunk that claims 2 GB": (
        riff(fmt(), chunk(b"LIST", b"INFO", 2**31 - 1), DATA),
        _NO_DATA,
    ),
    "marks that claim to be two thousand million": (
        riff(fmt(), chunk(b"cue ", struct.pack("<I", 2**31)), DATA),
        PLAIN,
    ),
    "a title after the samples": (riff(fmt(), DATA, _INFO), PLAIN),
    "rubbish after the end": (WAV + b"rubbish!" * 100, PLAIN),
    "rubbish before the beginning": (bytes(16) + WAV, _NO_AUDIO),
    "a sample rate of 0": (riff(fmt(rate=0), DATA), _NO_AUDIO),
    "a sample rate of 1": (
        riff(fmt(rate=1), DATA),
        "the sample rate is 1 Hz",
        "a sample rate of 1 Hz cannot be",
    ),
    "a sample rate of 2147483647": (
        riff(fmt(rate=2**31 - 1), DATA),
        "the sample rate is 2147483647 Hz",
        "a sample rate of 2147483647 Hz cannot be",
    ),
    "a sample rate of 4294967295": (riff(fmt(rate=2**32 - 1), DATA), _NO_AUDIO),
    "no channel": (riff(fmt(channels=0, align=2), DATA), _NO_AUDIO),
    "65535 channels": (riff(fmt(channels=65535, align=65534), DATA), _NO_AUDIO),
    "samples of 0 bits": (riff(fmt(bits=0, align=2), DATA), _NO_AUDIO),
    "samples of 64 bits": (riff(fmt(bits=64), DATA), _NO_AUDIO),
    "17 bits in two bytes": (riff(fmt(bits=17), DATA), "frames of 2 bytes"),
    "24 bits in four bytes": (
        riff(fmt(bits=24, align=4), _24_IN_4),
        "frames of 4 bytes",
    ),
    "frames of twice their size": (riff(fmt(align=4), DATA), "frames of 4 bytes"),
    "frames of size 0": (riff(fmt(align=0), DATA), PLAIN),
    # FLAC.
    "FLAC, a frame whose checksum is wrong": (
        changed(FLAC, -1, bytes([FLAC[-1] ^ 1])),
        "damaged or cut off",
    ),
    "FLAC, a frame's header whose checksum is wrong": (
        changed(FLAC, _FRAMES + 5, bytes([FLAC[_FRAMES + 5] ^ 255])),
        "damaged or cut off",
    ),
    "FLAC, the checksum of the whole wrong": (
        changed(FLAC, 26, bytes(15) + b"\1"),
        _heard(
            SOUND,
            about="read: each frame has its own checksum, and that of the whole may "
            "be left out",
        ),
    ),
    "FLAC, cut off": (FLAC[:-100], "damaged or cut off"),
    "FLAC, a header alone": (FLAC[:_FRAMES], "damaged or cut off"),
    "FLAC, cut off in the header": (FLAC[:30], _NO_AUDIO),
    "FLAC of unknown length": (
        changed(FLAC, 21, bytes([FLAC[21] & 0xF0, 0, 0, 0, 0])),
        "the header gives no length",
    ),
    "FLAC that claims 2^36 samples": (
        changed(FLAC, 21, bytes([FLAC[21] | 0x0F, *[255] * 4])),
        f"claims {2**36 - 1} frames",
    ),
    "FLAC at a rate of 0": (
        changed(FLAC, 18, bytes([0, 0, FLAC[20] & 15])),
        _NO_AUDIO,
    ),
    "FLAC behind an ID3 tag": (b"ID3\3\0\0\0\0\0\0" + FLAC, _NO_AUDIO),
    "FLAC, rubbish after the end": (FLAC + b"rubbish" * 50, PLAIN),
}

_NAMED = {
    "a line break in the name": "a\nb.wav",
    "quotes in the name": "a\"b'c`.wav",
    "markup in the name": "<script>alert(1)<%2fscript>.wav",
    "a terminal's commands in the name": "\x1b[2J\x07.wav",
    "bytes that are no UTF-8 in the name": "\udcff\udc80.wav",
    "spaces and a formula for a name": " =1+1 .wav",
    "a name like an option": "-rf.wav",
    "a name of 255 bytes": "x" * 251 + ".wav",
    "a suffix in capitals": "A.WAV",
}

_PATHS: dict[str, tuple] = {
    "a folder named .wav": (_folder, "this is not a file"),
    "a pipe named .wav": (_pipe, "this is not a file"),
    "a link to a device": (_link("/dev/zero"), "this is not a file"),
    "a dangling link": (_link("nowhere.wav"), "the link leads nowhere"),
    "a link to itself": (_link("a.wav"), "the link leads nowhere"),
    "a link to a recording": (_link("whole"), PLAIN),
    "a hard link": (_hard_link, PLAIN),
    "no file": (lambda folder: folder / "a.wav", "No such file"),
    "a name that is too long": (
        lambda folder: folder / f"{'x' * 300}.wav",
        "File name too long",
    ),
    "a zero byte in the name": (lambda folder: folder / "a\0.wav", "null"),
    "a member of a zip archive": (_archived, PLAIN),
}


def _both(outcomes: tuple) -> tuple:
    return outcomes if len(outcomes) == 2 else outcomes * 2


ODD: dict[str, Odd] = {
    **{
        name: Odd(_file(data), *_both(tuple(outcomes)))
        for name, (data, *outcomes) in _BYTES.items()
    },
    **{what: Odd(_file(WAV, name), PLAIN, PLAIN) for what, name in _NAMED.items()},
    **{
        name: Odd(make, *_both(tuple(outcomes)))
        for name, (make, *outcomes) in _PATHS.items()
    },
}
AS_BYTES = {name: data for name, (data, *_) in _BYTES.items()}


def table() -> str:
    """The table of the documentation."""
    lines = ["| Recording | A run | Own recordings |", "|---|---|---|"]
    for name, odd in ODD.items():
        run, own = (_words(outcome) for outcome in odd[1:])
        lines.append(f"| {name} | {run} | {'the same' if own == run else own} |")
    return "\n".join(lines) + "\n"


def _words(outcome: Heard | str) -> str:
    if isinstance(outcome, Heard):
        return outcome.about or "read"
    return f"refused: {outcome.strip()} …"


if __name__ == "__main__":
    print(table(), end="")
