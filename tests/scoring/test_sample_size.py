"""The number of independent recordings behind a threshold, and its notes."""

import re

import numpy as np
import pytest
import scipy.stats

from gammavae_jax.config import Config, ScoringConfig, TrainConfig
from gammavae_jax.scoring.sample_size import (
    clips_needed,
    false_alarm_range,
    independent_recordings,
    sample_size_notes,
)
from gammavae_jax.scoring.threshold import conformal_threshold
from gammavae_jax.training.split import Split


def split_of(held_out, is_linked=None):
    """Return a split that holds out these clips of each member and machine."""
    is_clip = held_out.any(0)
    n_machines, n_clips = is_clip.shape
    if is_linked is None:
        is_linked = np.tile(np.eye(n_clips, dtype=bool), (n_machines, 1, 1))
    no_windows = np.zeros((len(held_out), n_machines, 0), np.uint8)
    return Split(
        no_windows, held_out, is_clip, np.zeros_like(is_clip), is_linked, is_linked
    )


def settings_of(rate=0.1, n_seeds=1):
    return Config(
        train=TrainConfig(n_folds=2),
        scoring=ScoringConfig(false_alarm_rate=rate),
        n_seeds=n_seeds,
    )


@pytest.mark.parametrize(("rate", "n"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.5, 1)])
def test_clips_needed_is_the_smallest_count_with_a_quantile(rate, n):
    assert clips_needed(rate) == n


CASES = [(9, 0.1), (4, 0.1), (30, 0.1), (40, 0.05), (99, 0.01), (7, 0.5)]


@pytest.mark.parametrize(("n", "rate"), CASES)
def test_the_real_rate_is_in_the_range_for_95_percent_of_training_sets(n, rate):
    """The share of uniform scores above a threshold is one minus the threshold."""
    n_sets = 5000
    scores = np.random.default_rng(n).random((n_sets, n))
    real = 1 - np.array([conformal_threshold(row, rate) for row in scores])
    low, high = false_alarm_range(float(n), rate)
    error = 4 * (0.025 * 0.975 / n_sets) ** 0.5
    np.testing.assert_allclose((real < low).mean(), 0.025, atol=error)
    np.testing.assert_allclose((real > high).mean(), 0.025, atol=error)


@pytest.mark.parametrize(
    ("n", "rate", "shapes"),
    [
        (9, 0.1, (1, 9)),
        (19, 0.1, (2, 18)),
        (28, 0.1, (2, 27)),  # 2.9 of 29 clips are rounded down
        (99, 0.1, (10, 90)),
        (99, 0.05, (5, 95)),
        (4, 0.1, (1, 4)),  # too few: the largest score
        (1, 0.1, (1, 1)),
        (0.3, 0.1, (1, 1)),
        (9.5, 0.2, (2, 8.5)),
    ],
)
def test_the_range_is_that_of_an_order_statistic_of_uniform_scores(n, rate, shapes):
    expected = scipy.stats.beta.ppf([0.025, 0.975], *shapes)
    np.testing.assert_allclose(false_alarm_range(float(n), rate), expected)


@pytest.mark.parametrize("n", [1, 4, 9, 18])
def test_the_range_of_the_largest_score_has_a_closed_form(n):
    expected = [1 - 0.975 ** (1 / n), 1 - 0.025 ** (1 / n)]
    np.testing.assert_allclose(false_alarm_range(float(n), 0.1), expected)


def pairs(n_clips, n_pairs):
    """Return the links between clips; the first clips form linked pairs."""
    of_clip = np.arange(n_clips)
    of_clip[: 2 * n_pairs] //= 2
    of_clip[2 * n_pairs :] += n_clips
    return (of_clip[:, None] == of_clip)[None]


def test_independent_recordings_are_counted_by_link_and_by_recording():
    held_out = np.zeros((2, 2, 14), bool)
    held_out[0, :, :5] = held_out[1, :, 5:10] = True
    linked = np.repeat(pairs(14, 2), 2, axis=0)
    split = split_of(held_out, linked)
    each, by_two = np.arange(14), np.arange(10) // 5
    counts = independent_recordings(split, [each, each[:10]], settings_of())
    np.testing.assert_array_equal(counts, [8, 8])
    counts = independent_recordings(split, [by_two, each], settings_of())
    np.testing.assert_array_equal(counts, [2, 8])
    # Clip 1 of recording 0 is linked to clip 2 of recording 1: a chain of four.
    chain = np.eye(4, dtype=bool)[None].copy()
    chain[0, [1, 2], [2, 1]] = True
    split = split_of(np.ones((2, 1, 4), bool), chain)
    (count,) = independent_recordings(split, [np.arange(4) // 2], settings_of())
    np.testing.assert_allclose(count, 1 / 2 + 1 / 3 + 1 / 3 + 1 / 2, rtol=1e-5)


def test_only_held_out_clips_of_the_first_seed_count():
    held_out = np.zeros((4, 1, 8), bool)
    held_out[0, 0, :2] = held_out[1, 0, 4:6] = held_out[2:, 0] = True
    config = settings_of(n_seeds=2)
    (count,) = independent_recordings(split_of(held_out), [np.arange(8)], config)
    assert count == 4
    (count,) = independent_recordings(split_of(held_out), [np.arange(8) // 2], config)
    assert count == 2


ONE_EACH = np.arange(100)
FEW_CLIPS = (
    "Too few training clips for a false-alarm rate of 0.01, which needs 99 held-out "
    "clips: expect more false alarms for fan (has 80). Add clips."
)
FEW_RECORDINGS = (
    "Too few training recordings for a false-alarm rate of {}, which needs {} held-out "
    "recordings: expect more false alarms for fan (has {}). Add recordings."
)
RANGE = (
    "Some training clips share a recording or audio, so they are not independent. With "
    "a nominal false-alarm rate of {} %, the real rate will probably be: fan {} "
    "independent recordings)."
)


@pytest.mark.parametrize(
    ("recording", "rate", "expected"),
    [
        (ONE_EACH, 0.01, [FEW_CLIPS]),
        (ONE_EACH, 0.1, []),
        # Five recordings cut into 100 clips; four of the recordings are held out.
        (ONE_EACH // 20, 0.01, [FEW_RECORDINGS.format(0.01, 99, 4)]),
        (ONE_EACH // 20, 0.1, [FEW_RECORDINGS.format(0.1, 9, 4)]),
        (ONE_EACH // 20, 0.2, [RANGE.format(20, "0.6 to 60 % (4")]),
        (ONE_EACH * 0, 0.1, [FEW_RECORDINGS.format(0.1, 9, 1)]),  # one long recording
        (ONE_EACH // 9, 0.1, [RANGE.format(10, "0.3 to 34 % (9")]),
        (ONE_EACH // 2, 0.1, [RANGE.format(10, "2.8 to 20 % (40")]),
        (np.maximum(ONE_EACH, 7), 0.1, []),  # 73 of 80 are independent
        (np.maximum(ONE_EACH, 9), 0.1, [RANGE.format(10, "4.1 to 17 % (71")]),
    ],
)
def test_recordings_count_and_not_the_clips_cut_from_them(recording, rate, expected):
    held_out = np.zeros((4, 1, 110), bool)  # with padding, and a second seed
    held_out[0, 0, :40] = held_out[1, 0, 40:80] = held_out[2:, 0, :100] = True
    config = settings_of(rate, n_seeds=2)
    notes = sample_size_notes(split_of(held_out), [recording], ["fan"], config)
    assert notes == expected


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_note_on_too_few_clips_counts_those_of_one_seed(tiny, n_seeds):
    config = tiny("default", f"n_seeds={n_seeds}", "scoring.false_alarm_rate=0.1")
    fold = np.arange(9) % 2 == 0
    is_clip = np.array([np.arange(9) < 8, np.arange(9) < 9])  # nine clips are needed
    held_out = np.stack([is_clip & fold, is_clip & ~fold] * n_seeds)
    eight, nine = np.arange(8), np.arange(9)
    names = ["eight", "nine"]
    (note,) = sample_size_notes(split_of(held_out), [eight, nine], names, config)
    assert "needs 9 held-out clips" in note
    assert "for eight (has 8). Add clips." in note
    only = split_of(held_out[:, 1:])
    assert sample_size_notes(only, [nine], ["nine"], config) == []


def test_without_folds_the_remedy_is_more_clips_or_a_larger_share(tiny):
    config = tiny("vae", "scoring.false_alarm_rate=0.1")
    held_out = np.arange(20)[None, None] < 2
    notes = sample_size_notes(split_of(held_out), [np.arange(20)], ["fan"], config)
    assert notes == [
        "Too few training clips for a false-alarm rate of 0.1, which needs 9 held-out "
        "clips: expect more false alarms for fan (has 2). Add clips, or raise "
        "train.held_out_fraction."
    ]


def test_each_machine_is_in_at_most_one_note():
    """A machine with enough clips and no links is in no note."""
    held_out = np.tile(np.arange(40) % 2 == np.arange(2)[:, None], (4, 1, 1))
    held_out = held_out.transpose(1, 0, 2).copy()
    held_out[:, 3, 5:] = False
    linked = np.tile(np.eye(40, dtype=bool), (4, 1, 1))
    linked[2] = pairs(40, 20)[0]  # these clips share audio
    each = np.arange(40)
    recordings = [each, each // 8, each, each]
    names = ["plain", "cut", "copied", "five"]
    notes = sample_size_notes(
        split_of(held_out, linked), recordings, names, settings_of()
    )
    few, ranges = notes
    assert (
        "expect more false alarms for cut (has 5), five (has 5). Add recordings." in few
    )
    assert re.search(
        r"be: copied 1\.2 to 25 % \(20 independent recordings\)\.$", ranges
    )
