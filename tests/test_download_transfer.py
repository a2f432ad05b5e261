import gzip
import hashlib
import io
import random
import zipfile
from dataclasses import replace
from functools import partial

import broken_server
import pytest
from broken_server import answer, cut_after, say_length, serve
from rich.console import Console

from gammavae_jax.download.part_file import PartFile
from gammavae_jax.download.patience import Patience
from gammavae_jax.download.session import new_session
from gammavae_jax.download.soundness import require_sound
from gammavae_jax.download.transfer import NotServed, Wanted, fetch
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

PATH = "/records/1/files/dev_fan.zip"
DATA = random.Random(0).randbytes(600_000)
OTHER = random.Random(1).randbytes(600_000)


def md5_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def zip_of(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("fan/train/x.wav", data)
    return stream.getvalue()


KNOWN = {"size": len(DATA), "md5": md5_of(DATA)}


@pytest.fixture
def server():
    with broken_server.running() as server:
        server.files[PATH] = DATA
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def waits():
    return []


@pytest.fixture
def said():
    return io.StringIO()


@pytest.fixture
def load(server, folder, waits, said):
    """Fetch the file; what is published of it may be given. Gives its bytes."""
    patience = Patience(sleep=waits.append, chance=lambda: 1.0, timeouts_s=(5.0, 5.0))

    def run(size=None, md5=None, check=None, **changes):
        wanted = Wanted(server.url + PATH, folder / "dev_fan.zip", size, md5)
        log = Log(Console(file=said, width=1000))
        with new_session() as session:
            fetch(wanted, session, log, replace(patience, **changes), check)
        return wanted.path.read_bytes()

    return run


@pytest.fixture
def begun(server, load):
    """Leave a third of the file behind, as a process that was stopped does."""

    def leave(**known):
        server.faults.append(cut_after(200_000))
        with pytest.raises(InputError, match="run the same command again"):
            load(**known, n_tries=1)
        server.asked.clear()

    return leave


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_alone(server, load, folder, waits):
    assert load() == DATA
    assert names(folder) == {"dev_fan.zip"}
    (asked,) = server.asked
    assert asked.range is None
    assert asked.headers["Accept-Encoding"] == "identity"
    assert asked.headers["User-Agent"].startswith("gammavae-jax/")
    assert not waits


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("is_known", [True, False], ids=["published", "unpublished"])
def test_it_survives_twenty_broken_connections(
    server, load, folder, is_known, with_reset, waits
):
    """The bytes are right, and until the end nothing is under the final name."""
    chance = random.Random(2)
    data = server.files[PATH] = chance.randbytes(2_000_000)
    seen = []

    def fault(n, handler, data):
        seen.append((folder / "dev_fan.zip").exists())
        cut_after(n, with_reset)(handler, data)

    server.faults.extend(partial(fault, chance.randrange(90_000)) for _ in range(20))
    known = {"size": len(data), "md5": md5_of(data)} if is_known else {}
    assert load(**known) == data
    assert seen == [False] * 20
    assert len(waits) == 20
    assert names(folder) == {"dev_fan.zip"}
    sent = sum(1 for asked in server.asked if asked.range)
    assert sent >= 15  # the other breaks came before the first bytes


def test_a_later_process_goes_on_where_one_was_stopped(server, load, folder, begun):
    begun()
    assert names(folder) == {"dev_fan.zip.part", "dev_fan.zip.part.json"}
    assert load(**KNOWN) == DATA
    (asked,) = server.asked
    assert asked.range == "bytes=200000-"
    assert asked.if_range == server.etag(PATH)
    assert names(folder) == {"dev_fan.zip"}


def test_without_a_strong_tag_the_date_tells_the_version(server, load, begun):
    server.etags[PATH] = 'W/"weak"'
    begun()
    assert load() == DATA
    assert server.asked[0].if_range == broken_server.LAST_MODIFIED


def test_a_file_that_changed_meanwhile_is_loaded_anew(server, load, begun):
    begun()
    server.files[PATH] = OTHER
    assert load() == OTHER
    assert [asked.range for asked in server.asked] == ["bytes=200000-"]


def test_a_changed_file_is_seen_though_the_server_heeds_no_if_range(
    server, load, begun
):
    def ignorant(handler, data):
        where = f"bytes 200000-{len(data) - 1}/{len(data)}"
        handler.head(206, len(data) - 200_000, Content_Range=where)
        handler.wfile.write(data[200_000:])

    begun()
    server.files[PATH] = OTHER
    server.faults.append(ignorant)
    assert load() == OTHER
    assert [asked.range for asked in server.asked] == ["bytes=200000-", None]


def test_bytes_of_no_version_are_not_gone_on_with(server, load, begun, folder):
    begun()
    (folder / "dev_fan.zip.part.json").unlink()
    assert load() == DATA
    assert server.asked[0].range is None


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"etag": 1, "last_modified": "", "size": "x"}', "\xff"]
)
def test_a_spoilt_note_of_the_version_is_no_version(server, load, begun, folder, note):
    begun()
    (folder / "dev_fan.zip.part.json").write_text(note, encoding="latin-1")
    assert load() == DATA
    assert server.asked[0].range is None


def test_spoilt_bytes_of_an_earlier_process_are_found_out(server, load, begun, folder):
    begun()
    part = folder / "dev_fan.zip.part"
    part.write_bytes(bytes(1000) + part.read_bytes()[1000:])
    assert load(**KNOWN) == DATA
    assert [asked.range for asked in server.asked] == ["bytes=200000-", None]


def test_a_file_that_was_whole_but_unnamed_is_not_loaded_again(server, load, folder):
    with PartFile(folder / "dev_fan.zip") as part:
        part.restart(part.version._replace(size=len(DATA)))
        part.append(DATA)
    assert load(**KNOWN) == DATA
    assert not server.asked


def test_a_server_without_ranges_is_asked_for_all_again(server, load):
    def all_of_it(n, handler, data):
        handler.head(200, len(data))
        handler.wfile.write(data[:n])

    server.faults.extend(partial(all_of_it, n) for n in (300_000, 100_000, None))
    assert load(**KNOWN) == DATA
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "where",
    [
        "bytes 0-599999/600000",
        "bytes 200001-599999/600000",
        "bytes 200000-600000/600000",
        "bytes 200000-199999/600000",
        "bytes 200000-599999/600001",
        "bytes 200000-599999/2",
        "items 200000-599999/600000",
        "bytes */600000",
        None,
    ],
)
def test_bytes_of_another_range_are_never_added(server, load, begun, where):
    """Without a checksum to tell it in the end."""

    def wrong_range(handler, data):
        handler.head(206, 400_000, Content_Range=where)
        handler.wfile.write(OTHER[200_000:])

    begun()
    server.faults.append(wrong_range)
    assert load() == DATA
    assert [asked.range for asked in server.asked] == ["bytes=200000-", None]


def test_parts_smaller_than_asked_for_are_put_together(server, load):
    def parsimonious(handler, data):
        start = handler.start
        end = min(start + 50_000, len(data))
        where = f"bytes {start}-{end - 1}/{len(data)}"
        handler.head(206, end - start, Content_Range=where)
        handler.wfile.write(data[start:end])

    server.faults.extend([cut_after(50_000), *[parsimonious] * 11])
    assert load(**KNOWN) == DATA
    assert len(server.asked) == 12


def test_a_server_whose_file_ends_too_early_is_asked_for_all_again(server, load, begun):
    begun()
    server.faults.append(answer(416, Content_Range="bytes */100"))
    assert load() == DATA
    assert [asked.range for asked in server.asked] == ["bytes=200000-", None]


def test_a_length_too_long_ends_in_a_message(server, load, folder):
    """The server promises more than it ever sends; once is no matter."""
    server.faults.append(say_length(len(DATA) + 1))
    assert load() == DATA
    (folder / "dev_fan.zip").unlink()
    server.faults.extend([say_length(len(DATA) + 1)] * 10)
    with pytest.raises(InputError) as caught:
        load()
    assert "dev_fan.zip: given up after 10 tries without new bytes" in str(caught.value)
    assert "dev_fan.zip" not in names(folder)


def test_a_length_too_short_is_told_by_the_published_one(server, load, folder):
    server.faults.append(say_length(len(DATA) - 1))
    assert load(**KNOWN) == DATA
    server.faults.extend([say_length(len(DATA) - 1)] * 2)
    (folder / "dev_fan.zip").unlink()
    with pytest.raises(
        NotServed, match="file has 599999 bytes, 600000 are published, 2 times"
    ):
        load(**KNOWN)
    assert not names(folder)


def test_a_length_too_short_is_told_by_the_archive_itself(server, load, folder):
    data = server.files[PATH] = zip_of(DATA)
    server.faults.append(say_length(len(data) - 30))
    assert load(check=require_sound) == data
    (folder / "dev_fan.zip").unlink()
    server.faults.extend([say_length(len(data) - 30)] * 2)
    with pytest.raises(NotServed, match="no zip archive, or half of one, 2 times"):
        load(check=require_sound)
    assert not names(folder)


def test_no_more_is_written_than_is_published(server, load, folder):
    def endless(handler, data):
        handler.head(200, None)
        for _ in range(3):
            handler.wfile.write(data)

    server.faults.extend([endless] * 2)
    with pytest.raises(NotServed, match="sends more than 600000 bytes, 2 times"):
        load(**KNOWN)
    assert not names(folder)


def test_a_server_that_says_no_length_is_believed_at_its_end(server, load):
    server.faults.append(
        lambda handler, data: serve(handler, data, Content_Length=None)
    )
    assert load() == DATA


def test_wrong_bytes_do_not_get_the_name_and_the_message_says_so(
    server, load, folder, said
):
    server.files[PATH] = OTHER
    with pytest.raises(NotServed) as caught:
        load(**KNOWN)
    message = str(caught.value)
    assert md5_of(OTHER) in message
    assert md5_of(DATA) in message
    assert "nothing of it was kept" in message
    assert "\n" not in message
    assert "loading it again" in said.getvalue()
    assert not names(folder)


def test_wrong_bytes_once_are_loaded_again(server, load):
    server.faults.append(lambda handler, _: serve(handler, OTHER))
    assert load(**KNOWN) == DATA


def test_a_damaged_archive_is_told_by_its_own_checksums(server, load, folder):
    data = zip_of(DATA)
    server.files[PATH] = data[:1000] + bytes(10) + data[1010:]
    with pytest.raises(NotServed, match="a damaged zip archive"):
        load(check=require_sound)
    assert not names(folder)


def test_a_file_packed_on_the_way_is_unpacked(server, load):
    def packed(handler, data):
        body = gzip.compress(data, 1)
        handler.head(200, len(body), Content_Encoding="gzip")
        handler.wfile.write(body)

    def half(handler, data):
        body = gzip.compress(data, 1)
        handler.head(200, len(body), Content_Encoding="gzip")
        handler.wfile.write(body[:300_000])

    server.faults.extend([half, packed])
    assert load() == DATA
    assert [asked.range for asked in server.asked] == [None, None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, load, waits, status):
    server.faults.extend([answer(status)] * 3)
    assert load() == DATA
    assert waits == [1.0, 2.0, 4.0]


def test_as_long_as_the_server_asks_is_waited(server, load, waits):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"  # is past
    asks = ["7", "0", date, "soon", "-3"]
    server.faults.extend(answer(429, Retry_After=text) for text in asks)
    assert load() == DATA
    assert waits == [7.0, 2.0, 4.0, 8.0, 16.0]


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server, load, waits, begun):
    begun()
    server.faults.append(answer(503, Retry_After="3600"))
    with pytest.raises(InputError) as caught:
        load()
    assert "503 Service Unavailable and asks to wait 3600 s" in str(caught.value)
    assert "200.0 kB are kept" in str(caught.value)
    assert not waits


def test_the_waits_grow_to_a_bound_and_then_it_is_given_up(server, load, waits, folder):
    server.faults.extend([answer(500)] * 10)
    with pytest.raises(InputError, match="given up after 10 tries"):
        load()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert not names(folder)


def test_new_bytes_begin_the_waits_anew(server, load, waits):
    busy = answer(503)
    server.faults.extend([busy, busy, cut_after(1000), busy, cut_after(1000)])
    assert load() == DATA
    assert waits == [1.0, 2.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_wait_is_cut_short_by_chance_to_no_less_than_half(chance):
    patience = Patience(chance=lambda: chance)
    waits = [patience.wait_s(n) for n in range(1, 10)]
    longest = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert waits == [wait * (0.5 + chance / 2) for wait in longest]
    assert patience.wait_s(1, 30.0) == 30.0


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418, 599, 204])
def test_a_refusal_is_not_asked_again(server, load, status, folder):
    server.faults.append(answer(status))
    with pytest.raises(NotServed) as caught:
        load()
    assert f"dev_fan.zip: the server answers {status}" in str(caught.value)
    assert f"load {server.url}{PATH} with a browser" in str(caught.value)
    assert len(server.asked) == 1
    assert not names(folder)


def test_redirects_are_followed(server, load, begun):
    begun()
    server.files["/elsewhere"] = DATA
    server.etags["/elsewhere"] = server.etag(PATH)
    server.faults.append(answer(302, Location="/elsewhere"))
    assert load() == DATA
    paths = [(asked.path, asked.range) for asked in server.asked]
    assert paths == [(PATH, "bytes=200000-"), ("/elsewhere", "bytes=200000-")]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", PATH])
def test_redirects_lead_to_the_web_alone_and_not_in_circles(server, load, folder, to):
    server.faults.extend([answer(302, Location=to)] * 20)
    with pytest.raises(NotServed, match="cannot be had from"):
        load()
    assert not names(folder)


def test_a_server_that_falls_silent_is_left(server, load, folder):
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


def test_a_full_disk_is_told_before_the_first_byte(server, load, monkeypatch, folder):
    def usage(_):
        return type("Usage", (), {"free": 599_999})

    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(InputError, match=r"600.0 kB are needed and 600.0 kB are free"):
        load()
    assert not names(folder)


def test_an_interrupt_leaves_what_has_come(server, load, folder):
    def interrupt(_):
        raise KeyboardInterrupt

    server.faults.append(cut_after(200_000))
    with pytest.raises(KeyboardInterrupt):
        load(sleep=interrupt)
    assert names(folder) == {"dev_fan.zip.part", "dev_fan.zip.part.json"}
    assert (folder / "dev_fan.zip.part").read_bytes() == DATA[:200_000]
