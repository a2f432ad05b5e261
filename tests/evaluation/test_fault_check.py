"""The rules that judge a detector, with known answers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gammavae_jax.data.states import State
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.fault_check import (
    LEAST_AUC,
    Detection,
    Outcome,
    Question,
    check_fault,
)
from gammavae_jax.evaluation.intervals import RocArea, Share
from gammavae_jax.scoring.verdict import Verdict

Kind = Callable[..., Verdict]


def of_off(*values) -> Verdict:
    """Return a verdict on a recording of a machine that is off."""
    return Verdict(*values, states={State.OFF: 1})


def verdicts(scores, kind: Kind = Verdict, threshold=1.0, p_values=None):
    if p_values is None:
        p_values = [math.nan] * len(scores)
    return [
        kind(f"{number}.wav", "pump", float(score), p_value, threshold)
        for number, (score, p_value) in enumerate(zip(scores, p_values, strict=True))
    ]


def detection(detected, false_alarms, area, spreads=(0.0, 0.0), rate=0.1):
    shares = Share(*detected), Share(*false_alarms)
    sizes = false_alarms[1], detected[1]
    return Detection(*shares, RocArea(area, *sizes, *spreads), rate)


@pytest.mark.parametrize(
    ("detected", "false_alarms", "area", "outcome"),
    [
        ((20, 20), (0, 20), 1.0, Outcome.GOOD_ENOUGH),
        ((10, 10), (0, 10), 1.0, Outcome.GOOD_ENOUGH),
        ((18, 20), (4, 40), 0.95, Outcome.GOOD_ENOUGH),
        ((40, 40), (8, 40), 0.97, Outcome.GOOD_ENOUGH),  # twice the rate: by chance
        ((9, 9), (0, 9), 1.0, Outcome.TOO_FEW),  # the AUC may be 0.79
        ((5, 5), (0, 200), 1.0, Outcome.TOO_FEW),  # 48 % may be detected
        ((8, 10), (0, 100), 1.0, Outcome.TOO_FEW),  # 44 %
        ((30, 30), (3, 12), 1.0, Outcome.TOO_FEW),  # 25 % false alarms: by chance?
        ((12, 20), (2, 20), 0.75, Outcome.TOO_FEW),  # the AUC may be 0.88
        ((30, 30), (9, 40), 0.75, Outcome.NOT_DETECTABLE),
        ((2, 20), (0, 20), 0.9, Outcome.WRONG_THRESHOLD),
        ((5, 20), (0, 20), 0.9, Outcome.WRONG_THRESHOLD),  # 8.7 to 49.1 %
        ((6, 20), (0, 20), 0.9, Outcome.TOO_FEW),  # 11.9 to 54.3 %
        ((30, 30), (10, 40), 1.0, Outcome.WRONG_THRESHOLD),  # 12.7 % at least
        ((2, 20), (0, 20), 0.79, Outcome.NOT_DETECTABLE),
        ((0, 5), (0, 3), 0.7, Outcome.TOO_FEW),  # 52 % may be detected
        ((10, 20), (8, 20), 0.5, Outcome.NOT_DETECTABLE),
        ((20, 20), (12, 30), 0.72, Outcome.NOT_DETECTABLE),
        ((100, 100), (0, 100), 0.6, Outcome.NOT_DETECTABLE),
    ],
)
def test_the_outcome_follows_the_rules(detected, false_alarms, area, outcome):
    assert detection(detected, false_alarms, area).outcome is outcome


def test_a_rate_of_1_percent_needs_99_normal_recordings():
    of_50 = detection((30, 30), (0, 50), 1.0, rate=0.01)
    assert of_50.open_questions == [Question.RATE]
    assert of_50.more_recordings == (49, 0)
    assert of_50.of_totals(99, 30).outcome is Outcome.GOOD_ENOUGH


@pytest.mark.parametrize(
    ("detected", "false_alarms", "area", "more"),
    [
        ((5, 5), (0, 20), 1.0, (0, 2)),  # the lower limits of the AUC: 0.761, 0.809
        ((9, 9), (0, 9), 1.0, (1, 1)),
        ((8, 8), (0, 10), 1.0, (0, 2)),
        # Exactly half are detected, however many recordings there are.
        ((10, 20), (0, 20), 1.0, None),
        # The AUC equals the limit, so its interval always contains the limit.
        ((20, 20), (0, 20), LEAST_AUC, None),
        ((2, 20), (0, 20), 0.9, (0, 0)),
        ((20, 20), (0, 20), 1.0, (0, 0)),
    ],
)
def test_the_number_of_needed_recordings_is_computed(
    detected, false_alarms, area, more
):
    assert detection(detected, false_alarms, area).more_recordings == more


def test_the_needed_faults_clear_the_limit():
    found = detection((8, 10), (0, 100), 1.0)
    assert found.open_questions == [Question.DETECTED]
    _, more = found.more_recordings or (0, 0)
    assert Share(0.8 * (10 + more), 10 + more).interval[0] >= 0.5
    assert Share(0.8 * (9 + more), 9 + more).interval[0] < 0.5
    assert more == 4


@settings(max_examples=40)
@given(
    st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.floats(0.4, 1.0),
    st.sampled_from([0.01, 0.1, 0.3]),
)
def test_the_needed_recordings_are_enough_and_fewer_are_not(
    detected, false_alarms, area, rate
):
    found = detection(detected, false_alarms, area, (0.03, 0.05), rate)
    if (more := found.more_recordings) is None:
        assert found.outcome is Outcome.TOO_FEW
        assert found.of_totals(1000, 1000).outcome is Outcome.TOO_FEW
        return
    assert (more == (0, 0)) == (found.outcome is not Outcome.TOO_FEW)
    n_normal, n_faulty = false_alarms[1] + more[0], detected[1] + more[1]
    assert found.of_totals(n_normal, n_faulty).outcome is not Outcome.TOO_FEW
    for fewer in ((1, 0), (0, 1)):
        if fewer[0] <= more[0] and fewer[1] <= more[1]:
            totals = n_normal - fewer[0], n_faulty - fewer[1]
            assert found.of_totals(*totals).outcome is Outcome.TOO_FEW


def test_the_numbers_are_counted_from_the_verdicts():
    check = check_fault(verdicts([0, 0.5, 2]), verdicts([0.2, 3, 4, 1.0]), 0.1)
    assert check.detection.false_alarms == (1, 3)
    assert check.detection.detected == (2, 4)  # a score at the threshold is no alarm
    assert check.detection.area.value == pytest.approx((1 + 3 + 3 + 2) / 12)
    assert check.machine == "pump"
    assert check.threshold == 1.0


def test_recordings_with_different_thresholds_are_ranked_by_their_distance_to_them():
    """All alarms then rank above all other recordings."""
    normal = [*verdicts([2.0], threshold=3.0), *verdicts([0.0])]
    check = check_fault(normal, verdicts([1.5, 1.1]), 0.1)
    assert check.threshold is None
    assert check.detection.area.value == 1.0
    assert check.detection.detected == (2, 2)
    assert check.detection.false_alarms == (0, 2)


def test_recordings_of_a_machine_that_is_off_are_counted_apart():
    normal = [*verdicts([0, 0.5, 2]), *verdicts([9, 9], of_off)]
    faulty = [*verdicts([0.1], of_off), *verdicts([3, 4])]
    check = check_fault(normal, faulty, 0.1)
    assert check.detection.false_alarms == (1, 3)
    assert check.detection.detected == (2, 2)
    assert len(check.left_out) == 3
    assert check.detection.area.value == 1.0


def test_without_a_running_machine_or_a_threshold_there_is_no_answer():
    off, on = verdicts([1, 2], of_off), verdicts([1, 2])
    with pytest.raises(InputError, match="not running in any of the normal recordings"):
        check_fault(off, on, 0.1)
    with pytest.raises(InputError, match="not running in any of the faulty recordings"):
        check_fault(on, off, 0.1)
    with pytest.raises(InputError, match="no threshold for pump, because its training"):
        check_fault(verdicts([1], threshold=math.nan), on, 0.1)


def test_the_lowest_rate_is_the_one_that_detects_enough_faults():
    """Nine of ten faults are enough: the interval begins at 56 %; for 8, at 44 %."""
    p_values = [0.02, 0.05, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.2504, 0.9]
    faulty = verdicts(np.arange(10), p_values=p_values)
    normal = verdicts(np.zeros(4), p_values=[0.9, 0.251, 0.2511, 0.1])
    found = check_fault(normal, faulty, 0.1).lowest_rate
    assert found is not None
    assert found.false_alarm_rate == 0.251  # 0.2504 rounded upwards
    assert found.detected == (9, 10)
    assert found.false_alarms == (2, 4)
    rare = verdicts(np.arange(10), p_values=[0.1] * 8 + [0.6, 0.9])
    assert check_fault(normal, rare, 0.1).lowest_rate is None
    unknown = check_fault(verdicts([1.0]), verdicts([1.0]), 0.1)
    assert unknown.lowest_rate is None


def test_a_rounding_error_of_a_p_value_does_not_hide_the_lowest_rate():
    faulty = verdicts(np.arange(10), p_values=[0.1 + 0.2] * 10)  # above 0.3
    found = check_fault(verdicts(np.zeros(4), p_values=[0.9] * 4), faulty, 0.1)
    assert found.lowest_rate is not None
    assert found.lowest_rate.detected == (10, 10)


def test_a_single_missing_threshold_is_refused():
    normal = [*verdicts([1]), *verdicts([1], threshold=math.nan)]
    with pytest.raises(InputError, match="no threshold for pump, because its training"):
        check_fault(normal, verdicts([2]), 0.1)
