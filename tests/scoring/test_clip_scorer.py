"""The scores of new recordings, and the cache of compiled programs."""

from pathlib import Path

import numpy as np
import pytest

from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import clip_file
from gammavae_jax.presets import preset
from gammavae_jax.scoring import clip_scorer
from gammavae_jax.scoring.clip_scorer import ClipScorer
from gammavae_jax.scoring.detector import Detector


@pytest.fixture
def scorer(monkeypatch):
    """A scorer whose programs return the number of frames, and the list of programs."""
    detector = object.__new__(Detector)
    object.__setattr__(detector, "config", preset("default"))
    scorer, compiled = ClipScorer(detector), []

    def compile_for(machines, arrays, devices):
        compiled.append((machines, arrays.log_mel.shape))
        n_frames = float(arrays.log_mel.shape[2])
        return lambda _: {"frames": np.full((1, 1, 1), n_frames)}

    monkeypatch.setattr(scorer, "_compile", compile_for)
    return scorer, compiled


def clips(n_frames, n_clips=1):
    log_mels = [np.zeros((n_frames, 1), np.float32)] * n_clips
    return Clips((clip_file(Path("a.wav")),) * n_clips, tuple(log_mels))


def padded(scorer, n_frames):
    """Return how many frames a clip is padded to."""
    return scorer.score({0: clips(n_frames)})["frames"].item()


def test_eighty_lengths_of_recordings_share_a_few_programs(scorer):
    scorer, compiled = scorer
    for n_frames in range(20, 500, 6):
        assert n_frames <= padded(scorer, n_frames) < n_frames + 64
    assert len(compiled) == 8


def test_no_length_is_padded_by_more_than_a_quarter_or_a_step(scorer):
    scorer, compiled = scorer
    for n_frames in np.unique(np.geomspace(5, 40_000, 500).astype(int)):
        most = max(n_frames + 63, 1.25 * n_frames)
        assert n_frames <= padded(scorer, n_frames) <= most
    assert len({shape for _, shape in compiled}) < 40


@pytest.mark.parametrize("n_machines", [1, 7])
def test_only_the_programs_used_last_are_kept(scorer, monkeypatch, n_machines):
    scorer, compiled = scorer
    monkeypatch.setattr(clip_scorer, "_PROGRAMS_KEPT", 4)
    rng = np.random.default_rng(0)
    for _ in range(300):
        machine, frames = int(rng.integers(n_machines)), int(rng.integers(5, 9000))
        scorer.score({machine: clips(frames, int(rng.integers(1, 9)))})
        assert len(scorer._programs) <= 4
    before = len(compiled)
    for _ in range(3):
        for n_frames in (64, 128, 192):
            padded(scorer, n_frames)
    assert len(compiled) <= before + 3
