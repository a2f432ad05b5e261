"""Renders the page templates with Jinja2 and escapes the inserted values."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

import jinja2

# Characters to escape in JSON, since they could end a script element or a line.
_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(template: str, script: str = "", **values: Any) -> str:
    """Render one of the package's page templates, escaping the given values.

    `script` is the file name of the page's only script, if it has one.
    """
    code = resource(script) if script else ""
    page = _TEMPLATES.get_template(template)
    style = resource("report.css")
    return page.render(policy=_policy(code), style=style, script=code, **values)


def resource(name: str) -> str:
    """Return the text of a file that is installed with the `report` package."""
    return files("gammavae_jax.report").joinpath(name).read_text(encoding="utf-8")


def script_json(text: str) -> str:
    """Escape JSON text for use inside a script element."""
    return text.translate(_IN_SCRIPT)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FunctionLoader(resource),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["script_json"] = script_json


def _policy(script: str) -> str:
    """Return a content security policy that allows only the given script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return (
        f"default-src 'none'; script-src 'sha256-{base64.b64encode(digest).decode()}'; "
        "style-src 'unsafe-inline'; media-src blob: data:; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
