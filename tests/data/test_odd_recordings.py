"""Every bad or odd recording has its documented outcome, wherever it is read."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.logs import quiet_log
from support.main_job import TINY, command, notes_of, score_bytes
from support.odd_recordings import AS_BYTES, ODD, RATE, WAV, Accepted, N, encoded, table

import gammavae_jax as gv
from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.files import open_recording, read_clip, read_recording
from gammavae_jax.data.features import mel_filterbank, samples_needed
from gammavae_jax.data.loading import load_split
from gammavae_jax.data.machines import find_clips
from gammavae_jax.errors import InputError, printable
from gammavae_jax.presets import preset

SIGNATURES = (b"RIFF", b"RIFX", b"RF64", b"fLaC")
LEAST = samples_needed(FeatureConfig())


def test_the_table_has_many_recordings_of_both_outcomes():
    refused = sum(isinstance(odd.run, str) for odd in ODD.values())
    assert len(ODD) >= 40
    assert refused >= 20
    assert len(ODD) - refused >= 20


def expect(outcome, read, name):
    """Assert that `read` returns the sound, or raises a one-line error."""
    if isinstance(outcome, Accepted):
        waveform = read()
        assert waveform.dtype == np.float32
        assert waveform.shape == outcome.waveform.shape
        np.testing.assert_allclose(
            waveform, outcome.waveform, rtol=0, atol=outcome.tolerance
        )
        return
    with pytest.raises(InputError) as caught:
        read()
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert text.isprintable()
    assert outcome in text


def blocks_of(source, **options):
    with open_recording(source, **options) as recording:
        return np.concatenate(list(recording.blocks))


@pytest.mark.parametrize("what", ODD)
def test_an_odd_recording_is_accepted_or_refused_as_documented(tmp_path, what):
    odd = ODD[what]
    path = odd.make(tmp_path)
    name = printable(path)
    expect(odd.run, lambda: read_clip(path, sample_rate=RATE), name)
    expect(odd.own, lambda: read_recording(path).waveform, name)
    expect(odd.own, lambda: blocks_of(path), name)


@pytest.mark.parametrize("what", AS_BYTES)
def test_an_odd_recording_that_is_posted_has_the_same_outcome(what):
    outcome, data = ODD[what].own, AS_BYTES[what]
    if isinstance(outcome, str) and not data.startswith(SIGNATURES):
        outcome = "this is neither WAV nor FLAC"
    expect(outcome, lambda: blocks_of(data, name="posted"), "posted")


def scorable(outcome):
    """Return whether a recording is accepted and long enough for a window."""
    return isinstance(outcome, Accepted) and len(outcome.waveform) >= LEAST


@pytest.fixture
def everything(tmp_path):
    """Return the path of each odd recording, in a subfolder of its own."""
    places = {}
    for number, (what, odd) in enumerate(ODD.items()):
        folder = tmp_path / "odd" / f"{number:03}"
        folder.mkdir(parents=True)
        path = odd.make(folder)
        can_exist = path.parent == folder and "\0" not in path.name
        if can_exist and path.name in os.listdir(folder):
            places[what] = path
    assert len(places) > len(ODD) - 5
    return places


@pytest.fixture(scope="module")
def detector(one_device):
    """Return a detector with a small model, trained on noise."""
    rng = np.random.default_rng(1)
    normal = [rng.normal(0, 0.1, N).astype(np.float32) for _ in range(9)]
    small = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]
    options: dict = {"epochs": 2, "clip_seconds": 1.0, "verbose": False}
    return gv.AnomalyDetector(settings=small, **options).fit(normal, RATE)


def test_every_accepted_recording_has_a_finite_score(detector, everything, tmp_path):
    """Also silence, a constant and clipping."""
    root = tmp_path / "odd"
    detector.skip_bad_files = True
    scored = detector.score_recordings(root)
    detector.skip_bad_files = False
    expected = {
        printable(path.relative_to(root))
        for what, path in everything.items()
        if scorable(ODD[what].own)
    }
    assert {recording.name for recording in scored} == expected
    for recording in scored:
        assert np.isfinite(recording.score), recording.name
        assert 0 < recording.p_value <= 1, recording.name
    with pytest.raises(InputError):
        detector.score_recordings(root)


def test_loading_skips_and_names_every_refused_recording(everything, tmp_path):
    """All are test clips of one machine; each refused one gets one note."""
    folder = tmp_path / "data" / "fan" / "test"
    folder.mkdir(parents=True)
    for number, path in enumerate(everything.values()):
        # Links, pipes and folders too; each needs a unique name.
        os.rename(path, folder / f"section_00_{number:04}_{path.name[-200:]}")
    (tmp_path / "data" / "fan" / "test" / "whole").write_bytes(WAV)
    machines = find_clips(tmp_path / "data", "fan", ["test"])
    log = quiet_log()
    config = preset("default")
    bank = mel_filterbank(FeatureConfig())
    ((_, clips),) = load_split(machines, "test", bank, config, log, skip_bad_files=True)
    numbers = {int(file.path.name.split("_")[2]) for file in clips.files}
    expected = {n for n, what in enumerate(everything) if scorable(ODD[what].run)}
    assert numbers == expected
    assert len(log.notes) == len(everything) - len(expected)
    assert all(note.isprintable() for note in log.notes)
    assert all(np.isfinite(log_mel).all() for log_mel in clips.log_mels)


@pytest.mark.slow
def test_a_run_on_silence_clipping_and_hostile_names_ends_with_finite_scores(tmp_path):
    """The run also skips bad clips and names them."""
    for split in ("train", "test"):
        (tmp_path / "data" / "fan" / split).mkdir(parents=True)
    train, test = (tmp_path / "data" / "fan" / split for split in ("train", "test"))
    rng = np.random.default_rng(0)
    for number in range(8):
        noise = encoded(rng.normal(0, 0.1, N).clip(-1, 1))
        (train / f"section_00_source_train_normal_{number:04}.wav").write_bytes(noise)
        label = ("normal", "anomaly")[number % 2]
        name = f"section_00_source_test_{label}_{number:04}"
        (test / f"{name}_<script>é\"'=.wav").write_bytes(noise)
    odd = ["silence", "full-scale clipping", "8 channels"]
    for number, what in enumerate(odd, 8):
        name = f"section_00_source_test_normal_{number:04}.wav"
        (test / name).write_bytes(AS_BYTES[what])
    bad = {"truncated": train, "FLAC, truncated": test}
    for number, (what, folder) in enumerate(bad.items(), 20):
        name = f"section_00_source_{folder.name}_normal_{number:04}.wav"
        (folder / name).write_bytes(AS_BYTES[what])
    command(
        "run.py", "--all-machines", "--data-root", tmp_path / "data", "--out",
        tmp_path / "out", "--epochs", 1, "--scores", "fusion_mean", "--skip-bad-files",
        *TINY,
    )  # fmt: skip
    notes = notes_of(tmp_path / "out")
    assert "normal_0020.wav: truncated" in notes
    assert "normal_0021.wav: corrupt" in notes
    (scores, _) = score_bytes(tmp_path / "out").values()
    assert scores.count(b"\n") == 8 + len(odd)
    assert b"nan" not in scores
    assert "<script>é" not in Path(tmp_path / "out" / "report.html").read_text()


def test_the_documentation_contains_the_table():
    page = Path(__file__).parent.parent.parent / "docs" / "recordings.md"
    assert page.read_text(encoding="utf-8").endswith(f"\n\n{table()}")
