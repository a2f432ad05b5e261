"""The number of independent recordings, and the false-alarm rates that they support."""

import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from support.detectors import fitted, small
from support.probes import clips, noise

from gammavae_jax.config import Config, ScoringConfig, TrainConfig
from gammavae_jax.data.conditions import Conditions
from gammavae_jax.errors import InputError
from gammavae_jax.scoring.detector import with_false_alarm_rate
from gammavae_jax.scoring.sample_size import (
    clips_needed,
    false_alarm_range,
    independent_recordings,
    sample_size_notes,
    sensitivities,
    training_summaries,
    unsupported_machines,
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


SCORE = "fusion_smooth_max"
RATES = (0.5, 0.2, 0.1, 0.05)


@pytest.fixture(scope="module")
def detector():
    """Two machines with 12 and 30 clips; the 30 clips count as 20 independent ones."""
    rng = np.random.default_rng(0)
    machines = [(f"m{n}", clips(noise(rng, n))) for n in (12, 30)]
    config = small("default", f'scores=["{SCORE}"]')
    made = fitted(config, machines, 0).detector
    weights = made.weights.copy()
    weights[1, :20] = 0.5
    return replace(made, weights=weights)


@pytest.mark.parametrize("machine", [0, 1])
def test_each_rate_has_its_conformal_threshold_and_the_alarms_that_it_gives(
    detector, machine
):
    n_clips = (12, 30)[machine]
    held_out = detector.calibration[SCORE][0, machine, :n_clips]
    weights = detector.weights[machine, :n_clips]
    found = sensitivities(detector, RATES)[f"m{n_clips}"]
    for rate, of_rate in zip(RATES, found, strict=True):
        expected = conformal_threshold(held_out, rate, weights)
        n_alarms = (held_out > expected).sum()
        assert of_rate == (rate, expected, n_alarms, n_clips, (12.0, 20.0)[machine])
        assert of_rate.probable_rate == false_alarm_range(of_rate.n_recordings, rate)
    assert [f.n_alarms for f in found] == sorted(
        (f.n_alarms for f in found), reverse=True
    )
    # A rate of 0.1 needs 9 independent recordings, and 0.05 needs 19.
    assert [f.is_supported for f in found] == [True] * 3 + [machine == 1]


def test_machines_with_too_few_independent_recordings_are_named(detector):
    def at(rate):
        scoring = replace(detector.config.scoring, false_alarm_rate=rate)
        config = replace(detector.config, scoring=scoring)
        return unsupported_machines(replace(detector, config=config))

    assert at(0.1) == ""
    assert at(0.05) == (
        "A false-alarm rate of 0.05 needs 19 independent recordings, which some "
        "machines lack: m12 (12). Expect more false alarms from them."
    )
    assert "which some machines lack: m12 (12), m30 (20). Expect" in at(0.01)


def test_the_number_of_recordings_stored_by_fit_is_used(detector):
    """The clips of one long recording are compared with each other, but count once."""
    cut = Conditions((1.0, 1.0), (-60.0, -50.0), (16000,), (), 0.7, n_recordings=3.0)
    alone = replace(detector, conditions={"m30": cut})
    found = sensitivities(alone, [0.1])
    assert [found[name][0].n_recordings for name in ("m12", "m30")] == [12.0, 3.0]
    assert "lack: m30 (3)." in unsupported_machines(alone)


def test_a_failed_model_has_no_threshold(detector):
    scores = detector.calibration[SCORE].copy()
    scores[:, 0] = np.nan
    failed = replace(detector, calibration={**detector.calibration, SCORE: scores})
    (of_failed,) = sensitivities(failed, [0.1])["m12"]
    assert np.isnan(of_failed.threshold)
    assert of_failed[2:] == (0, 0, 0.0)
    assert sensitivities(failed, [0.1])["m30"] == sensitivities(detector, [0.1])["m30"]


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, np.nan])
def test_a_rate_out_of_range_is_refused(detector, rate):
    with pytest.raises(InputError, match="false_alarm_rate"):
        sensitivities(detector, [rate])


def test_other_rates_are_refused_for_official_thresholds(detector):
    official = replace(detector, config=small("official"))
    with pytest.raises(InputError, match=r"train with scoring\.threshold=conformal"):
        sensitivities(official, [0.1])


def test_the_summary_of_a_fit_says_what_its_thresholds_are_based_on(detector):
    conditions = Conditions(
        (2.0, 2.0), (-60.0, -50.0), (16000,), (), 0.7, total_seconds=24.0
    )
    texts = training_summaries(replace(detector, conditions={"m12": conditions}))
    few, many = (false_alarm_range(n, 0.1) for n in (12.0, 100.0))
    assert texts["m12"] == (
        "12 clips (0.4 minutes), 12 independent recordings. With a false-alarm rate "
        f"of 10 %, probably {100 * few[0]:.1f} to {100 * few[1]:.0f} % of new normal "
        "recordings will raise an alarm; with 100 independent recordings, it would be "
        f"{100 * many[0]:.1f} to {100 * many[1]:.0f} %"
    )
    assert texts["m30"].startswith("30 clips, 20 independent recordings. With")


def test_the_summary_says_how_many_recordings_are_missing(detector):
    texts = training_summaries(with_false_alarm_rate(detector, 0.05))
    assert texts["m12"] == (
        "12 clips, 12 independent recordings. With a false-alarm rate of 5 %, 19 "
        "independent recordings are needed: record at least 7 more, on other days"
    )


def test_a_detector_whose_thresholds_are_not_conformal_has_no_summary(detector):
    scoring = replace(detector.config.scoring, threshold="gamma")
    other = replace(detector, config=replace(detector.config, scoring=scoring))
    assert training_summaries(other) == {"m12": "", "m30": ""}
