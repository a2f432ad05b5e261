import random
from functools import partial

import pytest
import requests
from support import broken_server
from support.broken_server import answer, cut_after
from support.loading import DATA, KNOWN, PATH, Loading, published

from gammavae_jax.data.download.part_file import PartFile
from gammavae_jax.data.download.patience import Patience
from gammavae_jax.data.download.transfer import NotServed
from gammavae_jax.errors import InputError


@pytest.fixture
def server():
    with broken_server.running() as server:
        yield server


@pytest.fixture
def load(server, tmp_path):
    return Loading(server, tmp_path / "data")


def test_a_file_comes_whole_and_alone(server, load):
    assert load() == DATA
    assert load.names == {"dev_fan.zip"}
    (asked,) = server.asked
    assert asked.range is None
    assert asked.headers["Accept-Encoding"] == "identity"
    assert asked.headers["User-Agent"].startswith("gammavae-jax/")
    assert not load.waits


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("is_known", [True, False], ids=["published", "unpublished"])
def test_it_survives_twenty_broken_connections(server, load, is_known, with_reset):
    """The bytes are right, and until the end nothing is under the final name."""
    chance = random.Random(2)
    data = server.files[PATH] = chance.randbytes(2_000_000)
    seen = []

    def fault(n, handler, data):
        seen.append(load.path.exists())
        cut_after(n, with_reset)(handler, data)

    server.faults.extend(partial(fault, chance.randrange(90_000)) for _ in range(20))
    known = published(data) if is_known else {}
    assert load(**known) == data
    assert seen == [False] * 20
    assert len(load.waits) == 20
    assert load.names == {"dev_fan.zip"}
    sent = sum(1 for asked in server.asked if asked.range)
    assert sent >= 15  # the other breaks came before the first bytes


def test_a_later_process_goes_on_where_one_was_stopped(server, load):
    load.begin()
    assert load.names == {"dev_fan.zip.part", "dev_fan.zip.part.json"}
    assert load(**KNOWN) == DATA
    (asked,) = server.asked
    assert asked.range == "bytes=200000-"
    assert asked.if_range == server.etag(PATH)
    assert load.names == {"dev_fan.zip"}


def test_without_a_strong_tag_the_date_tells_the_version(server, load):
    server.etags[PATH] = 'W/"weak"'
    load.begin()
    assert load() == DATA
    assert server.asked[0].if_range == broken_server.LAST_MODIFIED


def test_bytes_of_no_version_are_not_gone_on_with(server, load):
    load.begin()
    (load.folder / "dev_fan.zip.part.json").unlink()
    assert load() == DATA
    assert server.asked[0].range is None


def test_more_bytes_than_the_version_has_are_not_gone_on_with(server, load):
    load.begin()
    with (load.folder / "dev_fan.zip.part").open("ab") as part:
        part.write(bytes(500_000))
    assert load() == DATA
    assert load.ranges == [None]


def test_bytes_that_cannot_be_gone_on_with_stay_until_others_come(server, load):
    """Of a server that names no version; a checksum, if it is known, will tell."""

    def nameless(n, handler, data):
        handler.head(200, len(data), ETag=None, Last_Modified=None)
        handler.wfile.write(data[:n])

    server.faults.append(partial(nameless, 200_000))
    with pytest.raises(InputError):
        load(n_tries=1)
    server.faults.append(answer(503))
    with pytest.raises(InputError):
        load(n_tries=1)
    assert load(**KNOWN) == DATA
    assert load.ranges == [None, None, "bytes=200000-"]
    assert server.asked[-1].if_range is None


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"etag": 1, "last_modified": "", "size": "x"}', "\xff"]
)
def test_a_spoilt_note_of_the_version_is_no_version(server, load, note):
    load.begin()
    (load.folder / "dev_fan.zip.part.json").write_text(note, encoding="latin-1")
    assert load() == DATA
    assert server.asked[0].range is None


def test_a_file_that_was_whole_but_unnamed_is_not_loaded_again(server, load):
    with PartFile(load.path) as part:
        part.restart(part.version._replace(size=len(DATA)))
        part.append(DATA)
    assert load(**KNOWN) == DATA
    assert not server.asked


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, load, status):
    server.faults.extend([answer(status)] * 3)
    assert load() == DATA
    assert load.waits == [1.0, 2.0, 4.0]


def test_as_long_as_the_server_asks_is_waited(server, load):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"  # is past
    asks = ["7", "0", date, "soon", "-3"]
    server.faults.extend(answer(429, Retry_After=text) for text in asks)
    assert load() == DATA
    assert load.waits == [7.0, 2.0, 4.0, 8.0, 16.0]


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server, load):
    load.begin()
    server.faults.append(answer(503, Retry_After="3600"))
    with pytest.raises(InputError) as caught:
        load()
    assert "503 Service Unavailable and asks to wait 3600 s" in str(caught.value)
    assert "200.0 kB are kept" in str(caught.value)
    assert not load.waits


def test_the_waits_grow_to_a_bound_and_then_it_is_given_up(server, load):
    server.faults.extend([answer(500)] * 25)
    with pytest.raises(InputError, match="given up after 25 tries"):
        load()
    assert load.waits == [1.0, 2.0, 4.0, 8.0, 16.0, *[30.0] * 19]
    assert not load.names


def test_new_bytes_begin_the_waits_anew(server, load):
    busy = answer(503)
    server.faults.extend([busy, busy, cut_after(1000), busy, cut_after(1000)])
    assert load() == DATA
    assert load.waits == [1.0, 2.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_wait_is_cut_short_by_chance_to_no_less_than_half(chance):
    patience = Patience(chance=lambda: chance)
    waits = [patience.wait_s(n) for n in range(1, 10)]
    longest = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    assert waits == [wait * (0.5 + chance / 2) for wait in longest]
    assert patience.wait_s(1, 30.0) == 30.0


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418, 599, 204])
def test_a_refusal_is_not_asked_again(server, load, status):
    server.faults.append(answer(status))
    with pytest.raises(NotServed) as caught:
        load()
    assert f"dev_fan.zip: the server answers {status}" in str(caught.value)
    assert f"load {server.url}{PATH} with a browser" in str(caught.value)
    assert len(server.asked) == 1
    assert not load.names


def test_redirects_are_followed(server, load):
    load.begin()
    server.files["/elsewhere"] = DATA
    server.etags["/elsewhere"] = server.etag(PATH)
    server.faults.append(answer(302, Location="/elsewhere"))
    assert load() == DATA
    paths = [(asked.path, asked.range) for asked in server.asked]
    assert paths == [(PATH, "bytes=200000-"), ("/elsewhere", "bytes=200000-")]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", PATH])
def test_redirects_lead_to_the_web_alone_and_not_in_circles(server, load, to):
    server.faults.extend([answer(302, Location=to)] * 20)
    with pytest.raises(NotServed, match="cannot be had from"):
        load()
    assert not load.names


def test_a_server_that_falls_silent_is_left(server, load):
    def silent(handler, data):
        handler.head(200, len(data))
        handler.wfile.write(data[:100_000])
        handler.rfile.read(1)  # until the client hangs up

    server.faults.append(silent)
    assert load(timeouts_s=(5.0, 0.2)) == DATA
    assert server.asked[-1].range == "bytes=100000-"


def test_where_nobody_listens_the_message_says_so(server, load):
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="the server cannot be reached"):
        load(n_tries=2)


def test_a_certificate_that_is_not_trusted_is_no_passing_trouble(load, monkeypatch):
    def get(*_, **__):
        raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] expired")

    monkeypatch.setattr(requests.Session, "get", get)
    with pytest.raises(InputError, match="certificate is not trusted"):
        load()
    assert not load.waits


def test_a_full_disk_is_told_before_the_first_byte(server, load, monkeypatch):
    def usage(_):
        return type("Usage", (), {"free": 599_999})

    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(InputError, match=r"600.0 kB are needed and 600.0 kB are free"):
        load()
    assert not load.names


def test_an_interrupt_leaves_what_has_come(server, load):
    def interrupt(_):
        raise KeyboardInterrupt

    server.faults.append(cut_after(200_000))
    with pytest.raises(KeyboardInterrupt):
        load(sleep=interrupt)
    assert load.names == {"dev_fan.zip.part", "dev_fan.zip.part.json"}
    assert (load.folder / "dev_fan.zip.part").read_bytes() == DATA[:200_000]
