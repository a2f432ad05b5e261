"""Telling the domains of a machine apart."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from gammavae_jax.data.clips import Clips
from gammavae_jax.data.domain_rule import domains_of, fit_domain_rule
from gammavae_jax.data.machines import clip_file

N_MELS = 12


def machine(n_source, n_target, seed=0, offset=3.0):
    """Return clips whose domains differ in two bands, less than clips of a domain do.

    In the other bands, clips of both domains vary with a standard deviation of 4 dB.
    """
    rng = np.random.default_rng(seed)
    domains = ["source"] * n_source + ["target"] * n_target
    spectra = 4.0 * rng.standard_normal((len(domains), N_MELS))
    spectra[:, :2] = 0.1 * rng.standard_normal((len(domains), 2))
    spectra[n_source:, :2] += [offset, -offset]
    frames = rng.standard_normal((len(domains), 8, N_MELS)) * 0.1
    frames += spectra[:, None] - frames.mean(1, keepdims=True)
    names = (f"section_00_{d}_train_normal_{n:04d}.wav" for n, d in enumerate(domains))
    return Clips(tuple(clip_file(Path(name)) for name in names), tuple(frames))


def unlinked(clips):
    return np.eye(len(clips.files), dtype=bool)


def rule_of(clips, links=None):
    """Return the rule of clips that have one."""
    rule = fit_domain_rule(clips, unlinked(clips) if links is None else links)
    assert rule is not None
    return rule


def test_domains_are_told_apart_although_clips_of_one_domain_differ_more():
    train, new = machine(40, 10), machine(30, 30, seed=1)
    rule = rule_of(train)
    assert list(rule.is_target) == [0] * 40 + [1] * 10
    assert domains_of(new, rule).tolist() == [False] * 30 + [True] * 30


def test_a_gain_does_not_change_the_domain():
    train, new = machine(40, 10), machine(30, 30, seed=1)
    rule = rule_of(train)
    louder = new._replace(log_mels=tuple(m + 20.0 for m in new.log_mels))
    assert domains_of(louder, rule).tolist() == domains_of(new, rule).tolist()


def test_the_rule_agrees_with_scikit_learn():
    train, new = machine(60, 20, offset=0.1), machine(200, 200, 1, offset=0.1)
    rule = rule_of(train)
    model = LinearDiscriminantAnalysis("lsqr", shrinkage=0.1, priors=[0.5, 0.5])

    def spectra(clips):
        means = np.stack([m.mean(0) for m in clips.log_mels])
        return means - means.mean(1, keepdims=True)

    model.fit(spectra(train), [0] * 60 + [1] * 20)
    expected = np.equal(model.predict(spectra(new)), 1)
    assert 10 < (expected[:200]).sum() < 190  # the domains overlap
    assert (domains_of(new, rule) != expected).mean() < 0.02


def test_linked_clips_do_not_decide_on_each_other():
    clips = machine(8, 7, offset=0.0)  # the domains do not differ
    twice = clips._replace(files=clips.files * 2, log_mels=clips.log_mels * 2)
    truth = np.array([file.name.domain == "target" for file in twice.files])
    separate = np.eye(30, dtype=bool)
    linked = separate | np.roll(separate, 15, 1)
    known, judged = (rule_of(twice, links) for links in (separate, linked))
    correct = [(np.array(rule.is_target) == truth).mean() for rule in (known, judged)]
    assert correct[0] > 0.75 > 0.65 > correct[1]


@pytest.mark.parametrize("counts", [(10, 0), (0, 10), (10, 1)])
def test_there_is_no_rule_without_a_second_clip_in_both_domains(counts):
    clips = machine(*counts)
    assert fit_domain_rule(clips, unlinked(clips)) is None


def test_there_is_no_rule_if_all_target_clips_are_linked():
    clips = machine(10, 4)
    links = unlinked(clips)
    links[10:, 10:] = True
    assert fit_domain_rule(clips, links) is None


def test_equal_clips_and_padded_links_are_no_problem():
    clips = machine(4, 4)
    equal = clips._replace(log_mels=(clips.log_mels[0],) * 8)
    rule = rule_of(equal, np.eye(20, dtype=bool))
    assert np.isfinite([*rule.direction, rule.offset]).all()
