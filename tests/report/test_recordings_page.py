"""What a notebook shows of training and of a page."""

from html import escape
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from gammavae_jax.report.recordings_page import ReportedVerdicts

FIT = """
import numpy as np
import gammavae_jax as gv

noise = np.random.default_rng(0).normal(0, 0.1, (5, 16000))
detector = gv.AnomalyDetector(preset="paper", epochs=3, clip_seconds=None)
detector.fit(list(noise[:4]), sample_rate=16000);
"""
REPORT = 'detector.report(noise[4], "page.html", sample_rate=16000)'


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Return the outputs of a notebook's two cells, and its folder."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(source) for source in (FIT, REPORT)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [cell["outputs"] for cell in notebook.cells], folder


def test_progress_is_a_single_line_that_ends_complete(outputs):
    (fit, _), _ = outputs
    shown = [of["data"] for of in fit if of["output_type"] == "display_data"]
    progress = [
        of["text/plain"] for of in shown if of["text/plain"].startswith("epochs")
    ]
    assert len(progress) == 1
    assert progress[0].startswith("epochs 3/3")
    assert all(of.get("name") != "stderr" for of in fit), "no warning is printed"


def test_a_report_shows_its_page_below_the_cell(outputs):
    (_, report), folder = outputs
    (result,) = [of for of in report if of["output_type"] == "execute_result"]
    page = (folder / "page.html").read_text("utf-8")
    based = page.replace("<head>", '<head><base href="about:srcdoc">', 1)
    assert based.index("<base") < based.index("Content-Security-Policy")
    assert f'srcdoc="{escape(based)}"' in result["data"]["text/html"]
    assert result["data"]["text/plain"] == f"<1 verdict; page: {folder}/page.html>"


def test_a_page_cannot_leave_its_frame(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<p title="a&quot;b">"></iframe><script>1 < 2</script>')
    shown = ReportedVerdicts([], page)._repr_html_()
    assert shown is not None
    assert shown.count("<iframe") == shown.count("</iframe>") == 1
    assert "<script" not in shown
    assert 'sandbox="allow-scripts"' in shown


def test_a_page_is_named_in_its_frame_as_text(tmp_path):
    page = tmp_path / 'a" onload="alert(1).html'
    page.write_text("<p>")
    shown = ReportedVerdicts([], page)._repr_html_()
    assert shown is not None
    assert 'title="a&quot; onload=&quot;alert(1).html"' in shown


def test_a_page_that_is_gone_or_too_large_is_not_shown(tmp_path, monkeypatch):
    page = tmp_path / "a<b.html"
    verdicts = ReportedVerdicts([], Path(page))
    assert verdicts._repr_html_() is None
    page.write_bytes(b"\xff")
    assert verdicts._repr_html_() is None
    page.write_text("long")
    monkeypatch.setattr("gammavae_jax.report.recordings_page._MOST_BYTES", 3)
    assert verdicts._repr_html_() == f"Open {escape(str(page))} in a browser."
