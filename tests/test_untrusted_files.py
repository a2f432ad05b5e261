"""Pipes never block the program forever, and JSON never raises unexpected errors."""

import json
import os
import threading

import pytest

from gammavae_jax import files
from gammavae_jax.cli.shared import models_in_checkpoint, write_json
from gammavae_jax.config_json import override, parse_json
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.name_value_files import read_lines
from gammavae_jax.files import open_regular, read_bytes, read_text, write_text
from gammavae_jax.live.announce import JsonLines
from gammavae_jax.live.arrivals import Stamp
from gammavae_jax.live.watch_state import ScoredLog
from gammavae_jax.presets import preset
from gammavae_jax.runs.folder import read_config, read_metrics
from gammavae_jax.runs.stored_arrays import read_beside, read_marker


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/null"])
def test_a_pipe_or_device_is_refused_without_reading_it(pipe, name):
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(pipe.parent / name)


def test_a_file_is_read_unchanged_and_a_folder_is_refused(tmp_path):
    (tmp_path / "a").write_bytes("é\r\n".encode() + b"\xff")
    assert read_bytes(tmp_path / "a") == "é\r\n".encode() + b"\xff"
    assert read_text(tmp_path / "a", errors="replace") == "é\n\ufffd"
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.csv", read_lines),
        ("config.json", lambda path: read_config(path.parent)),
        ("metrics.jsonl", lambda path: read_metrics(path.parent)),
        ("detector.json", lambda path: read_marker(path.with_name("detector"))),
        (
            "anomaly_detector.json",
            lambda p: read_beside(p.with_name("detector"), {"beside": {p.name: ""}}),
        ),
        ("state", ScoredLog),
    ],
)
def test_a_pipe_in_place_of_a_file_is_an_error(tmp_path, name, read):
    os.mkfifo(tmp_path / name)
    with pytest.raises((InputError, OSError), match="pipe or a device"):
        read(tmp_path / name)


ABSURD = {
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 100_000,
    "infinite": '{"size": 1e999}',
    "no number": '{"size": NaN}',
    "constant": '{"size": -Infinity}',
    "long": '{"size": ' + "1" * 10_000 + "}",
}


@pytest.mark.parametrize("text", ABSURD.values(), ids=ABSURD)
def test_absurd_json_is_a_value_error_wherever_it_is_read(tmp_path, text):
    with pytest.raises(ValueError, match=r"deep|finite|limit"):
        parse_json(text)
    log = tmp_path / "state"
    good = {"file": "a.wav", "size": 1, "mtime_ns": 2, "time": 3.5}
    log.write_text(json.dumps(good) + "\n" + text + "\n")
    with ScoredLog(log) as scored:  # a damaged line is skipped
        assert scored.contains("a.wav", Stamp(1, 2))
    for name in ("detector.json", "config.json", "metrics.jsonl"):
        (tmp_path / name).write_text(text)
    assert models_in_checkpoint(tmp_path) == 1
    assert read_metrics(tmp_path) == []
    with pytest.raises(InputError, match="damaged"):
        read_config(tmp_path)
    with pytest.raises(InputError, match="damaged"):
        read_marker(tmp_path / "detector")
    with pytest.raises(InputError):
        override(preset("default"), [f"train.learning_rate={text}"])


def test_a_pipe_in_place_of_a_marker_does_not_stop_the_preparation(tmp_path):
    os.mkfifo(tmp_path / "detector.json")
    assert models_in_checkpoint(tmp_path) == 1


def test_writing_to_a_pipe_ends_if_no_process_reads_it(pipe, monkeypatch):
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.0)
    with pytest.raises(OSError, match="no process reads this pipe"):
        write_text(pipe, "text")
    with pytest.raises(InputError, match=r"no process reads this pipe.*--json"):
        write_json(pipe, {})
    with pytest.raises(InputError, match=r"no process reads this pipe.*writable"):
        JsonLines(pipe)


def test_lines_are_written_to_a_pipe_for_as_long_as_it_is_read(pipe):
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    lines = JsonLines(pipe)
    for number in range(20_000):  # more than a pipe holds
        lines.add({"n": number})
    lines.close()
    reader.join(10)
    assert [json.loads(line)["n"] for line in read[0].splitlines()] == [*range(20_000)]
