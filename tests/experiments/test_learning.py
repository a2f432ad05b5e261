"""Measuring what `gammavae learn` changes."""

import numpy as np
import pytest

from experiments.learning import compared, drawn, draws_of, parse
from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic


@pytest.mark.parametrize("sizes", [(2,) * 12, (8, 14, 10, 1, 14, 3), (6, 8, 2)])
def test_learnt_clips_and_the_others_are_of_different_groups(sizes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(20):
        learnt, rest = drawn(group, 10, np.random.default_rng(seed))
        assert len(set(learnt.tolist())) == 10
        assert not set(group[learnt]) & set(group[rest])
        n_known = len(group) - len(rest)
        assert n_known >= 10
        # About half of the groups are for learning, unless they have too few clips.
        n_groups = len(sizes) - len(set(group[rest]))
        assert n_groups == len(sizes) // 2 or n_known - max(sizes) < 10


def test_draws_that_leave_no_other_clips_are_replaced():
    group = np.repeat(np.arange(3), (1, 1, 10))  # if the last is drawn, few others stay
    draws = list(draws_of(group, 10, 5))
    assert 0 < len(draws) <= 5
    assert all(len(rest) for _, rest in draws)
    assert list(draws_of(np.zeros(10, int), 10, 5)) == []


@pytest.mark.slow
def test_both_versions_are_compared(tmp_path, one_device):
    size = SyntheticSize(n_source=12, n_target=2, n_test=8, seconds=(1.0, 1.0))
    root = make_synthetic(tmp_path / "data", {"fan": size})
    (files,) = find_all(Source(root, ("fan",)))
    arguments = ["--data-root", str(root), "--clips", "4", "--draws", "1"]
    (row,) = compared(parse(arguments), files)
    name, seconds, n_clips, *of_loads = row
    assert name == "fan"
    assert "(" in seconds
    assert int(n_clips) == 4
    assert len(of_loads) == 8
    assert all(" to " in cell for cell in of_loads[:3] + of_loads[4:7])
    assert of_loads[3].endswith(" of 12")
    assert of_loads[7].endswith(" of 16")
