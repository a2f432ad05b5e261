"""Servers that send other bytes than they say, or than are published."""

import gzip
import io
import zipfile
from functools import partial

import pytest
from support import broken_server
from support.broken_server import answer, cut_after, say_length, serve
from support.loading import DATA, KNOWN, OTHER, PATH, Loading, published

from gammavae_jax.data.download.soundness import require_sound
from gammavae_jax.data.download.transfer import NotServed
from gammavae_jax.errors import InputError


def zip_of(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("fan/train/x.wav", data)
    return stream.getvalue()


@pytest.fixture
def server():
    with broken_server.running() as server:
        yield server


@pytest.fixture
def load(server, tmp_path):
    return Loading(server, tmp_path / "data")


def test_a_file_that_changed_meanwhile_is_loaded_anew(server, load):
    load.begin()
    server.files[PATH] = OTHER
    assert load() == OTHER
    assert load.ranges == ["bytes=200000-"]


def test_a_changed_file_is_seen_though_the_server_heeds_no_if_range(server, load):
    def ignorant(handler, data):
        where = f"bytes 200000-{len(data) - 1}/{len(data)}"
        handler.head(206, len(data) - 200_000, Content_Range=where)
        handler.wfile.write(data[200_000:])

    load.begin()
    server.files[PATH] = OTHER
    server.faults.append(ignorant)
    assert load() == OTHER
    assert load.ranges == ["bytes=200000-", None]


def test_spoilt_bytes_of_an_earlier_process_are_found_out(server, load):
    load.begin()
    part = load.folder / "dev_fan.zip.part"
    part.write_bytes(bytes(1000) + part.read_bytes()[1000:])
    assert load(**KNOWN) == DATA
    assert load.ranges == ["bytes=200000-", None]


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
def test_bytes_of_another_range_are_never_added(server, load, where):
    """Without a checksum to tell it in the end."""

    def wrong_range(handler, data):
        handler.head(206, 400_000, Content_Range=where)
        handler.wfile.write(OTHER[200_000:])

    load.begin()
    server.faults.append(wrong_range)
    assert load() == DATA
    assert load.ranges == ["bytes=200000-", None]


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


def test_a_server_whose_file_ends_too_early_is_asked_for_all_again(server, load):
    load.begin()
    server.faults.append(answer(416, Content_Range="bytes */100"))
    assert load() == DATA
    assert load.ranges == ["bytes=200000-", None]


def test_a_length_too_long_ends_in_a_message(server, load):
    """The server promises more than it ever sends; once is no matter."""
    server.faults.append(say_length(len(DATA) + 1))
    assert load() == DATA
    load.path.unlink()
    server.faults.extend([say_length(len(DATA) + 1)] * 25)
    with pytest.raises(InputError) as caught:
        load()
    assert "dev_fan.zip: given up after 25 tries without new bytes" in str(caught.value)
    assert "dev_fan.zip" not in load.names


def test_a_length_too_short_is_told_by_the_published_one(server, load):
    server.faults.append(say_length(len(DATA) - 1))
    assert load(**KNOWN) == DATA
    server.faults.extend([say_length(len(DATA) - 1)] * 3)
    load.path.unlink()
    with pytest.raises(NotServed, match="has 599999 bytes, 600000 are published"):
        load(**KNOWN, n_tries=3)
    assert not load.names


def test_a_page_in_the_files_stead_drops_nothing_of_what_has_come(server, load):
    def page(handler, data):
        handler.head(200, 23, ETag=None, Content_Type="text/html")
        handler.wfile.write(b"Please come back later.")

    load.begin()
    server.faults.append(page)
    assert load(**KNOWN) == DATA
    assert load.ranges == ["bytes=200000-", "bytes=200000-"]


def test_nor_does_a_page_of_a_length_that_is_not_said(server, load):
    def page(handler, data):
        handler.head(200, None, ETag=None, Content_Type="text/html")
        handler.wfile.write(b"Please come back later.")

    load.begin()
    server.faults.append(page)
    assert load(**KNOWN) == DATA
    assert load.ranges == ["bytes=200000-", "bytes=200000-"]


def test_nothing_is_added_to_such_a_page(server, load):
    def page(handler, data):
        handler.head(200, None, ETag=None, Last_Modified=None)
        handler.wfile.write(b"Please come back later.")

    server.faults.append(page)
    assert load(**KNOWN) == DATA
    assert load.ranges == [None, None]


def test_twenty_breaks_are_survived_without_ranges_too(server, load):
    def all_of_it(n, handler, data):
        handler.head(200, len(data))
        handler.wfile.write(data[:n])

    server.faults.extend(partial(all_of_it, 20_000 * n % 70_000) for n in range(20))
    server.faults.append(say_length(len(DATA)))
    assert load(**KNOWN) == DATA
    assert len(server.asked) == 21


def test_a_length_too_short_is_told_by_the_archive_itself(server, load):
    data = server.files[PATH] = zip_of(DATA)
    server.faults.append(say_length(len(data) - 30))
    assert load(check=require_sound) == data
    load.path.unlink()
    server.faults.extend([say_length(len(data) - 30)] * 2)
    with pytest.raises(NotServed, match="no zip archive, or half of one, 2 times"):
        load(check=require_sound)
    assert not load.names


def test_no_more_is_written_than_is_published(server, load):
    def endless(handler, data):
        handler.head(200, None)
        for _ in range(3):
            handler.wfile.write(data)

    server.faults.extend([endless] * 2)
    with pytest.raises(NotServed, match="sends more than 600000 bytes, 2 times"):
        load(**KNOWN)
    assert not load.names


def test_a_server_that_says_no_length_is_believed_at_its_end(server, load):
    server.faults.append(
        lambda handler, data: serve(handler, data, Content_Length=None)
    )
    assert load() == DATA


def test_wrong_bytes_do_not_get_the_name_and_the_message_says_so(server, load):
    server.files[PATH] = OTHER
    with pytest.raises(NotServed) as caught:
        load(**KNOWN)
    message = str(caught.value)
    assert published(OTHER)["md5"] in message
    assert KNOWN["md5"] in message
    assert "nothing of it was kept" in message
    assert "\n" not in message
    assert "loading it again" in load.said.getvalue()
    assert not load.names


def test_wrong_bytes_once_are_loaded_again(server, load):
    server.faults.append(lambda handler, _: serve(handler, OTHER))
    assert load(**KNOWN) == DATA


def test_a_damaged_archive_is_told_by_its_own_checksums(server, load):
    data = zip_of(DATA)
    server.files[PATH] = data[:1000] + bytes(10) + data[1010:]
    with pytest.raises(NotServed, match="a damaged zip archive"):
        load(check=require_sound)
    assert not load.names


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
    assert load.ranges == [None, None]


def test_what_cannot_be_unpacked_on_the_way_is_loaded_again(server, load):
    def spoilt(handler, data):
        serve(handler, data, Content_Encoding="gzip")

    server.faults.append(spoilt)
    assert load() == DATA
    assert "what came cannot be unpacked" in load.said.getvalue()


def test_parts_packed_on_the_way_are_not_put_together(server, load):
    def packed(handler, data):
        where = f"bytes 200000-{len(data) - 1}/{len(data)}"
        body = gzip.compress(data, 1)[200_000:]
        coding = {"Content_Range": where, "Content_Encoding": "gzip"}
        handler.head(206, len(body), **coding)
        handler.wfile.write(body)

    load.begin()
    server.faults.append(packed)
    assert load() == DATA
    assert load.ranges == ["bytes=200000-", None]


def test_a_server_that_gave_a_wrong_range_is_asked_for_none_again(server, load):
    def wrong_range(handler, data):
        handler.head(206, len(data), Content_Range="bytes 0-599999/600000")
        handler.wfile.write(data)

    load.begin()
    server.faults.extend([wrong_range, cut_after(100_000)])
    assert load() == DATA
    assert load.ranges == ["bytes=200000-", None, None]
