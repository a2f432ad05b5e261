"""Logs that show nothing, and what they would have shown."""

import io

from rich.console import Console

from gammavae_jax.log import Log


def quiet_log() -> Log:
    """Return a log that writes its messages and its output to memory."""
    return Log(*(Console(file=io.StringIO(), width=1000) for _ in range(2)))


def text_of(console: Console) -> str:
    """Return what a console of a quiet log has shown."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
