"""The fuzzed readers of untrusted bytes, and what each must guarantee.

A reader may refuse its input with an `InputError` (over HTTP, a `Refusal`) whose
message is one printable line. Every other error is a finding.
"""

import contextlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict, override, to_dict
from gammavae_jax.data.audio import archives
from gammavae_jax.data.audio.files import open_recording, read_recording
from gammavae_jax.data.names import clip_stem, machine_and_section, parse_clip_name
from gammavae_jax.errors import InputError, printable
from gammavae_jax.evaluation.csv_files import (
    escape_formula,
    read_clips_csv,
    unescape_formula,
)
from gammavae_jax.evaluation.ground_truth import truth_from_files, truth_from_list
from gammavae_jax.evaluation.score_files import read_score_files, write_scores
from gammavae_jax.live.metrics import Refusal
from gammavae_jax.live.uploads import Body


class Target(NamedTuple):
    """A reader, and valid inputs for it."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Accept an `InputError` or a `Refusal` whose message is one printable line."""
    refusal = ""
    try:
        yield
    except (InputError, Refusal) as error:
        refusal = str(error)
    assert refusal.isprintable(), refusal


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # In memory if possible, because each of many thousands of inputs becomes a file.
    parent = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def _audio(data: bytes) -> None:
    """Read the data at once and in blocks; both must give the same result."""
    whole = blocks = None
    with _folder() as folder, _refusals():
        path = folder / "x.wav"
        path.write_bytes(data)
        whole = read_recording(path).waveform
    with _refusals(), open_recording(data, name="x") as recording:
        blocks = np.concatenate(list(recording.blocks))
    if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"fLaC"):
        assert (whole is None) == (blocks is None)
    if blocks is not None:
        assert np.isfinite(blocks).all()
        np.testing.assert_array_equal(whole, blocks)


def _sounds() -> list[bytes]:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (96, 2))
    kinds = [
        ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"), ("WAV", "ALAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16"),
        ("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"),
    ]  # fmt: skip
    return [_encoded(samples, *kind) for kind in kinds]


def _encoded(samples: np.ndarray, kind: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, subtype, format=kind)
    return file.getvalue()


def _tables(data: bytes) -> None:
    """Read score files, both kinds of ground truth, and a run's table of clips."""
    with _folder() as folder:
        name = "fan_section_00_test.csv"
        truth = folder / "ground_truth_data" / f"ground_truth_{name}"
        truth.parent.mkdir()
        for path in (
            folder / f"anomaly_score_{name}",
            truth,
            folder / "eval_data_list_2024.csv",
            folder / "clips.csv",
        ):
            path.write_bytes(data)
        with _refusals():
            read_score_files(folder)
        with _refusals():
            truth_from_files(truth)
        with _refusals():
            truth_from_list(folder / "eval_data_list_2024.csv")
        with _refusals():
            read_clips_csv(folder / "clips.csv")


def _texts_of_tables() -> list[bytes]:
    names = [f"section_00_source_test_{x}_0000_a.wav" for x in ("normal", "anomaly")]
    with _folder() as folder:
        scores = write_scores(folder, "fan", "00", names, np.arange(2.0)).read_bytes()
    return [
        scores,
        b"\xef\xbb\xbf" + scores.replace(b"\n", b"\r\n"),
        f"fan\nsection_00_0000.wav,{names[0]}\nsection_00_0001.wav,{names[1]}\n".encode(),
        b"section_00_0000.wav,0\nsection_00_0001.wav,1\n",
        b'"normal_0, ""a"".wav",1\n"anomaly_0",2e3\n',
        b"seed,score,machine,section,clip,anomaly_score,p_value,decision\n"
        b"7,mse,fan,00,'=1.wav,1.5,0.25,0\n",
    ]


def _form(data: bytes) -> None:
    """Read a form: the data's first line is the content type, and the rest the body."""
    content_type, _, body = data.partition(b"\n")
    with _refusals():
        arriving = Body(content_type.decode("latin-1"), None)
        arriving.add(body)
        recording = arriving.upload()
        assert recording.data
        assert recording.name.isprintable()
        assert "/" not in recording.name


def _forms() -> list[bytes]:
    head = b'Content-Disposition: form-data; name="f"; filename="a.wav"'
    form = b"--b\r\n" + head + b"\r\n\r\nRIFF....\r\n--b--\r\n"
    encoded = form.replace(b'filename="a.wav"', b"filename*=utf-8''gr%C3%B6.wav")
    return [
        b"audio/wav\nRIFF",
        b"multipart/form-data; boundary=b\n" + form,
        b'multipart/form-data; boundary="b"\n' + encoded,
        b"multipart/form-data; boundary=b\n--b\r\nX: y\r\n\r\nz\r\n" + form,
    ]


def _names(data: bytes) -> None:
    """Parse, print and escape a name; this must never fail."""
    name = os.fsdecode(data)
    parsed = parse_clip_name(name)
    assert parsed.section
    assert parse_clip_name(clip_stem(name) + ".wav") == parsed
    machine_and_section(name)
    assert printable(name).isprintable()
    assert unescape_formula(escape_formula(name)) == name


def _some_names() -> list[bytes]:
    return [
        b"section_00_source_train_normal_0000_vel_1.wav",
        b"anomaly_id_06_00000356.flac",
        b"anomaly_score_DCASE2024T2fan_section_00_target_test_x.csv",
        b"\xff\n;=1+1'=\x1b[2J.wav",
    ]


def _config(data: bytes) -> None:
    """Read overrides and JSON; accepted ones must survive a JSON round trip."""
    text = data.decode("utf-8", "replace")
    with _refusals():
        _check_config(override(Config(), text.splitlines()))
    with _refusals(), contextlib.suppress(json.JSONDecodeError, RecursionError):
        _check_config(from_dict(json.loads(text)))


def _check_config(config: Config) -> None:
    assert from_dict(to_dict(config)) == config


def _configs() -> list[bytes]:
    return [
        json.dumps(to_dict(Config())).encode(),
        b"train.epochs=5\nmodel.hidden=[64,64]\nfeatures.power=1\nmodel.heads=softmax",
        b'{"train": {"epochs": 3}, "scores": ["mse"], "score": "mse"}',
    ]


def _archive(data: bytes) -> None:
    """List a zip archive of recordings, and read each of them."""
    with _folder() as folder:
        archive = folder / "dev_fan.zip"
        archive.write_bytes(data)
        recordings = []
        with _refusals():
            recordings = list(archives.recordings_in(archive))
        for parts in recordings:
            assert not {"", ".", ".."} & set(parts)
            with _refusals():
                archives.read_recording(archive, archive.joinpath(*parts))
        archives._contents.cache_clear()
        archives._opened.cache_clear()


def _archives() -> list[bytes]:
    return [_packed(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]


def _packed(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in ("fan/train/a.wav", "fan/test/b.flac", "fan/x.csv"):
            archive.writestr(name, b"RIFF" + bytes(40))
    return file.getvalue()


TARGETS = {
    "audio": Target(_audio, _sounds),
    "tables": Target(_tables, _texts_of_tables),
    "form": Target(_form, _forms),
    "names": Target(_names, _some_names),
    "config": Target(_config, _configs),
    "archive": Target(_archive, _archives),
}
