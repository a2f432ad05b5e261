"""Records of Zenodo, and processes that share a folder or are stopped."""

import io
import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from support import broken_server
from support.broken_server import answer
from support.challenge_archives import publish

from gammavae_jax.cli.download import Download
from gammavae_jax.data.download.catalogue import find_archives
from gammavae_jax.data.download.deliver import LOCK_NAME, published_files
from gammavae_jax.data.download.fetch import Published
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

ARCHIVES = find_archives(2023, ["fan", "gearbox", "valve"])
RECORD = f"/api/records/{ARCHIVES[0].record}"


@pytest.fixture
def server():
    with broken_server.running() as server:
        yield server


@pytest.fixture
def waits(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    return waits


@pytest.fixture
def read(server, waits):
    """Return the published files, given the body of the record, and what is printed."""

    def read(body: bytes, *faults):
        server.files[RECORD] = body
        server.record_faults.extend(faults)
        printed = io.StringIO()
        log = Log(Console(file=printed, width=1000))
        return published_files(ARCHIVES, server.url, log), printed.getvalue()

    return read


def test_a_record_gives_sizes_and_checksums(read):
    md5 = "0123456789abcdef" * 2
    files = [
        {"key": "dev_fan.zip", "size": 5, "checksum": f"md5:{md5}", "more": 1},
        {"key": "dev_gearbox.zip", "size": 6, "checksum": "sha256:00"},
        {"key": "dev_valve.zip", "size": 7},
        {"key": "dev_slider.zip", "size": 8},
    ]
    expected = [Published(5, md5), Published(6, None), Published(7, None)]
    published, printed = read(json.dumps({"files": files}).encode())
    assert published == dict(zip(ARCHIVES, expected, strict=True))
    assert not printed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"files": 3}',
        b'{"files": [3]}',
        b'{"files": [{"key": "a.zip"}]}',
        b'{"files": [{"key": "a.zip", "size": "x"}]}',
        b'{"files": [{"key": "a.zip", "size": 1e999}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"files": []' + b" " * (1 << 22) + b"}",
    ],
)
def test_a_record_in_an_unknown_format_is_reported(read, body):
    published, printed = read(body)
    assert not published
    assert "gives no sizes and checksums: the record has an unknown format" in printed


def test_a_busy_server_is_asked_three_times(read, server, waits):
    busy = answer(429, Retry_After="5")
    assert read(b'{"files": []}', busy, answer(500)) == ({}, "")
    assert waits == [5.0, 2.0]
    _, printed = read(b'{"files": []}', busy, busy, busy)
    assert "429 Too Many Requests" in printed
    assert len(server.requests) == 6


def test_a_server_that_asks_for_an_hour_is_not_waited_for(read, waits):
    _, printed = read(b'{"files": []}', answer(429, Retry_After="3600"))
    assert "429 Too Many Requests and asks to retry after 3600" in printed
    assert not waits


# What the `gammavae` command does around a subcommand.
PROGRAM = """
import signal
import sys
from pathlib import Path
# A process that a shell starts in the background ignores interrupts; so would a child.
signal.signal(signal.SIGINT, signal.default_int_handler)
from gammavae_jax.cli.download import Download
from gammavae_jax.cli.shared import readable_errors
mirror, out = sys.argv[1:]
with readable_errors():
    sys.exit(Download(2023, ("fan",), out=Path(out), mirror=mirror).run())
"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def fan(server):
    (data,) = publish(server, ARCHIVES[:1]).values()
    return data


@pytest.fixture
def download(server, out):
    return Download(2023, ("fan",), out=out, mirror=server.url).run


@pytest.fixture
def process(server, fan, out):
    """A process that has received 100 bytes of an archive and waits for more."""

    def silent(handler, data):
        handler.head(200, len(data))
        handler.wfile.write(data[:100])
        handler.rfile.read(1)

    server.faults.append(silent)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(out)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        part = out / "dev_data" / "dev_fan.zip.part"
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size == 100):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        yield process
        process.kill()


def require_resumed(server, out, fan):
    assert server.file_requests[-1].range == "bytes=100-"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    assert names - {LOCK_NAME} == {"dev_data/dev_fan.zip"}
    assert (out / "dev_data" / "dev_fan.zip").read_bytes() == fan


def test_a_second_download_into_the_same_folder_is_refused(server, process, download):
    server.requests.clear()
    with pytest.raises(InputError, match="another process is downloading into it"):
        download()
    assert not server.requests


def test_an_interrupt_keeps_the_bytes_so_far_and_exits_with_130(
    server, fan, download, out, process
):
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1].splitlines()[-1] == "interrupted"
    assert process.returncode == 130
    assert (out / "dev_data" / "dev_fan.zip.part").read_bytes() == fan[:100]
    assert download() == 0
    require_resumed(server, out, fan)


def test_a_killed_process_holds_no_lock_and_its_download_is_resumed(
    server, fan, download, out, process
):
    process.kill()
    process.wait(30)
    assert download() == 0
    require_resumed(server, out, fan)
