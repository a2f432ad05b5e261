"""Text, tables and data as HTML: everything from outside is escaped here."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

_SLOT = re.compile(r"\{\{(\w+)\}\}")
# Of JSON in a script element: none of these can then end it, or a line in it.
_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def text(value: object) -> str:
    """Plain text, also within a quoted attribute."""
    return html.escape(str(value), quote=True)


def data_block(name: str, tree: Any) -> str:
    """A tree as JSON that a script finds by its id and reads when it needs it.

    What is not finite must have been made None: JSON has no NaN.
    """
    return json_block(name, json.dumps(tree, allow_nan=False, separators=(",", ":")))


def json_block(name: str, written: str) -> str:
    """The same of JSON that is written already."""
    return (
        f'<script type="application/json" id="{text(name)}">'
        f"{written.translate(_IN_SCRIPT)}</script>"
    )


def base64_of(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def fill(template: str, parts: Mapping[str, str]) -> str:
    """A template with `{{name}}` replaced, once: parts may hold such words too."""
    return _SLOT.sub(lambda found: parts[found[1]], template)


def resource(name: str) -> str:
    """A file of ours that becomes a part of a page."""
    return files("gammavae_jax.report").joinpath(name).read_text(encoding="utf-8")


def policy(script: str) -> str:
    """A content security policy: this one script, and nothing from elsewhere."""
    digest = base64_of(hashlib.sha256(script.encode("utf-8")).digest())
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; "
        "style-src 'unsafe-inline'; media-src blob: data:; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    footer: Sequence[str] | None = None,
    caption: str = "",
    texts: Sequence[int] = (0,),
) -> str:
    """A table that can be sorted; `texts` are the columns that hold no numbers."""
    kinds = ["text" if column in texts else "number" for column in range(len(header))]
    head = "".join(
        f'<th scope="col" data-kind="{kind}">{text(cell)}</th>'
        for cell, kind in zip(header, kinds, strict=True)
    )
    body = "".join(_row(line, kinds) for line in lines)
    foot = f"<tfoot>{_row(footer, kinds)}</tfoot>" if footer else ""
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}">'
        f'<table class="sortable">{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody>{foot}</table></div>"
    )


def _row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    first, *rest = cells
    inside = "".join(
        f'<td data-kind="{kind}">{text(cell)}</td>'
        for cell, kind in zip(rest, kinds[1:], strict=True)
    )
    return f'<tr><th scope="row">{text(first)}</th>{inside}</tr>'
