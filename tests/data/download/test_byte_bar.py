import io

import pytest
from rich.console import Console

from gammavae_jax.data.download import byte_bar
from gammavae_jax.log import Log


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(byte_bar.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_now_and_then(clock):
    file = io.StringIO()
    with byte_bar.byte_bar(Log(Console(file=file)), "a.zip") as show:
        for second in range(0, 46):
            clock[0] = float(second)
            show(100_000_000 + 1_000_000 * second, 200_000_000)
        clock[0] = 61.0
        show(1_000_000, None)  # begun again
    assert file.getvalue().splitlines() == [
        "a.zip: 115.0 MB of 200.0 MB, 1.0 MB/s",
        "a.zip: 130.0 MB of 200.0 MB, 1.0 MB/s",
        "a.zip: 145.0 MB of 200.0 MB, 1.0 MB/s",
        "a.zip: 1.0 MB, 0 bytes/s",
    ]


def test_on_a_terminal_there_is_a_bar():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    with byte_bar.byte_bar(Log(console), "a.zip") as show:
        show(50_000_000, None)
        show(100_000_000, 200_000_000)
    assert "a.zip" in file.getvalue()
    assert "100.0/200.0 MB" in file.getvalue()
