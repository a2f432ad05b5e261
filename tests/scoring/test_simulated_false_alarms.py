"""The whole pipeline keeps the nominal false-alarm rate on simulated machines.

The distribution of the clips is known: each has a random spectrum and noisy frames.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console

from gammavae_jax.config_json import override
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.loading import Machines
from gammavae_jax.data.machines import clip_file
from gammavae_jax.log import Log
from gammavae_jax.presets import preset
from gammavae_jax.scoring.fit import fit
from gammavae_jax.scoring.scored_clips import score_clips
from gammavae_jax.training.loop import Observer

N_MACHINES, N_TEST = 20, 100
RATE = 0.1
SETTINGS = [
    *("model.hidden=[8]", "model.n_latent=2", "train.epochs=1", "train.n_folds=2"),
    'scores=["fusion_smooth_max"]',
]


class Law(NamedTuple):
    """The distribution of the mean spectra of one machine's clips."""

    factors: np.ndarray  # `factor mel`
    offset: np.ndarray  # `mel`, of the target domain

    def clips(self, rng, n_recordings, per_recording=1, domain="source"):
        """Return clips, cut from recordings whose clips resemble each other."""
        is_target = domain == "target"
        of_recording = rng.standard_normal((n_recordings, len(self.factors)))
        code = np.repeat(of_recording, per_recording, axis=0)
        if per_recording > 1:
            code += 0.3 * rng.standard_normal(code.shape)
        spectra = (2.0 if is_target else 1.0) * code @ self.factors
        spectra += is_target * self.offset - 40.0
        frames = spectra[:, None] + 4.0 * rng.standard_normal((len(code), 32, 128))
        return [
            (clip_file(Path(f"section_00_{domain}_train_normal_{number:04d}.wav")), mel)
            for number, mel in enumerate(frames.astype(np.float32))
        ]


def alarms(train, test, *settings):
    """Return which test clips raise an alarm, `machine clip`.

    `train` and `test` make a machine's clips from a generator and a law; `train` may
    also return the number of each clip's recording.
    """
    rng = np.random.default_rng(1)
    config = override(preset("default"), [*SETTINGS, *settings])
    laws = [
        Law(rng.standard_normal((8, 128)), 3.0 * rng.standard_normal(128))
        for _ in range(N_MACHINES)
    ]
    given = [(train(rng, law), test(rng, law)) for law in laws]
    names = tuple((f"machine{number}", "00") for number in range(N_MACHINES))
    machines = Machines(
        names,
        mel_filterbank(config.features),
        train=[
            ("_".join(name), as_clips(*of_train))
            for name, (of_train, _) in zip(names, given, strict=True)
        ],
        test=[],
    )
    quiet = Log(Console(quiet=True), Console(quiet=True))
    detector = fit(config, machines, Observer(quiet))
    named = [
        (name, as_clips(found))
        for (name, _), (_, found) in zip(names, given, strict=True)
    ]
    tables = score_clips(detector, named, quiet)
    return np.stack([table.decisions(config.score)[0] for table in tables])


def as_clips(found, recording=None):
    files, mels = zip(*found, strict=True)
    return Clips(files, mels, recording)


def assert_rate(is_alarm, expected):
    """Check the mean rate over machines, with three standard errors of tolerance."""
    rates = is_alarm.mean(1)
    error = rates.std() / np.sqrt(len(rates))
    assert abs(rates.mean() - expected) < max(3 * error, 0.01)
    assert error < 0.02  # so that the check can fail


@pytest.mark.slow
def test_new_clips_of_the_same_kind_raise_the_nominal_rate_of_alarms():
    found = alarms(
        lambda rng, law: (law.clips(rng, 60),), lambda rng, law: law.clips(rng, N_TEST)
    )
    assert_rate(found, 6 / 61)  # the threshold is the sixth largest of 60 scores


@pytest.mark.slow
def test_clips_of_new_recordings_raise_at_most_the_nominal_rate_of_alarms():
    """If clips counted as recordings, the rate would be several times as high.

    A new clip counts as a whole recording, but only some clips of its recording would
    score as high. The rate is therefore between the rates for one and two recordings.
    """

    def train(rng, law):
        return law.clips(rng, 20, 5), np.repeat(np.arange(20), 5)

    found = alarms(train, lambda rng, law: law.clips(rng, N_TEST, 2)[::2])
    rates = found.mean(1)
    error = rates.std() / np.sqrt(len(rates))
    assert 1 / 21 - 3 * error < rates.mean() < 2 / 21 + 3 * error
    assert error < 0.02


def alarms_by_domain(n_source, n_target, *settings):
    """Return which test clips of the source and of the target domain raise an alarm."""

    def train(rng, law):
        return ([*law.clips(rng, n_source), *law.clips(rng, n_target, 1, "target")],)

    def test(rng, law):
        source = law.clips(rng, N_TEST)
        return [*source, *law.clips(rng, N_TEST, domain="target")]

    found = alarms(train, test, *settings)
    return found[:, :N_TEST], found[:, N_TEST:]


@pytest.mark.slow
def test_one_threshold_keeps_the_rate_only_for_the_mixture_of_domains():
    """The source domain has fewer false alarms than the target domain."""
    source, target = alarms_by_domain(90, 10)
    assert source.mean() < 0.7 * RATE < RATE < target.mean()
    assert_rate(0.9 * source + 0.1 * target, RATE)


@pytest.mark.slow
@pytest.mark.parametrize(("n_source", "n_target"), [(90, 30), (180, 20)])
def test_thresholds_by_domain_keep_the_rate_in_each_domain(n_source, n_target):
    by_domain = alarms_by_domain(n_source, n_target, "scoring.by_domain=true")
    for found, n in zip(by_domain, (n_source, n_target), strict=True):
        # The threshold is the `n_above`-th largest of `n` scores.
        n_above = np.floor(RATE * (n + 1))
        assert_rate(found, n_above / (n + 1))
