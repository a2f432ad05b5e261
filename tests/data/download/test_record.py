import json

import pytest
from support import broken_server
from support.broken_server import answer

from gammavae_jax.data.download.patience import Patience
from gammavae_jax.data.download.record import (
    NoRecord,
    RecordFile,
    Unreachable,
    read_record,
)
from gammavae_jax.data.download.session import new_session


@pytest.fixture
def server():
    with broken_server.running() as server:
        yield server


@pytest.fixture
def waits():
    return []


@pytest.fixture
def read(server, waits):
    """The files of a record, which the server answers with this body."""

    def run(body: bytes, *faults):
        server.files["/api/records/1"] = body
        server.faults_of_records.extend(faults)
        patience = Patience(
            sleep=waits.append, chance=lambda: 1.0, timeouts_s=(5.0, 5.0)
        )
        with new_session() as session:
            return read_record(server.url, "1", session, patience)

    return run


def test_a_record_tells_sizes_and_checksums(read):
    md5 = "0123456789abcdef" * 2
    files = [
        {"key": "a.zip", "size": 5, "checksum": f"md5:{md5}", "more": 1},
        {"key": "b.zip", "size": 6, "checksum": "sha256:00"},
        {"key": "c.zip", "size": 7},
    ]
    found = read(json.dumps({"files": files}).encode())
    assert found == {
        "a.zip": RecordFile(5, md5),
        "b.zip": RecordFile(6, None),
        "c.zip": RecordFile(7, None),
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"files": 3}',
        b'{"files": [{"key": "a.zip"}]}',
        b'{"files": [{"key": "a.zip", "size": -1}]}',
        b'{"files": [{"key": "a.zip", "size": "5"}]}',
        b'{"files": [{"key": "a.zip", "size": true}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_record_of_another_form_is_none(read, body):
    with pytest.raises(NoRecord, match="unknown form"):
        read(body)


def test_a_busy_server_is_asked_three_times(read, server, waits):
    busy = answer(429, Retry_After="5")
    assert read(b'{"files": []}', busy, answer(500)) == {}
    assert waits == [5.0, 2.0]
    with pytest.raises(Unreachable, match="429 Too Many Requests"):
        read(b'{"files": []}', busy, busy, busy)
    assert len(server.asked) == 6


def test_a_server_that_asks_for_an_hour_is_not_waited_for(read, waits):
    with pytest.raises(Unreachable):
        read(b'{"files": []}', answer(429, Retry_After="3600"))
    assert not waits


def test_no_more_than_a_record_is_read(read):
    with pytest.raises(NoRecord, match="too long"):
        read(bytes((1 << 22) + 1))
