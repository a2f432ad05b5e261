"""Logs that write to memory, and the messages of refusals."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from gammavae_jax.errors import InputError
from gammavae_jax.log import Log


def quiet_log() -> Log:
    """Return a log that writes its messages and its output to memory."""
    return Log(*(Console(file=io.StringIO(), width=1000) for _ in range(2)))


def text_of(console: Console) -> str:
    """Return the text that a quiet log has written to one of its consoles."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def refusal(call: Callable, *arguments, **keywords) -> str:
    """Return the message of a call's InputError; assert that it is one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **keywords)
    assert str(caught.value).isprintable()
    return str(caught.value)
