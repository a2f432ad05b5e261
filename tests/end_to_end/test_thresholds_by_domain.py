"""Thresholds by domain, from the main job to the page of a finished run."""

import csv

import numpy as np
import pytest
from support.main_job import TINY, notes_of, rescore, run_all, score_bytes

from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.errors import InputError
from gammavae_jax.export.machine import narrowed
from gammavae_jax.report.page import scores_payload
from gammavae_jax.runs.checkpoint import load_detector
from gammavae_jax.runs.finished import _read_run
from gammavae_jax.scoring.domains import rate_by_domain

RATE = 0.2
SETTINGS = ["scoring.by_domain=true", f"scoring.false_alarm_rate={RATE}"]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Run the main job on a machine that has enough clips of both domains."""
    folder = tmp_path_factory.mktemp("by_domain")
    sizes = {
        "fan": SyntheticSize(20, 12, 6, (0.5, 0.5)),
        "valve": SyntheticSize(20, 2, 2, (0.5, 0.5)),
    }
    data = make_synthetic(folder / "data", sizes)
    run_all(data, folder / "run", "--epochs", 1, *TINY, *SETTINGS)
    return data, folder / "run"


@pytest.mark.slow
def test_decisions_follow_the_p_values_of_the_domains(job):
    _, out = job
    detector = load_detector(out / "checkpoint")
    assert [rate_by_domain(detector, m) for m in (0, 1)] == [RATE, None]
    with (out / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["machine"] == "fan"]
    assert len(rows) > 20
    for row in rows:
        assert bool(int(row["decision"])) == (float(row["p_value"]) <= RATE)
    with (out / "results.csv").open() as file:
        (result,) = (
            row
            for row in csv.DictReader(file)
            if (row["machine"], row["score"]) == ("fan", "fusion_smooth_max")
        )
    normal = [
        int(row["decision"])
        for row in rows
        if row["score"] == "fusion_smooth_max" and "target_test_normal" in row["clip"]
    ]
    assert len(normal) == 6
    assert float(result["fpr_target"]) == pytest.approx(np.mean(normal))
    pooled = detector.thresholds["fusion_smooth_max"][0, 0]
    assert any(
        (float(row["anomaly_score"]) > pooled) != (row["decision"] == "1")
        for row in rows
        if row["score"] == "fusion_smooth_max"
    )
    notes = notes_of(out)
    assert "Each domain has its own threshold: fan" in notes
    assert "One threshold serves both domains of valve" in notes


@pytest.mark.slow
def test_the_page_and_a_second_evaluation_decide_alike(job, tmp_path):
    data, out = job
    rescore(out / "checkpoint", data, tmp_path / "again")
    assert score_bytes(tmp_path / "again") == score_bytes(out)
    _, report, _ = _read_run(out)
    with (out / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = list(report.machines[0].scores)
    page = scores_payload(report.config, report.machines, report.rows, scores, {})
    of_fan, of_valve = (machine["scores"] for machine in page["machines"])
    for score in scores:  # a page draws only a threshold that all clips share
        assert of_fan[score][0]["threshold"] is None
        assert of_valve[score][0]["threshold"] is not None
    for clips in report.machines:
        for score in clips.scores:
            decided = [
                bool(int(row["decision"]))
                for row in rows
                if (row["machine"], row["score"]) == (clips.machine, score)
            ]
            np.testing.assert_array_equal(clips.decisions(score)[0], decided)


@pytest.mark.slow
def test_the_checkpoint_is_not_exported(job):
    detector = load_detector(job[1] / "checkpoint")
    with pytest.raises(InputError, match="train a detector without it"):
        narrowed(detector)
