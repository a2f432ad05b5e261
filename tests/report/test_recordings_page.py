"""The page of own recordings, and what a notebook shows of it and of training."""

from html import escape
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from support.detectors import fitted, small
from support.probes import clips, noise

from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.data.states import State
from gammavae_jax.report import recordings_page
from gammavae_jax.report.recordings_page import (
    ReportedVerdicts,
    write_recordings_report,
)
from gammavae_jax.scoring.detector import clip_p_values

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


RUNNING = (State.RUNNING,) * 4


@pytest.fixture(scope="module")
def detector():
    """Return a detector for two machines with 20 training clips each."""
    rng = np.random.default_rng(0)
    machines = [(name, clips(noise(rng, 20, 40))) for name in ("fan", "pump")]
    return fitted(small("default"), machines, 1).detector


def recordings(seed, n_parts=1):
    """Return four clips, of recordings that were each cut into some parts."""
    log_mels = noise(np.random.default_rng(seed), 4, 40)
    owners = np.arange(4) // n_parts
    names = tuple(f"{seed} {n}.wav" for n in range(4 // n_parts))
    sounds = tuple(np.full(4000, clip, np.float32) for clip in range(4))
    return LoadedRecordings(names, clips(log_mels)._replace(recording=owners), sounds)


@pytest.fixture
def written(detector, monkeypatch, tmp_path):
    """Return a function that writes a page and returns its report and wanted clips.

    `states` are those of the clips of each machine of the detector.
    """
    seen = {}

    def explain(_, wanted):
        seen["wanted"] = wanted
        return []

    def text(report, _):
        seen["report"] = report
        return ""

    def write(scored, states=(RUNNING, RUNNING)):
        monkeypatch.setattr(
            recordings_page, "clip_states", lambda _, number, of: states[number]
        )
        write_recordings_report(tmp_path / "page.html", detector, scored)
        return SimpleNamespace(**seen)

    monkeypatch.setattr(recordings_page, "show_clips", explain)
    monkeypatch.setattr(recordings_page, "report_html", text)
    return write


def test_clips_of_every_state_but_running_are_named_as_not_judged(written):
    states = (State.RUNNING, State.OFF, State.CLIPPED, State.NO_SIGNAL)
    page = written([(0, recordings(0), np.arange(4.0))], [states])
    assert page.report.notes == [
        "Not judged because of their states: 0 1.wav (off), 0 2.wav (clipped), "
        "0 3.wav (no signal)."
    ]


def test_the_least_p_value_is_that_of_a_score_above_all_training_clips(written):
    page = written([(m, recordings(m), np.arange(4.0)) for m in range(2)])
    least = pytest.approx(1 / 21)  # 20 clips, and the new one
    assert page.report.least_p == {"fan": least, "pump": least}


def test_cut_recordings_of_a_single_machine_are_explained_in_a_note(written):
    whole, cut = (recordings(n, n_parts) for n, n_parts in ((0, 1), (1, 2)))
    scores = np.arange(4.0)
    assert written([(0, whole, scores), (1, whole, scores)]).report.notes == []
    (note,) = written([(0, whole, scores), (1, cut, scores)]).report.notes
    assert "This page shows the parts one by one" in note


def test_judged_clips_keep_their_scores_p_values_and_pictures(written, detector):
    """The first clip is not judged, and the first machine has no recordings."""
    given, scores = recordings(1), np.array([9.0, 0.5, 5.0, 1.5], np.float32)
    states = (State.OFF, *RUNNING[1:])
    page = written([(1, given, scores)], [RUNNING, states])
    (pump,) = page.report.machines
    score = page.report.config.score
    assert pump.machine == "pump"
    assert pump.names == given.names[1:]
    assert pump.scores[score].tolist() == [scores[1:].tolist()]
    expected = clip_p_values(detector, score, 0, 1, scores[1:])
    np.testing.assert_array_equal(pump.p_values[score][0], expected)
    assert sorted(of.clip for of in page.wanted) == [0, 1, 2]
    for place, clip, of_detector, load in page.wanted:
        assert (place, of_detector) == (0, 1)
        log_mel, sound = load()
        np.testing.assert_array_equal(log_mel, given.clips.log_mels[clip + 1])
        assert sound.waveform[0] == clip + 1
