"""Processes that are stopped, and two that want one folder."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support import broken_server
from support.challenge_archives import publish

from gammavae_jax.cli.download import Download
from gammavae_jax.data.download.catalogue import find_archives
from gammavae_jax.data.download.folder_lock import LOCK_NAME, only_one
from gammavae_jax.errors import InputError


@pytest.fixture
def server():
    with broken_server.running() as server:
        yield server


@pytest.fixture
def fan(server):
    (data,) = publish(server, find_archives(2023, ["fan"])).values()
    return data


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def download(server, out):
    return Download(2023, ("fan",), out=out, mirror=server.url).run


def names(out) -> set[str]:
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    return found - {LOCK_NAME}


def test_a_second_process_does_not_load_into_the_same_folder(
    server, fan, download, out
):
    with only_one(out), pytest.raises(InputError, match="another process is loading"):
        download()
    assert not server.asked
    assert download() == 0


# What the `gammavae` command does around a subcommand.
PROGRAM = """
import signal
import sys
from pathlib import Path
# What a shell starts in the background ignores interrupts, and so would its child.
signal.signal(signal.SIGINT, signal.default_int_handler)
from gammavae_jax.command_line import readable_errors
from gammavae_jax.commands.download import Download
mirror, out = sys.argv[1:]
with readable_errors():
    sys.exit(Download(2023, ("fan",), out=Path(out), mirror=mirror).run())
"""


@pytest.fixture
def stopped(server, fan, out):
    """A process that has loaded a hundred bytes and waits, stopped by a signal."""

    def silent(handler, data):
        handler.head(200, len(data))
        handler.wfile.write(data[:100])
        handler.rfile.read(1)

    def stop(number: int) -> subprocess.Popen:
        server.faults.append(silent)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.url, str(out)],
            stderr=subprocess.PIPE,
            text=True,
        )
        part = out / "dev_data" / "dev_fan.zip.part"
        until = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size == 100):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        with (
            pytest.raises(InputError, match="another process is loading"),
            only_one(out),
        ):
            pass
        os.kill(process.pid, number)
        process.wait(30)
        return process

    return stop


def test_an_interrupt_keeps_what_has_come_and_exits_with_130(
    server, fan, download, out, stopped
):
    process = stopped(signal.SIGINT)
    with process:
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "interrupted"
    assert process.returncode == 130
    part = "dev_data/dev_fan.zip.part"
    assert names(out) == {part, f"{part}.json"}
    assert download() == 0
    assert server.asked_files[-1].range == "bytes=100-"
    assert (out / "dev_data" / "dev_fan.zip").read_bytes() == fan


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_killed_process_holds_no_lock_and_its_bytes_are_gone_on_with(
    server, fan, download, out, stopped
):
    with stopped(signal.SIGKILL):
        pass
    assert download() == 0
    assert server.asked_files[-1].range == "bytes=100-"
    assert names(out) == {"dev_data/dev_fan.zip"}
    assert (out / "dev_data" / "dev_fan.zip").read_bytes() == fan
