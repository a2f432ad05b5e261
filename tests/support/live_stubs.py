"""Scorers with obvious verdicts: a clip's score is its loudness."""

import time

import numpy as np
import soundfile

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.states import State
from gammavae_jax.live.scorer import LiveScorer
from gammavae_jax.scoring.decision import DecisionRule

RATE = 16000


class LoudnessScorer(LiveScorer):
    """A scorer whose score is a clip's largest sample; above 0.5, it is an alarm."""

    def __init__(self, machines=("fan", "pump")):
        self.machines = machines
        self.thresholds = dict.fromkeys(machines, 0.5)
        self.sample_rate = RATE
        self.channels = 0
        self.clip_seconds = 1.0
        self._features = FeatureConfig(n_context=2)
        self.judged: list[tuple[str, int]] = []

    def notes_on(self, recording, clip, machine):
        rate = recording.sample_rate
        return {} if rate == RATE else {f"rate {rate}": f"recordings at {rate} Hz"}

    def score_clip(self, clip, machine):
        self.judged.append((machine, len(clip)))
        return float(np.abs(clip).max())

    def examine(self, clip, recorded, machine):
        return self.score_clip(clip, machine), State.RUNNING

    def rule(self, machine):
        held_out = np.arange(1, 20000) / 10000  # so that the p-value is 1 - score / 2
        return DecisionRule(machine, 0.5, 0.75, held_out, np.ones(19999))

    def mean_clip_seconds(self, machine):
        return 1.0

    def spectrogram(self, clip):
        power = np.abs(np.fft.rfft(clip[: len(clip) // 320 * 320].reshape(-1, 320)))
        return (20 * np.log10(power[:, :128] + 1e-8)).astype(np.float32)


class StuckScorer(LoudnessScorer):
    """A scorer that never finishes a loud clip."""

    def score_clip(self, clip, machine):
        if np.abs(clip).max() > 0.5:
            print("stuck", flush=True)
            time.sleep(600)
        return super().score_clip(clip, machine)


def tone(seconds, level=0.1, rate=RATE):
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def humming(seed, seconds=1.0, broken=False):
    """Return a hum in noise; a broken machine also whistles."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    samples = 0.05 * rng.standard_normal(len(times)) + 0.2 * np.sin(1900 * times)
    if broken:
        samples += 0.3 * np.sin(19000 * times)
    return samples.astype(np.float32)


def put(path, samples, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, format=path.suffix[1:].upper())
    return path
