"""The conclusions about a detector, and the remedies that they name."""

import re

import numpy as np
import pytest

from gammavae_jax.evaluation.fault_check import Outcome, check_fault
from gammavae_jax.evaluation.fault_check_text import (
    advice,
    auc_limits,
    conclusion,
    percent_limits,
)
from gammavae_jax.evaluation.intervals import RocArea, Share
from gammavae_jax.scoring.verdict import Verdict

HELD_OUT = np.arange(99)


def verdicts(scores, threshold):
    """Return verdicts with p-values from 99 held-out scores, 0 to 98."""
    above = [np.count_nonzero(score <= HELD_OUT) for score in scores]
    return [
        Verdict(f"{i}.wav", "pump", float(score), (1 + n) / 100, threshold)
        for i, (score, n) in enumerate(zip(scores, above, strict=True))
    ]


def check(normal, faulty, threshold=89.5, rate=0.1):
    return check_fault(verdicts(normal, threshold), verdicts(faulty, threshold), rate)


HEALTHY = np.linspace(0, 60, 30)


def test_a_good_detector_needs_no_advice():
    good = check(HEALTHY, np.linspace(95, 120, 20))
    assert good.detection.outcome is Outcome.GOOD_ENOUGH
    assert conclusion(good) == (
        "Good enough: with 95 % confidence, at least 83 % of the recordings of this "
        "fault raise an alarm (needed: 50 %), and the AUC is at least 0.91 (needed: "
        "0.8). The false alarms (0 of 30) are compatible with the rate of 10 %."
    )
    assert advice(good) == []


def test_too_few_recordings_are_counted():
    few = check(HEALTHY[:20], [95, 100, 105, 110, 115])
    assert conclusion(few) == (
        "Too few recordings to decide: the AUC may be anything from 0.76 to 1.00 "
        "(needed: 0.8); the share of detected faults may be anything from 47 to 100 % "
        "(needed: 50 %). If the results stay the same, 2 more faulty recordings are "
        "enough."
    )
    assert advice(few) == []
    one = check(np.linspace(0, 60, 9), np.linspace(95, 120, 9))
    text = "1 more normal and 1 more faulty recordings are enough."
    assert conclusion(one).endswith(text)
    single = check(np.linspace(0, 60, 98), np.linspace(95, 120, 20), rate=0.01)
    assert conclusion(single) == (
        "Too few recordings to decide: a false-alarm rate of 1 % needs at least 99 "
        "normal recordings. If the results stay the same, 1 more normal recording is "
        "enough."
    )
    chance = check([*HEALTHY[:9], 90, 90, 90], np.linspace(95, 120, 20))
    assert (
        "3 of 12 normal recordings raise an alarm, which is more than 2 times the rate "
        "of 10 % but may be chance"
    ) in conclusion(chance)


def test_a_higher_rate_may_replace_more_recordings_if_most_faults_are_missed():
    open_ = check(HEALTHY, [*np.linspace(70, 80, 13), *np.linspace(92, 99, 7)])
    assert open_.detection.outcome is Outcome.TOO_FEW
    (remedy,) = advice(open_)
    assert remedy.startswith("If you cannot record more, raise the false-alarm rate: ")
    assert "would have detected 15 of 20 faults, with 0 of 30 false alarms" in remedy


def test_more_recordings_do_not_help_a_detector_at_the_limit():
    half = check(HEALTHY, [70] * 10 + [95] * 10)
    assert "not even 1000 recordings of each kind are enough" in conclusion(half)
    assert any("microphone" in text for text in advice(half))


def test_an_undetectable_fault_has_remedies():
    deaf = check(HEALTHY, np.linspace(0, 62, 30))
    assert re.fullmatch(
        r"Not detectable: this detector .* the AUC is at most 0\.6\d \(needed: 0\.8; "
        r"chance: 0\.5\)\.",
        conclusion(deaf),
    )
    text = " ".join(advice(deaf))
    assert "microphone nearer" in text
    assert "Record for longer" in text
    assert "`--set 'scoring.fused=[\"maximum_varmin\"]'`" in text
    assert "swapped" not in text
    swapped = check(np.linspace(50, 80, 30), np.linspace(0, 60, 30))
    assert "the two folders are not swapped" in advice(swapped)[0]


def test_a_higher_rate_is_no_remedy_if_no_threshold_is_good_enough():
    alike = check(np.linspace(40, 80, 30), np.linspace(50, 80, 30))
    assert alike.lowest_rate is not None
    assert conclusion(alike).startswith("Not detectable")
    assert "more false alarms" not in " ".join(advice(alike))


def test_faults_that_are_missed_with_a_low_auc_are_not_detectable():
    weak = check(HEALTHY, np.linspace(25, 62, 20))
    assert weak.detection.area.value < 0.8 < weak.detection.area.interval[1]
    assert re.fullmatch(
        r"Not detectable: with 95 % confidence, at most 17 % of the recordings of this "
        r"fault raise an alarm \(needed: 50 %\)\. Another threshold would not be "
        r"enough, because the AUC is only 0\.7\d\d \(0\.\d\d to 0\.\d\d\), and 0\.8 is "
        r"needed\.",
        conclusion(weak),
    )


def test_the_advice_to_lower_a_threshold_has_numbers():
    missed = check(HEALTHY, np.linspace(70.5, 89.5, 20))
    assert missed.detection.outcome is Outcome.WRONG_THRESHOLD
    assert conclusion(missed).startswith(
        "Detectable, but the threshold is wrong: with 95 % confidence, at most 17 % of "
        "the recordings of this fault raise an alarm (needed: 50 %). The AUC is 1.000 "
    )
    # The interval of 15 of 20 begins at 50.9 %, that of 14 at 45.7 %. The fifteenth
    # score is 75.5, which 23 of 99 held-out scores exceed.
    assert advice(missed) == [
        "Raise the false-alarm rate: `gammavae threshold` with `--false-alarm-rate "
        "0.24` would have detected 15 of 20 faults, with 0 of 30 false alarms. Check "
        "this with other recordings."
    ]


def test_too_many_false_alarms_need_more_training_or_a_lower_rate():
    alarms = check([*HEALTHY, *[92] * 15], np.linspace(99, 120, 20))
    assert alarms.detection.outcome is Outcome.WRONG_THRESHOLD
    assert "at least 20 % of normal recordings raise an alarm" in conclusion(alarms)
    train, lower = advice(alarms)
    assert "Train with more normal recordings" in train
    assert lower.startswith("Lower the false-alarm rate: ")
    assert "0.01` would have detected 20 of 20 faults, with 0 of 45" in lower
    # If the false alarms score as high as the faults, no rate helps.
    high = check([*HEALTHY, *[99] * 15], np.linspace(99, 120, 20))
    assert len(advice(high)) == 1


@pytest.mark.parametrize(
    ("share", "limits"),
    [
        ((0, 16), ("0", "21")),
        ((7, 50), ("5.8", "27")),
        ((16, 16), ("79", "100")),
        ((1, 200), ("0", "2.8")),
    ],
)
def test_limits_are_rounded_outwards(share, limits):
    assert percent_limits(Share(*share)) == limits
    low, high = (100 * limit for limit in Share(*share).interval)
    assert float(limits[0]) <= low <= high <= float(limits[1])


def test_limits_of_an_auc_are_rounded_outwards():
    area = RocArea(0.95, 20, 20, 0.0, 0.0)
    low, high = area.interval
    assert auc_limits(area) == (f"{low - 0.005:.2f}", f"{high + 0.005:.2f}")


def test_an_auc_that_may_be_above_one_half_is_not_blamed_on_swapped_folders():
    deaf = check(HEALTHY, np.linspace(0, 58, 30))
    assert deaf.detection.outcome is Outcome.NOT_DETECTABLE
    assert deaf.detection.area.value < 0.5 < deaf.detection.area.interval[1]
    assert "swapped" not in " ".join(advice(deaf))
