"""Shows a page of recordings inside a notebook."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from gammavae_jax.files import read_text
from gammavae_jax.scoring.verdict import Verdict

_MOST_BYTES = 20_000_000  # a notebook that contains larger pages opens slowly
# Otherwise, links within the page would lead to the notebook. This must precede the
# page's security policy, which would forbid it.
_BASE = '<base href="about:srcdoc">'
# Scripts on the page may run, but cannot reach the notebook.
_FRAME = (
    '<iframe srcdoc="{page}" sandbox="allow-scripts" title="{title}" '
    'style="width: 100%; height: 700px; border: 0"></iframe>'
)


class ReportedVerdicts(list[Verdict]):
    """The verdicts on recordings, with the page that explains them.

    A notebook shows the page if a cell ends with this list.

    Args:
        verdicts: one per recording.
        path: the page.
    """

    def __init__(self, verdicts: Sequence[Verdict], path: Path):
        super().__init__(verdicts)
        self.path = path

    def __repr__(self) -> str:
        verdicts = "1 verdict" if len(self) == 1 else f"{len(self)} verdicts"
        return f"<{verdicts}; page: {self.path}>"

    def _repr_html_(self) -> str | None:
        """Return the page in a frame or, if the page is too large, where to find it."""
        try:
            size = self.path.stat().st_size
            page = read_text(self.path) if size <= _MOST_BYTES else None
        except (OSError, UnicodeDecodeError):  # moved, deleted or replaced since
            return None
        if page is None:
            return f"Open {escape(str(self.path))} in a browser."
        page = page.replace("<head>", f"<head>{_BASE}", 1)
        return _FRAME.format(page=escape(page), title=escape(self.path.name))
