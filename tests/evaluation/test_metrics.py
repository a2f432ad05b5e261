"""The metrics of every year, against trusted implementations."""

import json
import math
import statistics
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score
from support.labelled_scores import assert_close, four_strata

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation import metrics, official
from gammavae_jax.evaluation.metrics import (
    METRICS,
    Row,
    auc,
    detection_rates,
    evaluate_section,
    partial_auc,
    roc,
    validate,
)
from gammavae_jax.evaluation.official import official_score

N_CLIPS = 24
# With few distinct integers, ties are common and monotone maps are exact.
clip_scores = hnp.arrays(np.float64, N_CLIPS, elements=st.integers(-9, 9).map(float))
labels = hnp.arrays(bool, N_CLIPS).filter(lambda a: a.any() and not a.all())
domains = hnp.arrays(bool, N_CLIPS)


@given(clip_scores, labels)
def test_auc_equals_pair_counting(scores, is_anomaly):
    pairs = scores[is_anomaly][:, None] - scores[~is_anomaly]
    assert_close(auc(scores, is_anomaly), np.mean((pairs > 0) + 0.5 * (pairs == 0)))


@given(clip_scores, labels)
def test_the_roc_curve_rises_from_0_to_1_with_the_auc_below_it(scores, is_anomaly):
    false_alarms, detected = roc(scores, is_anomaly)
    assert (false_alarms[0], detected[0]) == (0, 0)
    assert (false_alarms[-1], detected[-1]) == (1, 1)
    assert_close(np.trapezoid(detected, false_alarms), auc(scores, is_anomaly))


@given(clip_scores, labels, st.floats(0.05, 0.95))
def test_partial_auc_matches_scikit_learn(scores, is_anomaly, max_fpr):
    expected = roc_auc_score(is_anomaly, scores, max_fpr=max_fpr)
    assert_close(partial_auc(scores, is_anomaly, max_fpr), expected)


@given(clip_scores, labels, domains, st.randoms(use_true_random=False))
def test_the_order_of_the_clips_does_not_matter(scores, is_anomaly, is_target, random):
    order = np.array(random.sample(range(N_CLIPS), N_CLIPS))
    rows = [
        evaluate_section(scores[i], is_anomaly[i], is_target[i], threshold=1.0)
        for i in (np.arange(N_CLIPS), order)
    ]
    assert_close(rows[0][4:], rows[1][4:])


@given(clip_scores, labels, domains, st.sampled_from([2020, 2021, 2022]))
def test_monotone_maps_of_the_score_change_nothing(scores, is_anomaly, is_target, year):
    rows = [
        evaluate_section(s, is_anomaly, is_target, year=year)
        for s in (scores, scores**3, 1e300 * scores)
    ]
    assert_close(rows[0][4:], rows[1][4:])
    assert_close(rows[0][4:], rows[2][4:])


def test_metrics_match_those_of_the_official_code(golden):
    stored = json.loads((golden / "evaluation.json").read_text())["metrics"]
    scores, is_anomaly = np.array(stored["score"]), np.array(stored["label"]) == 1
    is_target = np.array(stored["domain"]) == "target"
    row = evaluate_section(
        scores, is_anomaly, is_target, threshold=stored["decision_threshold"]
    )
    found = {"pAUC": row.pauc}
    for domain, clips in (("source", ~is_target), ("target", is_target)):
        found[f"pAUC ({domain})"] = partial_auc(
            scores[clips], is_anomaly[clips], stored["max_fpr"]
        )
        for name in ("AUC", "precision", "recall", "F1 score"):
            column = name.split()[0].lower()
            found[f"{name} ({domain})"] = getattr(row, f"{column}_{domain}")
    expected = stored["expected"]
    assert found.keys() == expected.keys()
    assert_close([found[name] for name in expected], list(expected.values()))


def test_a_domain_is_ranked_against_the_anomalies_of_both_domains():
    scores, is_anomaly, is_target = four_strata(0)
    row = evaluate_section(scores, is_anomaly, is_target)
    source, target = is_anomaly | ~is_target, is_anomaly | is_target
    assert_close(row.auc_source, auc(scores[source], is_anomaly[source]))
    assert_close(row.auc_target, auc(scores[target], is_anomaly[target]))
    assert_close(row.pauc, partial_auc(scores, is_anomaly))
    expected = statistics.harmonic_mean([row.auc_source, row.auc_target, row.pauc])
    assert_close(official_score([row]), expected)


def test_in_2021_domains_are_evaluated_separately():
    scores, is_anomaly, is_target = four_strata(1)
    row = evaluate_section(scores, is_anomaly, is_target, year=2021)
    parts = [
        metric(scores[clips], is_anomaly[clips])
        for metric in (auc, partial_auc)
        for clips in (~is_target, is_target)
    ]
    assert_close([row.auc_source, row.auc_target], parts[:2])
    assert_close(official_score([row], year=2021), statistics.harmonic_mean(parts))


def test_in_2021_the_score_of_a_machine_without_target_clips_has_two_parts():
    scores, is_anomaly, _ = four_strata(1)
    row = evaluate_section(scores, is_anomaly, np.zeros_like(is_anomaly), year=2021)
    expected = statistics.harmonic_mean([row.auc_source, row.pauc])
    assert_close(official_score([row], year=2021), expected)


def test_in_2020_the_score_is_the_mean_of_auc_and_partial_auc():
    scores, is_anomaly, _ = four_strata(2)
    row = evaluate_section(scores, is_anomaly, np.zeros_like(is_anomaly), year=2020)
    expected = [auc(scores, is_anomaly), partial_auc(scores, is_anomaly)]
    assert_close([row.auc, row.pauc], expected)
    assert_close(official_score([row], year=2020), np.mean(expected))


def test_a_machine_with_only_source_clips_is_evaluated():
    scores, is_anomaly, _ = four_strata(3)
    row = evaluate_section(
        scores, is_anomaly, np.zeros_like(is_anomaly), threshold=0.5, machine="fan"
    )
    assert row.auc_source == row.auc
    for metric in ("auc", "precision", "recall", "f1", "fpr"):
        assert math.isnan(getattr(row, f"{metric}_target"))
    expected = statistics.harmonic_mean([row.auc_source, row.pauc])
    assert_close(official_score([row]), expected)


def test_decisions_are_scores_above_the_threshold():
    scores, is_anomaly, is_target = four_strata(4)
    threshold = float(scores[0])  # a clip at the threshold is called normal
    row = evaluate_section(scores, is_anomaly, is_target, threshold=threshold)
    decided = evaluate_section(
        scores, is_anomaly, is_target, decisions=scores > threshold
    )
    assert row.threshold == threshold
    assert math.isnan(decided.threshold)
    assert row._replace(threshold=0.0) == decided._replace(threshold=0.0)
    assert_close(row.fpr_source, np.mean(scores[:25] > threshold))
    assert_close(row.recall_target, np.mean(scores[75:] > threshold))


def test_without_decisions_their_metrics_are_nan():
    row = evaluate_section(*four_strata(5))
    unknown = {name for name in METRICS if math.isnan(getattr(row, name))}
    assert unknown == {name for name in METRICS if "auc" not in name}


def test_a_new_column_of_the_results_must_be_computed(monkeypatch):
    """Otherwise, NaN could fill it unnoticed."""
    longer = namedtuple("Row", (*Row._fields, "new"))
    monkeypatch.setattr(metrics, "Row", longer)
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, "new"))
    with pytest.raises(TypeError, match="'new'"):
        evaluate_section(*four_strata(5))


def test_zero_divisors_give_zero_as_in_the_official_evaluators():
    nothing, everything = np.zeros(3, bool), np.ones(3, bool)
    silent = detection_rates(nothing, everything)
    assert silent["precision"] == silent["recall"] == silent["f1"] == 0
    assert math.isnan(silent["fpr"])
    alarmed = detection_rates(everything, nothing)
    assert alarmed == {"precision": 0, "recall": 0, "f1": 0, "fpr": 1}


def test_only_harmonic_means_floor_an_auc_of_zero():
    scores, is_anomaly = np.array([1.0, 0.0]), np.array([False, True])
    row = evaluate_section(scores, is_anomaly, np.zeros(2, bool))
    assert row.auc_source == 0
    assert 0 < official_score([row]) < 1e-15
    assert official.harmonic_means([row])["auc_source"] == np.finfo(float).eps
    assert official.arithmetic_means([row])["auc_source"] == 0


def test_harmonic_means_leave_out_nan():
    rows = [evaluate_section(*four_strata(seed)) for seed in (6, 7)]
    rows[1] = rows[1]._replace(auc_target=math.nan)
    assert_close(official.harmonic_means(rows)["auc_target"], rows[0].auc_target)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores, is_anomaly, is_target = four_strata(12)
    scores[7] = value
    with pytest.raises(InputError, match=r"fan section 02: the score of clip 7 is"):
        evaluate_section(scores, is_anomaly, is_target, machine="fan", section="02")


@pytest.mark.parametrize(
    ("anomalous", "word"), [(False, "normal"), (True, "anomalous")]
)
def test_labels_of_one_class_are_refused(anomalous, word):
    scores, is_anomaly, is_target = four_strata(13)
    is_anomaly[:] = anomalous
    with pytest.raises(InputError, match=f"pump section 00: all 100 clips are {word}"):
        evaluate_section(scores, is_anomaly, is_target, machine="pump")


def test_arrays_of_the_wrong_shape_or_type_are_refused():
    scores, is_anomaly, is_target = four_strata(14)
    with pytest.raises(InputError, match="pass one score, label and domain per clip"):
        validate(scores[1:], is_anomaly, is_target)
    with pytest.raises(InputError, match="pass one score, label and domain per clip"):
        validate(scores[:, None], is_anomaly[:, None], is_target[:, None])
    with pytest.raises(InputError, match="must be booleans"):
        validate(scores, is_anomaly.astype(int), is_target)
    with pytest.raises(InputError, match="all 0 clips are normal"):
        validate(scores[:0], is_anomaly[:0], is_target[:0])


def test_an_official_score_without_an_auc_is_refused():
    with pytest.raises(InputError, match="at least one row"):
        official_score([])
    scores, is_anomaly, _ = four_strata(15)
    row = evaluate_section(scores, is_anomaly, is_anomaly, year=2021)
    with pytest.raises(InputError, match="no row has an AUC"):
        official_score([row], year=2021)
