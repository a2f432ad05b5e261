"""The sizes and checksums that Zenodo publishes."""

import json
from types import SimpleNamespace

import pytest
from support.broken_server import answer
from support.logs import quiet_log, text_of

from gammavae_jax.data.download.catalogue import find_archives
from gammavae_jax.data.download.deliver import published_files
from gammavae_jax.data.download.fetch import PublishedFile

ARCHIVES = find_archives(2023, ["fan", "gearbox", "valve"])
RECORD = f"/api/records/{ARCHIVES[0].record}"


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
        log = quiet_log()
        return published_files(ARCHIVES, server.url, log), text_of(log.console)

    return read


def test_a_record_gives_sizes_and_checksums(read):
    md5 = "0123456789abcdef" * 2
    files = [
        {"key": "dev_fan.zip", "size": 5, "checksum": f"md5:{md5}", "more": 1},
        {"key": "dev_gearbox.zip", "size": 6, "checksum": "sha256:00"},
        {"key": "dev_valve.zip", "size": 7},
        {"key": "dev_slider.zip", "size": 8},
    ]
    expected = [PublishedFile(5, md5), PublishedFile(6, None), PublishedFile(7, None)]
    published, printed = read(json.dumps({"files": files}).encode())
    assert published == dict(zip(ARCHIVES, expected, strict=True))
    assert not printed


BODIES = b"""
    [] {} {"files":3} {"files":[3]} {"files":[{"key":"a.zip"}]} <html>
    {"files":[{"key":"a.zip","size":"x"}]} {"files":[{"key":"a.zip","size":1e999}]}
""".split()
LONG_BODY = b'{"files": []' + b" " * (1 << 22) + b"}"


@pytest.mark.parametrize("body", [*BODIES, b"", b"\xff\xfe", b"[" * 100_000, LONG_BODY])
def test_a_record_in_an_unknown_format_is_reported(read, body):
    published, printed = read(body)
    assert not published
    assert "cannot get sizes and checksums from " in printed
    assert "the record has an unknown format" in printed


def test_a_busy_server_is_asked_three_times(read, server, waits):
    busy = answer(429, Retry_After="5")
    assert read(b'{"files": []}', busy, answer(500)) == ({}, "")
    assert waits == [5.0, 2.0]
    _, printed = read(b'{"files": []}', busy, busy, busy)
    assert "429 Too Many Requests" in printed
    assert len(server.requests) == 6


def test_a_server_that_asks_for_an_hour_is_not_waited_for(read, waits):
    _, printed = read(b'{"files": []}', answer(429, Retry_After="3600"))
    assert "429 Too Many Requests and asked for a retry after 3600" in printed
    assert not waits
