"""Measuring what the seed and the machine's name decide."""

import pytest

from experiments.seeds import N_FAULTY, N_NORMAL, _n_changed, compared, parse
from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.scoring.verdict import Verdict


def test_a_clip_that_differs_for_any_seed_counts_once():
    def of_seed(*scores):
        return [Verdict("clip", "fan", score, 0.5, 2.0) for score in scores]

    first, others = of_seed(1.0, 1.5, 3.0), [of_seed(1.0, 2.5, 4.0)]
    others.append(of_seed(1.0, 2.6, 3.0))
    assert _n_changed(first, others, "score") == 2
    assert _n_changed(first, others, "is_anomaly") == 1
    assert _n_changed(first, others, "p_value") == 0


@pytest.mark.slow
def test_neither_the_seed_nor_the_name_changes_a_digit(tmp_path, one_device):
    size = SyntheticSize(n_source=15, n_target=2, n_test=16, seconds=(1.0, 1.0))
    root = make_synthetic(tmp_path / "data", {"fan": size})
    (files,) = find_all(Source(root, ("fan",)))
    row = compared(parse(["--data-root", str(root), "--seeds", "2"]), files)
    name, alarms, *changed = row
    assert name == "fan"
    assert alarms.endswith(f" of {N_NORMAL + N_FAULTY}")
    assert changed == ["0"] * 4
