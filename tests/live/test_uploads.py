"""Recordings in request bodies, and malformed forms."""

import asyncio
import contextlib
import itertools
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gammavae_jax.live.metrics import Refusal
from gammavae_jax.live.uploads import Body, Uploads


def recording_of(data, content_type, name, size=65536):
    """Return the recording from a body that arrives in chunks of this size."""
    body = Body(content_type, name)
    for start in range(0, len(data), size):
        body.add(data[start : start + size])
    return body.upload()


def form(files, **data):
    """Return the body and content type of a form that another library encoded."""
    request = httpx.Request("POST", "http://x", files=files, data=data)
    return request.read(), request.headers["content-type"]


@given(st.binary(min_size=1), st.text("abc .wav", min_size=1, max_size=9))
def test_a_form_returns_its_file_unchanged(data, name):
    body, content_type = form({"file": (f"x{name}", data)}, note="no file")
    assert recording_of(body, content_type, None) == (data, f"x{name}".strip())


def test_a_large_file_in_a_form_is_returned_unchanged():
    data = bytes(range(256)) * 4000 + b"\r\n--"
    body, content_type = form({"file": ("a.wav", data)})
    assert recording_of(body, content_type, None) == (data, "a.wav")


def test_the_body_may_be_the_recording_itself():
    assert recording_of(b"RIFF", "audio/wav", None) == (b"RIFF", "recording")
    assert recording_of(b"RIFF", "", "a.wav") == (b"RIFF", "a.wav")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\sounds\\a.wav", "a.wav"),
        ("a\r\nb\x1b[0m.wav", "a??b?[0m.wav"),
        ("x" * 500, "x" * 120),
        ("/", "recording"),
        ("größe.wav", "größe.wav"),
    ],
)
def test_a_displayed_name_is_one_short_line_without_folders(name, shown):
    assert recording_of(b"x", "", name).name == shown


BODY, TYPE = form({"file": ("a.wav", b"0123456789")})
HEAD, _, REST = BODY.partition(b"\r\n")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "audio/wav"),
        (b"", TYPE),
        (BODY, "multipart/form-data"),
        (BODY, "multipart/form-data; boundary="),
        (BODY, "multipart/form-data; boundary=other"),
        (BODY, "multipart/form-data; boundary=" + "x" * 99),
        (BODY[:-30], TYPE),  # without the last boundary
        (BODY.replace(b"filename", b"fielname"), TYPE),
        (BODY.replace(b"\r\n\r\n", b"\r\n"), TYPE),
        form({"file": ("a.wav", b"")}),
        (BODY, "multipart/form-data; boundary*=x; boundary*0=y"),
        (BODY.replace(b'filename="a.wav"', b"filename*=b; filename*0=a"), TYPE),
        ((HEAD + b"\r\nX: y\r\n\r\n\r\n") * 16 + BODY, TYPE),  # 17 parts
        (HEAD + b"\r\n" + b"X: y\r\n" * 9 + REST, TYPE),
        (HEAD + b"\r\nX: " + b"y" * 5000 + b"\r\n" + REST, TYPE),
    ],
    # Parallel test processes need equal test names, but draw different boundaries.
    ids=itertools.count(),
)
def test_a_request_without_a_recording_is_refused(body, content_type):
    with pytest.raises(Refusal) as caught:
        recording_of(body, content_type, None)
    assert caught.value.status == 400
    assert len(caught.value.message.splitlines()) == 1


def test_a_form_whose_part_header_is_a_megabyte_of_semicolons_is_refused_quickly():
    began = time.monotonic()
    semicolons = HEAD + b"\r\nContent-Disposition: " + b";" * 1_000_000
    with pytest.raises(Refusal, match="the form is malformed"):
        recording_of(semicolons + b"\r\n" + REST, TYPE, None)
    assert time.monotonic() - began < 0.2


def test_a_malformed_form_logs_nothing(caplog):
    with pytest.raises(Refusal):
        recording_of(b"x" + BODY, TYPE, None)
    assert not caplog.records


def test_a_file_in_a_form_may_have_an_encoded_name():
    body = BODY.replace(b'filename="a.wav"', b"filename*=utf-8''gr%C3%B6%C3%9Fe.wav")
    assert recording_of(body, TYPE, None).name == "größe.wav"


def read(uploads, *chunks, declared=None, then=lambda: None):
    """Read a body that arrives in chunks; a number among them is a pause in seconds.

    `then` is called while its memory is held.
    """

    async def arrive():
        for chunk in chunks:
            if isinstance(chunk, float):
                await asyncio.sleep(chunk)
            else:
                yield chunk

    async def receive():
        async with uploads.received(arrive(), declared, Body("", None)) as upload:
            then()
            return upload.data

    return asyncio.run(receive())


@pytest.mark.parametrize("declared", [None, "3", "10", "nonsense", "-5", "²"])
def test_a_body_of_the_largest_size_is_read_whatever_length_it_declares(declared):
    uploads = Uploads(10, 1.0)
    held = []
    chunks, note = (b"12345", b"67890"), lambda: held.append(uploads.n_bytes)
    assert read(uploads, *chunks, declared=declared, then=note) == b"1234567890"
    assert (held, uploads.n_bytes) == ([10], 0)


@pytest.mark.parametrize("declared", [None, "3", "11", "9" * 5000])
def test_a_body_that_is_too_large_is_refused_and_freed(declared):
    uploads = Uploads(10, 1.0)
    with pytest.raises(Refusal) as caught:
        read(uploads, b"12345", b"678901", declared=declared)
    assert (caught.value.status, uploads.n_bytes) == (413, 0)


def test_a_body_that_is_too_slow_is_refused_and_freed():
    uploads = Uploads(10, 0.05)
    with pytest.raises(Refusal) as caught:
        read(uploads, b"1", 5.0, b"2")
    assert (caught.value.status, uploads.n_bytes) == (408, 0)


def test_a_body_is_refused_while_memory_is_short():
    uploads = Uploads(10, 1.0, max_bodies=1)
    uploads.n_bytes = 6  # bytes of another body
    with pytest.raises(Refusal) as caught:
        read(uploads, b"78901")
    assert (caught.value.status, caught.value.retry_after) == (503, 2)
    assert uploads.n_bytes == 6
    uploads.n_bytes = 0
    assert read(uploads, b"78901") == b"78901"


def test_a_form_with_two_files_is_refused():
    files = [("file", ("a.wav", b"1")), ("file", ("b.wav", b"2"))]
    for body, content_type in (form(files), form([*files[:1], ("x", files[1][1])])):
        with pytest.raises(Refusal, match="several files: send one at a time"):
            recording_of(body, content_type, None)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_form_may_arrive_in_pieces_of_any_size(size):
    data = b"RIFF\r\n--" + HEAD[:-1] + b"\r\n\r\n--"
    body, content_type = form({"file": ("a.wav", data)}, note="no file")
    assert recording_of(body, content_type, None, size) == (data, "a.wav")


SLOW = {
    "line breaks": HEAD + REST[: REST.index(b"0123")] + b"\r\n" * 10_000,
    "beginnings of a boundary": REST[: REST.index(b"0123")] + b"\r\n-" * 7_000,
    "almost the boundary": REST[: REST.index(b"0123")] + b"\r\n" + HEAD[:-1],
    "semicolons in headers": b"X: " + b";" * 4000 + b"\r\n",
    "quotes in headers": b'Content-Disposition: ;"' + b';"' * 1900 + b"\r\n",
    "headers without names": b": \r\n" * 5000,
    "empty parts": b"\r\n" + HEAD + b"\r\n",
}


@pytest.mark.parametrize("name", SLOW)
def test_the_time_for_a_form_grows_at_most_with_its_size(name):
    def seconds(n_bytes):
        piece = SLOW[name]
        body = HEAD + b"\r\n" + piece * (n_bytes // len(piece))
        began = time.perf_counter()
        with contextlib.suppress(Refusal):
            recording_of(body, TYPE, None)
        return time.perf_counter() - began

    assert min(seconds(1_000_000) for _ in range(3)) < 1


@pytest.mark.parametrize("filler", [";", ';"', '";', "; a=b", "; boundary"])
def test_a_long_content_type_costs_no_time(filler):
    began = time.perf_counter()
    with pytest.raises(Refusal):
        recording_of(BODY, "multipart/form-data" + filler * 30_000, None)
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("field", ["machine", "name"])
def test_a_parameter_in_a_form_is_refused_because_it_would_be_ignored(field):
    with pytest.raises(Refusal, match=rf"field '{field}': add \?{field}=") as refused:
        recording_of(*form({"file": ("a.wav", b"x")}, **{field: "fan"}), None)
    assert refused.value.status == 400
