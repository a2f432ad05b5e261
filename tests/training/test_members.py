"""Members: the seeds and folds on one axis, and the clips that each describes."""

import numpy as np
import pytest

from gammavae_jax.config import Config, TrainConfig
from gammavae_jax.training.members import (
    NO_FOLD,
    assign_member,
    by_clip,
    chosen_indices,
    folds_of_clips,
    member_numbers,
)

N_SEEDS, N_FOLDS, N_MACHINES, N_CLIPS = 2, 3, 2, 10
CONFIG = Config(seed=7, n_seeds=N_SEEDS, train=TrainConfig(n_folds=N_FOLDS))


@pytest.fixture
def folds():
    """The fold of each clip; the second machine's last three clips have none."""
    rng = np.random.default_rng(0)
    folds = rng.integers(N_FOLDS, size=(N_SEEDS, N_MACHINES, N_CLIPS))
    folds[:, 1, 7:] = NO_FOLD
    return folds


@pytest.fixture
def is_held_out(folds):
    by_fold = folds[:, None] == np.arange(N_FOLDS)[:, None, None]
    return by_fold.reshape(N_SEEDS * N_FOLDS, N_MACHINES, N_CLIPS)


def test_members_are_the_folds_of_each_seed_in_turn():
    expected = [[7, 0], [7, 1], [7, 2], [8, 0], [8, 1], [8, 2]]
    assert member_numbers(CONFIG).tolist() == expected


def test_without_folds_members_are_the_seeds():
    config = Config(seed=7, n_seeds=2, train=TrainConfig(split="clip"))
    assert member_numbers(config).tolist() == [[7, 0], [8, 0]]


def test_the_fold_of_a_clip_is_the_one_that_holds_it_out(folds, is_held_out):
    np.testing.assert_array_equal(folds_of_clips(is_held_out, N_FOLDS), folds)


def test_each_clip_is_described_by_a_member_not_trained_on_it_or_else_the_first(
    folds, is_held_out
):
    is_clip = np.ones((N_MACHINES, N_CLIPS), bool)
    is_clip[1, 9] = False
    assigned = assign_member(is_held_out, is_clip, N_FOLDS)
    by_seed = assigned.reshape(N_SEEDS, N_FOLDS, N_MACHINES, N_CLIPS)
    np.testing.assert_array_equal(by_seed.sum(1), np.stack([is_clip] * N_SEEDS))
    expected = np.where(folds == NO_FOLD, 0, folds)
    fold = by_seed.argmax(1)
    np.testing.assert_array_equal(fold[:, is_clip], expected[:, is_clip])
    # The argument is unchanged.
    assert not is_held_out[:, 1, 7:].any()


def test_the_chosen_indices_are_the_wanted_clips_in_order(is_held_out):
    chosen, is_used = chosen_indices(is_held_out)
    most = is_held_out.sum(-1).max()
    assert most <= chosen.shape[-1] < most + -(-N_CLIPS // 8)
    for model in np.ndindex(N_SEEDS * N_FOLDS, N_MACHINES):
        expected = np.flatnonzero(is_held_out[model])
        np.testing.assert_array_equal(chosen[model][is_used[model]], expected)


def test_the_number_of_chosen_clips_is_rounded_up_to_one_of_a_few_sizes():
    """Any number of wanted clips out of a hundred gives one of eight shapes."""
    is_wanted = np.tri(100, dtype=bool)[:, None, None]
    shapes = {chosen_indices(of_one[None])[0].shape[-1] for of_one in is_wanted[:, 0]}
    assert len(shapes) == 8


def test_without_wanted_clips_there_is_one_unused_index():
    chosen, is_used = chosen_indices(np.zeros((2, 3, 5), bool))
    assert chosen.shape == (2, 3, 1)
    assert not is_used.any()


@pytest.mark.parametrize("rest", [(), (4,)])
def test_each_value_is_stored_at_the_index_of_its_clip(folds, is_held_out, rest):
    rng = np.random.default_rng(1)
    of_all = rng.standard_normal((N_SEEDS * N_FOLDS, N_MACHINES, N_CLIPS, *rest))
    chosen, is_used = chosen_indices(is_held_out)
    index = chosen.reshape(*chosen.shape, *(1,) * len(rest))
    values = np.take_along_axis(of_all, index, axis=2)
    out = by_clip(values, chosen, is_used, N_CLIPS, CONFIG)
    assert out.shape == (N_SEEDS, N_MACHINES, N_CLIPS, *rest)
    for s, m, c in np.ndindex(N_SEEDS, N_MACHINES, N_CLIPS):
        if folds[s, m, c] == NO_FOLD:
            assert np.isnan(out[s, m, c]).all()
        else:
            member = N_FOLDS * s + folds[s, m, c]
            np.testing.assert_array_equal(out[s, m, c], of_all[member, m, c])
