"""The download of one archive from a server that fails in every way."""

import gzip
import random
from functools import partial
from types import SimpleNamespace

import pytest
import requests
from support import broken_server
from support.broken_server import (
    answer,
    cut_after,
    partial_content,
    serve,
    silent_after,
    whole,
)
from support.disks import small_disk
from support.loading import DATA, KNOWN, OTHER, PATH, UNKNOWN, Loader, published, zip_of

from gammavae_jax.data.download import fetch
from gammavae_jax.data.download.request import Refused
from gammavae_jax.errors import InputError


@pytest.fixture
def load(server, tmp_path, monkeypatch):
    return Loader(server, tmp_path / "data", monkeypatch)


def test_a_download_leaves_the_file_and_nothing_else(server, load):
    assert load() == DATA
    assert load.names == {"dev_fan.zip"}
    (request,) = server.requests
    assert request.range is None
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"] == "gammavae-jax"
    assert not load.waits


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("is_known", [True, False], ids=["published", "unpublished"])
def test_twenty_broken_connections_are_survived(server, load, is_known, with_reset):
    """The bytes are right, and the final name appears only at the end."""
    rng = random.Random(2)
    data = server.files[PATH] = zip_of(2, 2_000_000)
    exists = []

    def fault(n, handler, data):
        exists.append(load.path.exists())
        cut_after(n, with_reset)(handler, data)

    server.faults.extend(partial(fault, rng.randrange(90_000)) for _ in range(20))
    assert load(published(data) if is_known else UNKNOWN) == data
    assert exists == [False] * 20
    assert len(load.waits) == 20
    assert "dev_fan.zip, MB 2/2" in load.printed.getvalue()
    assert load.names == {"dev_fan.zip"}
    n_resumed = sum(request.range is not None for request in server.requests)
    assert n_resumed >= 15  # the other connections broke before the first byte


@pytest.mark.parametrize("known", [KNOWN, UNKNOWN], ids=["published", "unpublished"])
def test_twenty_broken_connections_are_survived_without_ranges(server, load, known):
    server.faults.extend(whole(20_000 * n % 70_000) for n in range(20))
    server.faults.append(whole())
    assert load(known) == DATA
    assert len(server.requests) == 21


def test_a_later_process_resumes_the_download(server, load):
    load.begin()
    assert load.names == {load.part.name, load.note.name}
    assert load(KNOWN) == DATA
    (request,) = server.requests
    assert request.range == "bytes=200000-"
    assert request.if_range == server.etag(PATH)
    assert load.names == {"dev_fan.zip"}


def test_without_a_strong_etag_the_date_identifies_the_version(server, load):
    server.etags[PATH] = 'W/"weak"'
    load.begin()
    assert load() == DATA
    assert server.requests[0].if_range == broken_server.LAST_MODIFIED


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_bytes_of_an_unknown_version_are_not_resumed(server, load, headers):
    no_version = {"ETag": None, "Last_Modified": None} | headers
    server.faults.extend([whole(200_000, **no_version), cut_after(1000)])
    assert load(KNOWN) == DATA
    assert load.ranges == [None, None, "bytes=1000-"]


@pytest.mark.parametrize("note", [None, b"", b"[]", b"\xff\0", b"a\nb", b" \r\n"])
def test_a_damaged_record_of_the_version_is_harmless(server, load, note):
    load.begin()
    load.note.unlink()
    if note is not None:
        load.note.write_bytes(note)
    assert load() == DATA


@pytest.mark.parametrize("known", [KNOWN, UNKNOWN], ids=["published", "unpublished"])
def test_a_complete_file_without_its_name_is_not_downloaded_again(server, load, known):
    load.begin()
    load.part.write_bytes(DATA)
    assert load(known) == DATA
    assert load.ranges == ([] if known is KNOWN else ["bytes=600000-"])


@pytest.mark.parametrize("known", [KNOWN, UNKNOWN], ids=["published", "unpublished"])
@pytest.mark.parametrize("bytes_on_disk", [bytes(200_000), DATA + bytes(100_000)])
def test_wrong_bytes_on_disk_are_replaced(server, load, bytes_on_disk, known):
    load.begin()
    load.part.write_bytes(bytes_on_disk)
    assert load(known) == DATA
    assert load.ranges == [f"bytes={len(bytes_on_disk)}-", None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, load, status):
    server.faults.extend([answer(status)] * 3)
    assert load() == DATA
    assert load.waits == [1.0, 2.0, 4.0]


def test_retry_after_is_honoured(server, load):
    past_date = "Wed, 21 Oct 2015 07:28:00 GMT"
    values = ["7", "0", past_date, "soon", "-3", "9" * 5000]
    server.faults.extend(answer(429, Retry_After=value) for value in values)
    assert load() == DATA
    assert load.waits == [7.0, 2.0, 4.0, 8.0, 16.0, 30.0]


@pytest.mark.parametrize("value", ["301", "3600"])
def test_a_server_that_asks_for_over_five_minutes_is_not_waited_for(
    server, load, value
):
    load.begin()
    server.faults.append(answer(503, Retry_After=value))
    message = f"answered 503 Service Unavailable and asked for a retry after {value} "
    with pytest.raises(Refused, match=message):
        load()
    assert not load.waits


def test_attempts_and_waits_are_bounded(server, load):
    server.faults.extend([answer(500)] * 25)
    with pytest.raises(InputError, match="no new bytes in 25 attempts: the server an"):
        load()
    assert load.waits == [1.0, 2.0, 4.0, 8.0, 16.0, *[30.0] * 19]
    assert not load.names


def test_new_bytes_restart_the_backoff(server, load):
    busy = answer(503)
    server.faults.extend([busy, busy, cut_after(1000), busy, cut_after(1000)])
    assert load() == DATA
    assert load.waits == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_jitter_shortens_a_wait_to_half_at_most(server, load, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    server.faults.extend([answer(500)] * 7)
    assert load() == DATA
    assert load.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418, 599, 204])
def test_a_refused_request_is_not_repeated(server, load, status):
    server.faults.append(answer(status))
    with pytest.raises(Refused) as caught:
        load()
    assert f"dev_fan.zip: the server answered {status}" in str(caught.value)
    assert f"download {server.url}{PATH} with a browser" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1
    assert not load.names


@pytest.mark.parametrize("known", [KNOWN, UNKNOWN], ids=["published", "unpublished"])
def test_a_web_page_is_refused_and_the_bytes_on_disk_are_kept(server, load, known):
    load.begin()
    server.faults.append(whole(23, 23, ETag=None, Content_Type="text/html; charset=x"))
    with pytest.raises(Refused, match=r"a web page instead of the archive \(200\.0 kB"):
        load(known)
    assert load(known) == DATA
    assert load.ranges == ["bytes=200000-"] * 2


def test_redirects_are_followed(server, load):
    load.begin()
    server.files["/elsewhere"] = DATA
    server.etags["/elsewhere"] = server.etag(PATH)
    server.faults.append(answer(302, Location="/elsewhere"))
    assert load() == DATA
    requested = [(request.path, request.range) for request in server.requests]
    assert requested == [(PATH, "bytes=200000-"), ("/elsewhere", "bytes=200000-")]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", PATH])
def test_redirects_to_files_or_in_circles_are_refused(server, load, to):
    server.faults.extend([answer(302, Location=to)] * 40)
    with pytest.raises(Refused, match=r"dev_fan\.zip: (No connection|Exceeded 30)"):
        load()
    assert not load.names


def test_a_silent_server_is_abandoned(server, load):
    load.set_timeout(0.2)
    server.faults.append(silent_after(100_000))
    assert load() == DATA
    assert server.requests[-1].range == "bytes=100000-"
    assert "the server does not respond (100.0 kB kept)" in load.printed.getvalue()


def test_an_unreachable_server_is_named_as_the_reason(server, load, monkeypatch):
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    with pytest.raises(InputError, match="2 attempts: the server cannot be reached"):
        load()


def test_an_untrusted_certificate_is_refused_without_another_attempt(load, monkeypatch):
    def get(*_, **__):
        raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] expired")

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(
        Refused, match="certificate is not trusted: check the clock and"
    ):
        load()
    assert not load.waits


def test_a_file_too_large_for_the_disk_is_refused_at_its_start(load, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=599_999))
    with pytest.raises(InputError, match=r"cannot be written \(No space left on dev"):
        load()
    assert not load.names


def test_a_disk_that_fills_up_keeps_the_bytes_so_far(load, monkeypatch):
    with small_disk(load.folder, "size=200k"), monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 30))
        with pytest.raises(
            InputError, match=r"No space left on device\): free up disk space"
        ):
            load()
        bytes_on_disk = load.part.read_bytes()
        assert 0 < len(bytes_on_disk) < 205_000
        assert bytes_on_disk == DATA[: len(bytes_on_disk)]
        assert load.names == {load.part.name, load.note.name}


def test_a_folder_that_cannot_be_created_is_named(load):
    load.folder.write_text("")
    with pytest.raises(InputError, match=r"dev_fan\.zip' cannot be written"):
        load()


def test_an_interrupt_keeps_the_bytes_so_far(server, load):
    def interrupt(_):
        raise KeyboardInterrupt

    load.set_sleep(interrupt)
    server.faults.append(cut_after(200_000))
    with pytest.raises(KeyboardInterrupt):
        load()
    assert load.names == {load.part.name, load.note.name}
    assert load.part.read_bytes() == DATA[:200_000]


def test_a_file_that_has_changed_is_downloaded_from_the_start(server, load):
    load.begin()
    server.files[PATH] = OTHER
    assert load() == OTHER
    assert load.ranges == ["bytes=200000-"]


RANGES = [
    *("200000-599999/600000", "0-599999/600000", "200001-599999/600000"),
    *("200000-600000/600000", "200000-199999/600000", "200000-599999/2", "*/600000"),
]


@pytest.mark.parametrize("content_range", [*RANGES, None])
def test_bytes_of_another_range_or_version_never_get_the_name(
    server, load, content_range
):
    """Even if no checksum is published, and even if the range itself is right."""
    load.begin()
    server.faults.append(partial_content(f"bytes {content_range}", OTHER[200_000:]))
    assert load() == DATA
    assert load.ranges == ["bytes=200000-", None]


def test_a_server_with_wrong_ranges_is_asked_for_no_more_of_them(server, load):
    load.begin()
    wrong = partial_content("bytes 0-599999/600000", DATA)
    server.faults.extend([wrong, cut_after(100_000)])
    assert load() == DATA
    assert load.ranges == ["bytes=200000-", None, None]


def test_an_unrequested_range_is_refused(server, load):
    server.faults.extend([partial_content("bytes 0-599999/600000", DATA)] * 2)
    problem = r"bytes that were not requested, in 2 downloads \(0 b"
    with pytest.raises(Refused, match=problem):
        load()


def test_ranges_shorter_than_requested_are_joined(server, load):
    def parsimonious(handler, data):
        start = handler.start
        body = data[start : start + 50_000]
        where = f"bytes {start}-{start + len(body) - 1}/{len(data)}"
        partial_content(where, body)(handler, data)

    server.faults.extend([cut_after(50_000), *[parsimonious] * 11])
    assert load(KNOWN) == DATA
    assert len(server.requests) == 12


def test_a_claimed_length_that_is_too_long_exhausts_the_attempts(server, load):
    server.faults.extend([whole(length=len(DATA) + 1)] * 26)
    with pytest.raises(InputError, match=r"dev_fan\.zip: no new bytes in 25 attempts"):
        load()
    assert "dev_fan.zip" not in load.names


def test_a_length_other_than_the_published_one_is_refused(server, load):
    load.begin()
    server.faults.append(whole(length=len(DATA) - 1))
    with pytest.raises(Refused, match="599999 bytes, but the published size is 600000"):
        load(KNOWN)
    assert load(KNOWN) == DATA
    assert load.ranges == ["bytes=200000-"] * 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (DATA[:-30], r"is not a complete zip archive, in 2 downloads \(0 bytes kept\)"),
        (
            DATA[:99] + bytes(9) + DATA[108:],
            "the zip archive is corrupt, in 2 downloads",
        ),
    ],
)
def test_without_a_checksum_the_archive_is_verified_by_its_own(
    server, load, wrong, message
):
    server.files[PATH] = wrong
    with pytest.raises(Refused, match=message):
        load()
    assert not load.names - {load.note.name}


def test_no_more_bytes_than_published_are_written(server, load):
    server.files[PATH] = DATA * 3
    server.faults.extend([partial(serve, Content_Length=None)] * 2)
    with pytest.raises(Refused, match="sent more than 600000 bytes, in 2 downloads"):
        load(KNOWN)
    assert not load.path.exists()


@pytest.mark.parametrize("known", [KNOWN, UNKNOWN], ids=["published", "unpublished"])
def test_a_server_may_omit_the_length(server, load, known):
    server.faults.append(partial(serve, Content_Length=None))
    assert load(known) == DATA


def test_a_wrong_checksum_is_refused_with_both_checksums(server, load):
    server.files[PATH] = OTHER
    with pytest.raises(Refused) as caught:
        load(KNOWN)
    message = str(caught.value)
    assert f"checksum is {published(OTHER).md5} instead of the published" in message
    end = "in 2 downloads (0 bytes kept): run the same command"
    assert f"{KNOWN.md5}, {end}" in message
    assert "\n" not in message
    assert f"{KNOWN.md5} (0 bytes kept): next attempt in 1 s" in load.printed.getvalue()
    assert not load.path.exists()


def test_wrong_bytes_are_downloaded_again(server, load):
    server.faults.append(lambda handler, _: serve(handler, OTHER))
    assert load(KNOWN) == DATA


def test_an_archive_compressed_in_transit_is_downloaded_again(server, load):
    compressed = gzip.compress(DATA, 1)
    server.faults.append(
        lambda handler, _: serve(handler, compressed, Content_Encoding="gzip")
    )
    assert load() == DATA
