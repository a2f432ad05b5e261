"""The split: the folds, clips or windows that each model holds out."""

import numpy as np
import pytest
from support.probes import clips, crowd, noise

from gammavae_jax.data.arrays import HELD_OUT, PADDING, TRAIN, stack_machines
from gammavae_jax.errors import InputError
from gammavae_jax.training.split import require_windows, split_notes, split_windows


def windows_of(arrays, machine):
    """Return the clip of each window of a machine."""
    n_windows = np.maximum(arrays.clips.n_frames[machine] - 4, 0)
    return np.repeat(np.arange(len(n_windows)), n_windows)


@pytest.fixture
def machines():
    """Two machines of different sizes, with clips of different lengths."""
    return crowd(np.random.default_rng(0), counts=(20, 7))


def near_copies(rng, sizes):
    """Return clips with different spectra, and near copies of each."""
    out = []
    for size in sizes:
        clip = noise(rng, 1)[0] + 10 * rng.standard_normal(128)
        out += [clip + 0.1 * rng.standard_normal(clip.shape) for _ in range(size)]
    return out


def assert_windows_follow_clips(split, arrays):
    """Assert that each model holds out whole clips, and trains on others."""
    for member, m in np.ndindex(split.is_held_out.shape[:2]):
        clip = windows_of(arrays, m)
        used = split.window_use[member, m, : len(clip)]
        held_out = split.is_held_out[member, m][clip]
        np.testing.assert_array_equal(used, np.where(held_out, HELD_OUT, TRAIN))
        assert (split.window_use[member, m, len(clip) :] == PADDING).all()
        assert (used == TRAIN).any()


def test_each_clip_is_held_out_by_one_fold_of_a_seed_and_trained_on_by_the_others(
    tiny, machines
):
    config = tiny("default", "n_seeds=3", "train.n_folds=4")
    arrays = stack_machines(machines, 5)
    split = split_windows(arrays, config)
    assert split.window_use.shape[0] == split.is_held_out.shape[0] == 12
    by_seed = split.is_held_out.reshape(3, 4, 2, -1).sum(1)
    for m, (_, machine_clips) in enumerate(machines):
        n_clips = len(machine_clips.files)
        assert (by_seed[:, m, :n_clips] == 1).all()
        assert (by_seed[:, m, n_clips:] == 0).all()
    assert_windows_follow_clips(split, arrays)


def test_folds_of_independent_clips_have_equal_sizes(tiny, machines):
    split = split_windows(stack_machines(machines, 5), tiny("default", "n_seeds=2"))
    counts = split.is_held_out.reshape(2, 2, 2, -1).sum(-1)
    np.testing.assert_array_equal(counts, [[[10, 4], [10, 3]]] * 2)


def test_equal_seeds_give_equal_folds_and_different_seeds_do_not(tiny, machines):
    arrays = stack_machines(machines, 5)
    config = tiny("default", "n_seeds=3", "train.n_folds=5")
    split = split_windows(arrays, config)
    by_seed = split.is_held_out.reshape(3, 5, 2, -1)
    assert (by_seed[0] != by_seed[1]).any()
    assert (by_seed[1] != by_seed[2]).any()
    later = tiny("default", "seed=13712", "train.n_folds=5")
    again = split_windows(arrays, later)
    np.testing.assert_array_equal(again.window_use, split.window_use[5:10])


def test_a_machine_has_the_same_folds_alone_and_beside_others(tiny, machines):
    config = tiny("default", "train.n_folds=5")
    both = split_windows(stack_machines(machines, 5), config)
    for m, machine in enumerate(machines):
        alone = split_windows(stack_machines([machine], 5), config)
        n_clips = alone.is_held_out.shape[-1]
        np.testing.assert_array_equal(
            alone.is_held_out[:, 0], both.is_held_out[:, m, :n_clips]
        )


@pytest.mark.parametrize("kind", ["default", "vae", "official"])
def test_machines_with_equal_clips_but_different_names_hold_out_different_clips(
    tiny, kind
):
    same = clips(noise(np.random.default_rng(0), 20))
    split = split_windows(stack_machines([("a", same), ("b", same)], 5), tiny(kind))
    assert (split.window_use[:, 0] != split.window_use[:, 1]).any()


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_are_never_split_between_training_and_held_out(tiny, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 15)
    arrays = stack_machines([("m", clips(near_copies(rng, sizes)))], 5)
    split = split_windows(arrays, tiny("default", "train.n_folds=5", "n_seeds=2"))
    family = np.repeat(np.arange(len(sizes)), sizes)
    clip = windows_of(arrays, 0)
    for member in range(10):
        for number in range(len(sizes)):
            used = split.window_use[member, 0, : len(clip)][family[clip] == number]
            assert len(set(used)) == 1


@pytest.mark.parametrize(
    ("preset", "options", "n_held_out"),
    [
        ("default", ["train.n_folds=5"], 2),
        ("vae", ["n_seeds=5", "train.held_out_fraction=0.5"], 5),
    ],
)
def test_extra_clips_are_trained_on_and_never_held_out(
    tiny, machines, preset, options, n_held_out
):
    arrays = stack_machines(machines[:1], 5)
    is_extra = np.arange(20)[None] % 2 == 0
    split = split_windows(arrays, tiny(preset, *options), is_extra)
    assert not split.is_held_out[:, is_extra].any()
    assert not split.is_clip[is_extra].any()
    np.testing.assert_array_equal(split.is_held_out.sum(-1), [[n_held_out]] * 5)
    clip = windows_of(arrays, 0)
    of_extra = split.window_use[:, 0, : len(clip)][:, is_extra[0][clip]]
    assert (of_extra == TRAIN).all()


def test_a_recording_is_grouped_by_the_mean_over_its_clips(tiny):
    """Only the first clip of recording 0 resembles recording 1."""
    rng = np.random.default_rng(0)
    single = [near_copies(rng, [1])[0] for _ in range(8)]
    first = single[0] + 0.01 * rng.standard_normal(single[0].shape)
    odd = single[0] + 30 * rng.standard_normal(128)
    cut = [first, *(odd + noise(rng, 1)[0] for _ in range(4))]
    recordings = [np.array([0] * 5 + list(range(1, 9)))]
    arrays = stack_machines([("m", clips([*cut, *single]))], 5)
    config = tiny("default", "train.n_folds=3", "n_seeds=5")
    held_out = split_windows(arrays, config, recordings=recordings).is_held_out[:, 0]
    assert (held_out[:, 0] == held_out[:, 4]).all()
    assert (held_out[:, 0] != held_out[:, 5]).any()


def test_extra_clips_have_no_influence_on_the_groups(tiny):
    """If extra clips counted, loud ones would make all other clips look alike."""
    rng = np.random.default_rng(0)
    usual = near_copies(rng, [2] * 8)
    odd = [60 * rng.standard_normal((20, 128)) for _ in range(4)]
    config = tiny("default", "train.n_folds=4")
    arrays = stack_machines([("m", clips([*usual, *odd]))], 5)
    with_extra = split_windows(arrays, config, np.arange(20)[None] >= 16)
    without = split_windows(stack_machines([("m", clips(usual))], 5), config)
    np.testing.assert_array_equal(with_extra.is_held_out[..., :16], without.is_held_out)


def test_of_two_clips_each_is_held_out_by_one_fold(tiny):
    arrays = stack_machines([("m", clips(noise(np.random.default_rng(0), 2)))], 5)
    split = split_windows(arrays, tiny("default", "train.n_folds=5"))
    assert sorted(split.is_held_out[:, 0].sum(0)) == [1, 1]
    assert (split.window_use == TRAIN).any(-1).all()


def test_the_clip_split_holds_out_whole_clips(tiny, machines):
    config = tiny("vae", "n_seeds=3", "train.held_out_fraction=0.3")
    arrays = stack_machines(machines, 5)
    split = split_windows(arrays, config)
    assert_windows_follow_clips(split, arrays)
    assert (split.is_held_out[0] != split.is_held_out[1]).any()


@pytest.mark.parametrize(
    ("n", "n_target", "expected"),
    [
        (100, 10, (9, 1)),
        (66, 6, (6, 0)),
        (2, 0, (1, 0)),
        (5, 5, (0, 1)),
        (6, 5, (0, 1)),
    ],
)
def test_a_tenth_of_the_clips_of_each_domain_is_held_out(n, n_target, expected, tiny):
    rng = np.random.default_rng(0)
    arrays = stack_machines([("m", clips(noise(rng, n, 5), n_target))], 5)
    held_out = split_windows(arrays, tiny("vae")).is_held_out[0, 0]
    target = arrays.is_target[0]
    assert (held_out[~target].sum(), held_out[target].sum()) == expected


def test_the_official_split_holds_out_a_tenth_of_the_windows_at_random(tiny):
    arrays = stack_machines(crowd(np.random.default_rng(0), counts=(20, 7)), 5)
    split = split_windows(arrays, tiny("official"))
    assert not split.is_held_out.any()
    for m in range(2):
        n_windows = int(np.maximum(arrays.clips.n_frames[m] - 4, 0).sum())
        held_out = split.window_use[0, m, :n_windows] == HELD_OUT
        assert held_out.sum() == -(-n_windows // 10)
        assert (split.window_use[0, m, n_windows:] == PADDING).all()
        # Windows are drawn singly: most neighbours of held-out ones are trained on.
        assert (~held_out[1:] & held_out[:-1]).sum() > held_out.sum() / 2


def notes_on(config, **machines):
    arrays = stack_machines(list(machines.items()), 5)
    return split_notes(arrays, split_windows(arrays, config), list(machines), config)


def test_the_notes_name_machines_whose_clips_all_sound_the_same(tiny):
    """Lengths may differ; a single different clip suppresses the note."""
    rng = np.random.default_rng(0)
    silence = [np.full((n, 128), -156.5) for n in (20, 7, 12)]
    (one,) = noise(rng, 1)
    (note,) = notes_on(
        tiny(),
        usual=clips(noise(rng, 4)),
        silent=clips(silence),
        copied=clips([one] * 4),
        nearly=clips([one] * 3 + [one + 0.1 * (np.arange(128) == 7)]),
    )
    assert note.startswith(
        "Some machines have training clips that all sound the same, like silence or "
        "copies: silent, copied."
    )
    assert notes_on(tiny(), usual=clips(noise(rng, 4))) == []


def test_the_notes_name_machines_with_fewer_groups_than_folds(tiny):
    rng = np.random.default_rng(0)
    machines = {
        "many": clips(noise(rng, 12)),
        "three": clips(noise(rng, 3)),
        "copies": clips(near_copies(rng, [4, 4, 4])),
    }
    (note,) = notes_on(tiny("default", "train.n_folds=5", "n_seeds=2"), **machines)
    assert "than folds (5): three (3), copies (3). " in note
    assert notes_on(tiny("default", "train.n_folds=3"), **machines) == []
    assert notes_on(tiny("vae"), **machines) == []


@pytest.mark.parametrize(
    ("n_frames", "n_windows"),
    [(5, 1), (6, 2), (np.array([5, 9]), 1), (np.array([9, 6]), 2)],
)
def test_a_model_that_would_train_on_a_single_window_is_refused(
    tiny, n_frames, n_windows
):
    """With two clips, each model trains on one of them."""
    rng = np.random.default_rng(0)
    machines = [("many", clips(noise(rng, 6))), ("two", clips(noise(rng, 2, n_frames)))]
    split = split_windows(stack_machines(machines, 5), tiny())
    if n_windows > 1:
        require_windows(split, ["many", "two"])
        return
    with pytest.raises(
        InputError,
        match=r"two: too few windows to train a model \(1; at least 2 are needed\)",
    ):
        require_windows(split, ["many", "two"])
