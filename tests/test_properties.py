"""Properties of names, files, configurations and scores, tested on random examples."""

import csv
import io
import json
import string
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict, override, to_dict
from gammavae_jax.data.audio.archives import recordings_in
from gammavae_jax.data.names import clip_stem, machine_and_section
from gammavae_jax.errors import InputError, printable
from gammavae_jax.evaluation.metrics import auc, evaluate_section, partial_auc
from gammavae_jax.evaluation.official import official_score
from gammavae_jax.evaluation.score_files import (
    read_score_files,
    write_decisions,
    write_scores,
)
from gammavae_jax.scoring.sample_size import clips_needed
from gammavae_jax.scoring.threshold import conformal_threshold, p_values

# Every character that is allowed in file names and in score files.
in_names = st.characters(
    exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="/"
)
words = st.text(in_names, max_size=12)
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = settings(max_examples=50)  # for tests that write files


def attempt(call):
    """Return the result and None, or None and the error message."""
    try:
        return call(), ""
    except InputError as error:
        return None, str(error)


@given(st.text())
def test_a_name_is_shown_in_one_line_and_unchanged_if_it_is_printable(name):
    shown = printable(name)
    assert shown.isprintable()
    assert (shown == name) == name.isprintable()


@given(words, st.text(string.digits, min_size=1, max_size=3))
def test_machine_and_section_are_parsed_from_a_score_file_name(machine, section):
    parsed = machine_and_section(f"anomaly_score_{machine}_section_{section}_test.csv")
    assert parsed in (None, (machine, section)) or machine.startswith("DCASE20")
    if machine.isalnum() and not machine.startswith("DCASE20"):
        assert parsed == (machine, section)


@few
@given(
    st.dictionaries(words, st.tuples(float32, st.booleans()), min_size=1, max_size=8)
)
def test_score_files_preserve_every_name_and_number(tmp_path_factory, clips):
    folder = tmp_path_factory.mktemp("scores")
    # The names are arbitrary, except that both labels occur.
    names = [f"{label}_0_{w}.wav" for label in ("normal", "anomaly") for w in clips]
    assume(len({clip_stem(name) for name in names}) == len(names))
    scores = np.array([score for score, _ in clips.values()] * 2, np.float32)
    decisions = np.array([decision for _, decision in clips.values()] * 2)
    path = write_scores(folder, "fan", "00", names, scores)
    write_decisions(folder, "fan", "00", names, decisions)
    with path.open(encoding="utf-8", newline="") as file:
        assert [name for name, _ in csv.reader(file)] == names
    (section,) = read_score_files(folder)
    np.testing.assert_array_equal(section.scores.astype(np.float32), scores)
    assert section.decisions is not None
    np.testing.assert_array_equal(section.decisions, decisions)
    n = len(clips)
    assert section.is_anomaly.tolist() == [False] * n + [True] * n


@few
@given(
    st.text(st.sampled_from("ab,\"'\n\r 0123.-e;\ufeff\0="), max_size=60) | st.text()
)
def test_any_text_is_read_as_a_score_file_or_refused_in_one_line(
    tmp_path_factory, text
):
    folder = tmp_path_factory.mktemp("scores")
    path = folder / "anomaly_score_fan_section_00_test.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    sections, refusal = attempt(lambda: read_score_files(folder))
    assert refusal.isprintable()
    for section in sections or ():
        assert np.isfinite(section.scores).all()


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner)
    ),
    max_leaves=6,
)
FIELDS = to_dict(Config())
paths = [
    name if not isinstance(branch, dict) else f"{name}.{leaf}"
    for name, branch in FIELDS.items()
    for leaf in (branch if isinstance(branch, dict) else [""])
]


def assert_survives_json_or_is_refused(make):
    config, refusal = attempt(make)
    assert refusal.isprintable()
    if config is not None:
        text = json.dumps(to_dict(config), allow_nan=False)
        assert from_dict(json.loads(text)) == config
        assert hash(config) == hash(from_dict(to_dict(config)))


@given(st.dictionaries(st.sampled_from([*FIELDS, "x"]) | st.text(), json_trees))
def test_any_json_is_a_configuration_or_is_refused_in_one_line(tree):
    assert_survives_json_or_is_refused(lambda: from_dict(tree))


odd_values = st.sampled_from(["NaN", "1e999", "-1", "0", "1e-320", "true", "[]", ""])
values = odd_values | json_trees.map(json.dumps) | st.text(max_size=12)


@settings(max_examples=300)
@given(st.sampled_from(paths), values)
def test_any_setting_is_applied_and_survives_json_or_is_refused_in_one_line(
    path, value
):
    assert_survives_json_or_is_refused(lambda: override(Config(), [f"{path}={value}"]))


N = 30
scores_of_clips = hnp.arrays(np.float64, N, elements=st.floats(-1e6, 1e6))
labels = hnp.arrays(bool, N).filter(lambda a: a.any() and not a.all())
domains = hnp.arrays(bool, N)


@given(scores_of_clips, labels, domains)
def test_metrics_match_scikit_learn_and_stay_within_their_bounds(
    scores, is_anomaly, target
):
    assert auc(scores, is_anomaly) == pytest.approx(roc_auc_score(is_anomaly, scores))
    partial = partial_auc(scores, is_anomaly)
    # McClish's scaling maps the worst area, 0, to a value below one half.
    assert 0.5 * (1 - 0.05 / 0.95) - 1e-12 <= partial <= 1
    row = evaluate_section(scores, is_anomaly, target, threshold=0.0)
    known = np.array(row[4:14] + row[15:])
    known = known[~np.isnan(known)]
    assert ((known >= 0) & (known <= 1)).all()
    assert 0 <= official_score([row]) <= 1


@given(scores_of_clips, labels)
def test_raising_the_scores_of_anomalies_lowers_no_metric(scores, is_anomaly):
    better = np.where(is_anomaly, scores + np.abs(scores) + 1, scores)
    assert auc(better, is_anomaly) >= auc(scores, is_anomaly) - 1e-12
    assert partial_auc(better, is_anomaly) >= partial_auc(scores, is_anomaly) - 1e-12


rates = st.sampled_from([0.01, 0.05, 0.1, 0.2, 1 / 3, 0.5])


@given(rates, st.data())
def test_the_threshold_keeps_the_false_alarm_rate_on_held_out_clips(rate, data):
    n = clips_needed(rate) + data.draw(st.integers(0, 20))
    held_out = data.draw(hnp.arrays(np.float64, n, elements=st.floats(-1e6, 1e6)))
    threshold = conformal_threshold(held_out, rate)
    assert threshold in held_out
    # With one more clip, at most this rate of n + 1 clips is above the threshold.
    assert (held_out > threshold).sum() + 1 <= rate * (n + 1) + 1e-6
    p = p_values(held_out, held_out)
    assert ((p >= 1 / (n + 1)) & (p <= 1)).all()
    assert p_values(np.array([held_out.max() + 1]), held_out) == 1 / (n + 1)
    order = np.argsort(held_out)
    assert (np.diff(p[order]) <= 0).all()  # higher scores, smaller p-values


@few
@given(st.lists(st.text(st.sampled_from("ab./\\: \n\x1bé")), max_size=5))
def test_recordings_have_paths_below_their_archive_or_it_is_refused(
    tmp_path_factory, names
):
    folder = tmp_path_factory.mktemp("archive")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            info.filename = f"{name}{number}.wav"
            archive.writestr(info, b"x")
    path = folder / "x.zip"
    path.write_bytes(data.getvalue())
    found, refusal = attempt(lambda: recordings_in(path))
    assert refusal.isprintable()
    if found is None:
        assert any(".." in name or name[:1] in "/\\" or ":" in name for name in names)
    for parts in found or ():
        below = Path(path, *parts)
        assert path in below.parents
        assert ".." not in below.parts
