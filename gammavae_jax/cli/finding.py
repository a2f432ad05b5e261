"""What a check of this computer finds."""

from typing import Literal, NamedTuple

State = Literal["ok", "warning", "FAILED"]


class Finding(NamedTuple):
    """What one check found; `remedy` is a command or an advice, or empty."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def in_one_line(error: BaseException) -> str:
    """An error as a detail: its kind and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
