"""Texts as cells of tables that people open in a spreadsheet.

A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@` (or their full-width
forms, or a tab) for a formula, which can read other files or start programs; quotes of
CSV do not help. So such a text gets an apostrophe before it. Where numbers have a
decimal comma, semicolons part cells, so what follows one counts as a beginning too.

Score files of the challenge are not written so: their form is fixed.
"""

import re

_FORMULA = "[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n]"
_BEGINNING = re.compile(f"(?:^|(?<=[;\t\r\n]))(?='*{_FORMULA})")
_MARKED = re.compile(f"(?:^|(?<=[;\t\r\n]))'(?='*{_FORMULA})")


def as_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula; `text_of` gives it back."""
    return _BEGINNING.sub("'", text)


def text_of(cell: str) -> str:
    """What `as_cell` was given."""
    return _MARKED.sub("", cell)
